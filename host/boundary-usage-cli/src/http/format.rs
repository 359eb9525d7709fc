//! Formats numbers and times for people.

use std::fmt::{self, Display, Formatter};

use askama::filters::HtmlSafe;
use chrono::{DateTime, TimeDelta, Utc};

/// A count as HTML, with commas between thousands.
///
/// A line may break after each comma.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digits(pub(super) u64);

/// The text contains only digits, commas and `<wbr>`.
impl HtmlSafe for Digits {}

impl Display for Digits {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&count(self.0).replace(',', ",<wbr>"))
    }
}

/// Formats a count with commas between thousands.
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

/// Formats a count with its noun.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Formats a duration in its two largest units.
pub(super) fn duration(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds().max(0);
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

/// Formats the time since another time.
pub(super) fn ago(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    format!("{} ago", duration(now - time))
}

/// Formats a rate per minute. Small rates have one decimal.
pub(super) fn per_minute(number: u64, duration: TimeDelta) -> String {
    let minutes = duration.num_milliseconds() as f64 / 60_000.0;
    let rate = if minutes > 0.0 { number as f64 / minutes } else { 0.0 };
    if rate < 10.0 { format!("{rate:.1} per minute") } else { format!("{} per minute", count(rate.round() as u64)) }
}

/// Formats a part as a percentage of the total.
pub(super) fn share(part: u64, rest: u64) -> String {
    let total = part as f64 + rest as f64;
    format!("{:.1} % of all", if total > 0.0 { part as f64 / total * 100.0 } else { 0.0 })
}

/// Formats a time to the second.
pub(super) fn timestamp(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Formats a time without year and seconds, for the ends of an axis.
pub(super) fn short_timestamp(time: DateTime<Utc>) -> String {
    time.format("%-d %b %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_by_commas() {
        let shown = [0, 999, 1_000, 1_234_567, u64::MAX].map(count);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567", "18,446,744,073,709,551,615"]);
        assert_eq!([counted(1, "log", "logs"), counted(2, "log", "logs")], ["1 log", "2 logs"]);
    }

    #[test]
    fn a_count_may_break_only_after_its_commas() {
        assert_eq!(Digits(12_345_678).to_string(), "12,<wbr>345,<wbr>678");
    }

    #[test]
    fn durations_are_shown_in_their_largest_units() {
        let shown = [-5, 0, 59, 60, 3_599, 3_600, 5_400, 86_400, 100_000].map(|s| duration(TimeDelta::seconds(s)));
        assert_eq!(shown, ["0 s", "0 s", "59 s", "1 min", "59 min", "1 h", "1 h 30 min", "1 d", "1 d 3 h"]);
    }

    #[test]
    fn rates_and_shares_of_nothing_are_zero() {
        assert_eq!(per_minute(7, TimeDelta::zero()), "0.0 per minute");
        assert_eq!(per_minute(5, TimeDelta::minutes(2)), "2.5 per minute");
        assert_eq!(per_minute(90_000, TimeDelta::minutes(30)), "3,000 per minute");
        assert_eq!([share(0, 0), share(1, 3), share(u64::MAX, 0)], ["0.0 % of all", "25.0 % of all", "100.0 % of all"]);
    }
}
