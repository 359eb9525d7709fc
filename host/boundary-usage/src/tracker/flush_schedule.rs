//! The schedule of flushes and of component restarts, without I/O.
//!
//! The tracker flushes at every interval, with jitter, and sooner after a failed flush.

use std::time::Duration;

/// The wait after the first failure.
///
/// The wait doubles with every further failure, up to the interval.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The waits of one flush loop.
///
/// Most outages are short, so the first retry comes soon. A wait of a full interval would put the activity of another
/// interval at risk. In a long outage the retries become as rare as the flushes.
#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    jitter: f64,
    /// The wait after the next failure, before its jitter.
    retry: Duration,
}

impl Schedule {
    /// Creates a schedule. `jitter` is a fraction of the wait, from 0 to 1.
    pub(super) fn new(interval: Duration, jitter: f64) -> Self {
        Self { interval, jitter, retry: RETRY_MIN }
    }

    /// Returns the wait at the start and after a successful flush.
    ///
    /// `random` is from 0 to 1 and selects the point within the jitter.
    pub(super) fn after_success(&mut self, random: f64) -> Duration {
        self.retry = RETRY_MIN;
        self.jittered(self.interval, random)
    }

    /// Returns the wait after a failed flush, at most the interval.
    ///
    /// The jitter spreads replicas that lost the database at the same moment.
    pub(super) fn after_failure(&mut self, random: f64) -> Duration {
        let wait = self.retry.min(self.interval);
        self.retry = wait.saturating_mul(2);
        self.jittered(wait, random).min(self.interval)
    }

    fn jittered(&self, wait: Duration, random: f64) -> Duration {
        let seconds = wait.as_secs_f64() * (1.0 + self.jitter * (2.0 * random - 1.0));
        // The wait is too long for a `Duration` only if the host has switched the schedule off with a huge interval.
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// The wait before the first restart of a crashed component.
const RESTART_WAIT_MIN: Duration = Duration::from_millis(50);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(30);

/// Returns the wait before a restart, given the number of consecutive restarts without a flush.
pub(super) fn restart_wait(consecutive_restarts: u32) -> Duration {
    RESTART_WAIT_MIN.saturating_mul(2_u32.saturating_pow(consecutive_restarts)).min(RESTART_WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_jitter_spreads_evenly_around_the_interval() {
        let waits = |jitter, random| Schedule::new(MINUTE, jitter).after_success(random);
        assert_eq!(waits(0.1, 0.0), Duration::from_secs(54));
        assert_eq!(waits(0.1, 0.5), MINUTE);
        assert_eq!(waits(0.1, 1.0), Duration::from_secs(66));
        assert_eq!(waits(0.0, 0.7), MINUTE);
        assert_eq!(waits(1.0, 0.0), Duration::ZERO);
    }

    #[test]
    fn retries_back_off_up_to_the_interval() {
        let mut schedule = Schedule::new(MINUTE, 0.1);
        let waits: Vec<_> = (0..9).map(|_| schedule.after_failure(0.5).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_success_resets_the_back_off() {
        let mut schedule = Schedule::new(MINUTE, 0.0);
        (0..5).for_each(|_| _ = schedule.after_failure(0.5));
        assert_eq!(schedule.after_success(0.5), MINUTE);
        assert_eq!(schedule.after_failure(0.5), Duration::from_secs(1));
    }

    #[test]
    fn retries_have_jitter_and_never_exceed_the_interval() {
        let first = |random| Schedule::new(MINUTE, 0.1).after_failure(random);
        assert_eq!([first(0.0), first(1.0)].map(|wait| wait.as_millis()), [900, 1_100]);
        for interval in [Duration::from_millis(1), Duration::from_millis(1_050), MINUTE, Duration::MAX] {
            let mut schedule = Schedule::new(interval, 0.1);
            assert!((0..80).all(|_| schedule.after_failure(1.0) <= interval), "{interval:?}");
        }
    }

    #[test]
    fn restarts_of_a_crashing_component_back_off() {
        let waits = [0, 1, 2, 3, 9, 10, 31, 32, u32::MAX].map(|restarts| restart_wait(restarts).as_millis());
        assert_eq!(waits, [50, 100, 200, 400, 25_600, 30_000, 30_000, 30_000, 30_000]);
    }
}
