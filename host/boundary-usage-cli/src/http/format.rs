//! Numbers and times as people read them.

use std::fmt::{self, Display, Formatter};

use askama::filters::HtmlSafe;
use chrono::{DateTime, TimeDelta, Utc};

/// A count as HTML: with commas between the thousands, and after each comma a line may end where there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digits(pub(super) u64);

/// Digits, commas and `<wbr>` only.
impl HtmlSafe for Digits {}

impl Display for Digits {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&count(self.0).replace(',', ",<wbr>"))
    }
}

/// With commas between the thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what it counts.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// The two greatest units of a length of time.
pub(super) fn length(length: TimeDelta) -> String {
    let seconds = length.num_seconds().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let two = |great: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{great} {unit}"),
        small => format!("{great} {unit} {small} {small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min"),
        3_600..86_400 => two(hours, "h", minutes, "min"),
        _ => two(days, "d", hours, "h"),
    }
}

pub(super) fn ago(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    format!("{} ago", length(now - moment))
}

/// A rate with as many digits as it is worth.
pub(super) fn a_minute(number: u64, length: TimeDelta) -> String {
    let minutes = length.num_milliseconds() as f64 / 60_000.0;
    let rate = if minutes > 0.0 { number as f64 / minutes } else { 0.0 };
    if rate < 10.0 { format!("{rate:.1} a minute") } else { format!("{} a minute", count(rate.round() as u64)) }
}

/// A part of a status.
pub(super) fn share(part: u64, rest: u64) -> String {
    let status = part as f64 + rest as f64;
    format!("{:.1} % of all", if status > 0.0 { part as f64 / status * 100.0 } else { 0.0 })
}

pub(super) fn timestamp(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Without the year and the seconds: the end of an axis.
pub(super) fn short_timestamp(moment: DateTime<Utc>) -> String {
    moment.format("%-d %b %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let shown = [0, 999, 1_000, 1_234_567, u64::MAX].map(count);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567", "18,446,744,073,709,551,615"]);
        assert_eq!([counted(1, "log", "logs"), counted(2, "log", "logs")], ["1 log", "2 logs"]);
    }

    #[test]
    fn a_count_may_be_broken_after_its_commas_only() {
        assert_eq!(Digits(12_345_678).to_string(), "12,<wbr>345,<wbr>678");
    }

    #[test]
    fn lengths_are_told_in_their_greatest_units() {
        let shown = [-5, 0, 59, 60, 3_599, 3_600, 5_400, 86_400, 100_000].map(|s| length(TimeDelta::seconds(s)));
        assert_eq!(shown, ["0 s", "0 s", "59 s", "1 min", "59 min", "1 h", "1 h 30 min", "1 d", "1 d 3 h"]);
    }

    #[test]
    fn rates_and_shares_of_nothing_are_nothing() {
        assert_eq!(a_minute(7, TimeDelta::zero()), "0.0 a minute");
        assert_eq!(a_minute(5, TimeDelta::minutes(2)), "2.5 a minute");
        assert_eq!(a_minute(90_000, TimeDelta::minutes(30)), "3,000 a minute");
        assert_eq!([share(0, 0), share(1, 3), share(u64::MAX, 0)], ["0.0 % of all", "25.0 % of all", "100.0 % of all"]);
    }
}
