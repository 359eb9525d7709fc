//! The waits between delivery attempts, as pure functions.

use std::time::{Duration, SystemTime};

use boundary_usage::DELIVERY_WAIT_MAX;
use ureq::http::HeaderMap;
use ureq::http::header::{DATE, RETRY_AFTER};

/// The longest wait after a failure, unless the receiver requests a longer one.
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);

/// Returns the wait after this many consecutive failures.
///
/// The wait doubles with each failure. A random extra of up to a half keeps replicas from retrying simultaneously.
/// `random` may be any number.
pub(super) fn wait_after(first: Duration, failures: u64, random: u32) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(31);
    let wait = first.saturating_mul(1 << doublings).min(RETRY_MAX);
    wait + spread(wait / 2, random)
}

/// Returns the wait that the receiver requests, at most [`DELIVERY_WAIT_MAX`].
///
/// `Retry-After` is a number of seconds or a date. A date is compared with the receiver's clock if the response has a
/// `Date` header.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(RETRY_AFTER)?;
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large to parse means the longest wait.
        value.parse().map_or(DELIVERY_WAIT_MAX, Duration::from_secs)
    } else {
        let until = httpdate::parse_http_date(value).ok()?;
        let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
        until.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(DELIVERY_WAIT_MAX))
}

/// Returns the wait until a delivery is due, or `poll` if that is shorter.
///
/// A random extra of up to 100 ms keeps replicas from polling simultaneously.
pub(super) fn poll(due: Option<Duration>, poll: Duration, random: u32) -> Duration {
    due.map_or(poll, |due| due.min(poll)) + spread(Duration::from_millis(100), random)
}

fn spread(most: Duration, random: u32) -> Duration {
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_a_limit() {
        let waits: Vec<_> = (1..=11).map(|failures| wait_after(FIRST, failures, 0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(wait_after(FIRST, u64::MAX, 0), RETRY_MAX);
        assert_eq!(wait_after(FIRST, 3, u32::MAX), Duration::from_secs(6));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_a_day() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let wait = |value: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().expect("a header's value"));
            headers.extend(date.map(|date| (DATE, date.parse().expect("a header's value"))));
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("120", None), Some(120));
        assert_eq!(wait(" 0 ", None), Some(0));
        assert_eq!(wait("86401", None), Some(86_400));
        assert_eq!(wait("99999999999999999999999999", None), Some(86_400));
        assert_eq!(wait("Sun, 09 Sep 2001 01:47:40 GMT", None), Some(60));
        assert_eq!(wait("Sun, 09 Sep 2001 01:46:00 GMT", None), Some(0));
        assert_eq!(wait("Fri, 31 Dec 9999 23:59:59 GMT", None), Some(86_400));
        // The receiver's clock is an hour slow.
        let behind = Some("Sun, 09 Sep 2001 00:46:40 GMT");
        assert_eq!(wait("Sun, 09 Sep 2001 00:47:40 GMT", behind), Some(60));
        for nonsense in ["soon", "-1", "1.5", "1e9", ""] {
            assert_eq!(wait(nonsense, None), None, "{nonsense}");
        }
    }

    #[test]
    fn polling_waits_until_a_delivery_is_due_or_the_poll_interval_ends() {
        let poll = |due| super::poll(due, Duration::from_secs(2), 0).as_millis();
        assert_eq!(poll(None), 2000);
        assert_eq!(poll(Some(Duration::from_millis(50))), 50);
        assert_eq!(poll(Some(Duration::from_secs(60))), 2000);
    }
}
