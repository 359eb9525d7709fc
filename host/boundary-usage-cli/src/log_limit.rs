//! A rate limit for log lines that clients can cause.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time between two lines of one kind.
///
/// The interval is long enough that clients cannot fill a disk, and short enough that an operator sees the line.
const INTERVAL: Duration = Duration::from_secs(60);

/// The limit of one kind of log line, which is written at most once per interval.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    written: Option<Instant>,
    repeated: u64,
}

impl LogLimit {
    /// Counts an event. Returns whether the caller may log the event.
    pub(crate) fn permits(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let permitted = state.repeated == 0 && state.is_due();
        if permitted {
            state.written = Some(Instant::now());
        } else {
            state.repeated += 1;
        }
        permitted
    }

    /// Takes the number of unlogged events. Returns `None` if every event was logged, or before the end of the
    /// interval.
    pub(crate) fn repeated(&self) -> Option<u64> {
        self.take(State::is_due)
    }

    /// Takes the number of unlogged events. Returns `None` if every event was logged.
    pub(crate) fn rest(&self) -> Option<u64> {
        self.take(|_| true)
    }

    fn take(&self, condition: impl FnOnce(&State) -> bool) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.repeated == 0 || !condition(&state) {
            return None;
        }
        state.written = Some(Instant::now());
        Some(std::mem::take(&mut state.repeated))
    }
}

impl State {
    fn is_due(&self) -> bool {
        self.written.is_none_or(|written| written.elapsed() >= INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_event_is_logged_or_counted() {
        let limit = LogLimit::default();
        let mut logged = 0;
        for _ in 0..1_000 {
            logged += u64::from(limit.permits());
            logged += limit.repeated().unwrap_or_default();
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert!(limit.repeated().is_none(), "the interval is not over");
        assert_eq!(logged + limit.rest().unwrap(), 1_000);
        assert!(limit.rest().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_after_a_quiet_interval_is_logged() {
        let limit = LogLimit::default();
        assert!(limit.permits());
        assert!(!limit.permits());
        tokio::time::advance(INTERVAL).await;
        assert_eq!(limit.repeated(), Some(1));
        assert!(!limit.permits());
        tokio::time::advance(INTERVAL).await;
        assert_eq!(limit.repeated(), Some(1));
        tokio::time::advance(INTERVAL).await;
        assert!(limit.permits());
    }
}
