//! When to try a delivery again; pure.

use std::time::Duration;

/// The longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);

/// How long to wait after this failed attempt, counted from 1: twice as long after each, and up to a half more, so that what
/// failed together is not tried together. `random` is any number.
pub(super) fn wait_after(first: Duration, attempt: u64, random: u32) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(31);
    let wait = first.saturating_mul(1 << doublings).min(RETRY_MAX);
    wait + spread(wait / 2, random)
}

/// How long to wait when nothing is due: until something is, and no longer than `poll`. Replicas do not all ask at once.
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
        let waits: Vec<_> = (1..=11).map(|attempt| wait_after(FIRST, attempt, 0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(wait_after(FIRST, u64::MAX, 0), RETRY_MAX);
        assert_eq!(wait_after(FIRST, 3, u32::MAX), Duration::from_secs(6));
    }

    #[test]
    fn an_idle_look_comes_when_something_is_due_or_after_the_poll() {
        let poll = |due| super::poll(due, Duration::from_secs(2), 0).as_millis();
        assert_eq!(poll(None), 2000);
        assert_eq!(poll(Some(Duration::from_millis(50))), 50);
        assert_eq!(poll(Some(Duration::from_secs(60))), 2000);
    }
}
