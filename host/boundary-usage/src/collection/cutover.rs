//! The times of cutovers (H2): the multiples of an interval counted from midnight UTC, and midnight.

use std::time::Duration;

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};

use crate::records::OpenPeriod;

/// Returns the time from `time` to the next cutover. The result is zero only if the interval is zero.
pub(super) fn after(time: DateTime<Utc>, interval: Duration) -> Duration {
    let date = time.date_naive();
    let since_midnight = (time - date.and_time(NaiveTime::MIN).and_utc()).to_std().unwrap_or_default();
    let until_midnight = match date.checked_add_days(Days::new(1)) {
        Some(next) => (next.and_time(NaiveTime::MIN).and_utc() - time).to_std().unwrap_or_default(),
        // The last day that can be represented has no end.
        None => Duration::MAX,
    };
    let until_multiple = match interval.as_nanos() {
        0 => Duration::ZERO,
        nanos => {
            let rest = nanos - since_midnight.as_nanos() % nanos;
            Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
        }
    };
    until_multiple.min(until_midnight)
}

/// Returns the time until the first cutover after the period's start. `None` if that cutover has passed.
pub(super) fn due_in(period: OpenPeriod, interval: Duration) -> Option<Duration> {
    let cutover = TimeDelta::from_std(after(period.start, interval)).unwrap_or(TimeDelta::MAX);
    let remaining = cutover - (period.now - period.start);
    remaining.to_std().ok().filter(|remaining| !remaining.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        format!("2026-03-01T{text}Z").parse().unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn h2_cutovers_are_multiples_of_the_interval_from_midnight() {
        let half_an_hour = seconds(1_800);
        assert_eq!(after(time("00:00:00"), half_an_hour), half_an_hour);
        assert_eq!(after(time("00:00:01"), half_an_hour), seconds(1_799));
        assert_eq!(after(time("10:29:59.999"), half_an_hour), Duration::from_millis(1));
        assert_eq!(after(time("10:30:00"), half_an_hour), half_an_hour);
    }

    #[test]
    fn h2_midnight_is_a_cutover_of_every_interval() {
        // A day is not a multiple of 7 hours. 21:00 is the last multiple before midnight.
        assert_eq!(after(time("20:00:00"), seconds(7 * 3_600)), seconds(3_600));
        assert_eq!(after(time("21:00:00"), seconds(7 * 3_600)), seconds(3 * 3_600));
        assert_eq!(after(time("12:00:00"), seconds(366 * 86_400)), seconds(12 * 3_600));
        assert_eq!(after(time("12:00:00"), Duration::MAX), seconds(12 * 3_600));
    }

    #[test]
    fn a_period_is_due_when_a_cutover_has_passed_since_its_start() {
        let due =
            |start, now| due_in(OpenPeriod { start: time(start), now: time(now), has_usage: true }, seconds(1_800));
        assert_eq!(due("10:10:00", "10:20:00"), Some(seconds(600)));
        assert_eq!(due("10:10:00", "10:29:59.999"), Some(Duration::from_millis(1)));
        assert_eq!(due("10:10:00", "10:30:00"), None);
        assert_eq!(due("10:10:00", "23:00:00"), None);
        assert_eq!(due("10:30:00", "10:30:00"), Some(seconds(1_800)));
    }

    #[test]
    fn with_an_interval_of_zero_every_period_is_due() {
        let period = OpenPeriod { start: time("10:00:00"), now: time("10:00:00"), has_usage: false };
        assert_eq!(due_in(period, Duration::ZERO), None);
    }
}
