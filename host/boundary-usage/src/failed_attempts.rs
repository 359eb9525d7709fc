//! Failed attempts in a row, and which of them the log shows.

use std::time::Duration;

use tokio::time::Instant;

/// The time between two log lines about the same row of failed attempts.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The failed attempts since the last success.
///
/// A long outage must not fill the log. So the log shows the first failure, and then at most one a minute. Each line
/// has the number of its attempt, which counts the failures without a line, too.
#[derive(Debug, Default)]
pub struct FailedAttempts {
    count: u64,
    logged: Option<Instant>,
}

impl FailedAttempts {
    /// Counts a failed attempt. Returns its number, from 1, if the log shows this failure.
    pub fn failed(&mut self) -> Option<u64> {
        self.count += 1;
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(self.count)
    }

    /// Returns the number of failed attempts since the last success.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Counts a successful attempt. Returns the number of failed ones before it, if there were any.
    pub fn succeeded(&mut self) -> Option<u64> {
        let Self { count, .. } = std::mem::take(self);
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_shows_the_first_failure_and_then_one_a_minute_with_the_count() {
        let mut attempts = FailedAttempts::default();
        let mut shown = Vec::new();
        for _ in 0..150 {
            shown.extend(attempts.failed());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(shown, [1, 61, 121]);
        assert_eq!(attempts.succeeded(), Some(150));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_success_the_next_failure_is_shown_as_the_first() {
        let mut attempts = FailedAttempts::default();
        assert_eq!(attempts.succeeded(), None);
        assert_eq!(attempts.failed(), Some(1));
        assert_eq!(attempts.failed(), None);
        assert_eq!(attempts.succeeded(), Some(2));
        assert_eq!((attempts.failed(), attempts.succeeded()), (Some(1), Some(1)));
    }
}
