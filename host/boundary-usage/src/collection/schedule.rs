//! The schedule of collections, without I/O.

use std::time::Duration;

use super::{Collection, cutover};
use crate::error::Error;

/// The wait after the first failure, which doubles after each further failure.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The waits of one collector.
#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    retry: Duration,
}

impl Schedule {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, retry: RETRY_MIN }
    }

    /// Returns the wait after an attempt.
    ///
    /// `random` is any number. This number extends the wait by up to a tenth, so several collectors do not request the
    /// lock simultaneously.
    pub(super) fn wait_after(&mut self, outcome: &Result<Collection, Error>, random: u32) -> Duration {
        let wait = match outcome {
            Ok(Collection::Closed(summary)) => cutover::after(summary.end(), self.interval),
            Ok(Collection::NotDue { due_in, .. }) => *due_in,
            Err(_) => self.retry,
        };
        self.retry = if outcome.is_err() { (self.retry * 2).min(RETRY_MAX) } else { RETRY_MIN };
        wait.saturating_add(jitter(wait, random))
    }
}

/// Returns a random extra: at most a tenth of the wait, and at most a second.
///
/// The result is at least a millisecond, which prevents a busy loop just before a period is due.
fn jitter(wait: Duration, random: u32) -> Duration {
    let most = (wait / 10).min(Duration::from_secs(1));
    most.mul_f64(f64::from(random) / f64::from(u32::MAX)).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Summary;

    const INTERVAL: Duration = Duration::from_secs(1800);

    fn failed() -> Result<Collection, Error> {
        Err(Error::Stopped)
    }

    #[test]
    fn the_wait_is_the_rest_of_the_period_and_some_jitter() {
        let mut schedule = Schedule::new(INTERVAL);
        let not_due = Collection::NotDue { age: Duration::from_secs(1_700), due_in: Duration::from_secs(100) };
        // The period ended 100 seconds before a cutover.
        let closed = Collection::Closed(Summary { period_duration_ms: 1_700_000, ..Summary::default() });
        for outcome in [not_due, closed] {
            for random in [0, 1 << 31, u32::MAX] {
                let wait = schedule.wait_after(&Ok(outcome.clone()), random);
                assert!(wait > Duration::from_secs(100) && wait <= Duration::from_secs(101), "{wait:?}");
            }
        }
    }

    #[test]
    fn jitter_extends_a_wait_by_at_most_a_tenth() {
        let wait = |random| Schedule::new(INTERVAL).wait_after(&failed(), random);
        assert_eq!(wait(0), Duration::from_millis(1_001));
        assert_eq!(wait(u32::MAX), Duration::from_millis(1_100));
    }

    #[test]
    fn failures_back_off_and_a_success_resets_the_wait() {
        let mut schedule = Schedule::new(INTERVAL);
        let waits: Vec<_> = (0..9).map(|_| schedule.wait_after(&failed(), 0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        schedule.wait_after(&Ok(Collection::NotDue { age: INTERVAL, due_in: INTERVAL }), 0);
        assert_eq!(schedule.wait_after(&failed(), 0).as_secs(), 1);
    }

    #[test]
    fn there_is_always_a_wait_between_attempts() {
        let mut schedule = Schedule::new(INTERVAL);
        let not_due = Collection::NotDue { age: INTERVAL, due_in: Duration::ZERO };
        assert!(schedule.wait_after(&Ok(not_due), 0) > Duration::ZERO);
    }
}
