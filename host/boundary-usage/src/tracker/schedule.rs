//! When to flush next: every interval, give or take a jitter; pure.

use std::time::Duration;

/// The wait before the next flush. `random` is from 0 to 1 and picks the point within the jitter.
pub(super) fn next_wait(interval: Duration, jitter: f64, random: f64) -> Duration {
    interval.mul_f64(1.0 + jitter * (2.0 * random - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jitter_spreads_evenly_around_the_interval() {
        let minute = Duration::from_secs(60);
        assert_eq!(next_wait(minute, 0.1, 0.0), Duration::from_secs(54));
        assert_eq!(next_wait(minute, 0.1, 0.5), minute);
        assert_eq!(next_wait(minute, 0.1, 1.0), Duration::from_secs(66));
        assert_eq!(next_wait(minute, 0.0, 0.7), minute);
        assert_eq!(next_wait(minute, 1.0, 0.0), Duration::ZERO);
    }
}
