//! When to flush next: every interval, give or take a jitter, and sooner after a flush that failed. And when to replace a
//! component that broke. Pure.

use std::time::Duration;

/// The first wait after a failure; it doubles with every further one, up to the interval.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The waits of one flush loop.
///
/// An outage is mostly short: whoever waits a whole interval after it has a whole interval more to lose. So the first
/// retry comes soon. In a long outage the retries come as rarely as the flushes would.
#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    jitter: f64,
    /// The wait after the next failure, before its jitter.
    retry: Duration,
}

impl Schedule {
    /// A schedule without failures so far. `jitter` is a fraction, from 0 to 1.
    pub(super) fn new(interval: Duration, jitter: f64) -> Self {
        Self { interval, jitter, retry: RETRY_MIN }
    }

    /// How long to wait for the next flush, at the start and after one that did not fail. `random` is from 0 to 1 and
    /// picks the point within the jitter.
    pub(super) fn after_success(&mut self, random: f64) -> Duration {
        self.retry = RETRY_MIN;
        self.jittered(self.interval, random)
    }

    /// How long to wait after a flush that failed: never longer than the interval. The jitter keeps replicas that lost
    /// the database in one moment from coming back in one moment.
    pub(super) fn after_failure(&mut self, random: f64) -> Duration {
        let wait = self.retry.min(self.interval);
        self.retry = wait.saturating_mul(2);
        self.jittered(wait, random).min(self.interval)
    }

    fn jittered(&self, wait: Duration, random: f64) -> Duration {
        let seconds = wait.as_secs_f64() * (1.0 + self.jitter * (2.0 * random - 1.0));
        // An interval for ever is a way to say that one flushes by hand.
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// The first wait before a component that broke is replaced.
const RESTART_WAIT_MIN: Duration = Duration::from_millis(50);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long to wait before a component that broke is replaced, when as many before it broke without a flush between.
pub(super) fn restart_wait(in_a_row: u32) -> Duration {
    RESTART_WAIT_MIN.saturating_mul(2_u32.saturating_pow(in_a_row)).min(RESTART_WAIT_MAX)
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
    fn retries_come_soon_and_then_ever_later_up_to_the_interval() {
        let mut schedule = Schedule::new(MINUTE, 0.1);
        let waits: Vec<_> = (0..9).map(|_| schedule.after_failure(0.5).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_success_makes_the_schedule_forget_the_failures() {
        let mut schedule = Schedule::new(MINUTE, 0.0);
        (0..5).for_each(|_| _ = schedule.after_failure(0.5));
        assert_eq!(schedule.after_success(0.5), MINUTE);
        assert_eq!(schedule.after_failure(0.5), Duration::from_secs(1));
    }

    #[test]
    fn retries_have_a_jitter_and_are_never_later_than_the_interval() {
        let first = |random| Schedule::new(MINUTE, 0.1).after_failure(random);
        assert_eq!([first(0.0), first(1.0)].map(|wait| wait.as_millis()), [900, 1_100]);
        for interval in [Duration::from_millis(1), Duration::from_millis(1_050), MINUTE, Duration::MAX] {
            let mut schedule = Schedule::new(interval, 0.1);
            assert!((0..80).all(|_| schedule.after_failure(1.0) <= interval), "{interval:?}");
        }
    }

    #[test]
    fn a_component_that_breaks_again_and_again_is_replaced_ever_more_slowly() {
        let waits = [0, 1, 2, 3, 9, 10, 31, 32, u32::MAX].map(|in_a_row| restart_wait(in_a_row).as_millis());
        assert_eq!(waits, [50, 100, 200, 400, 25_600, 30_000, 30_000, 30_000, 30_000]);
    }
}
