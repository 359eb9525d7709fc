//! The first connection to a database that may be down when the host starts.
//!
//! The connection is retried if the server rejects connections, is unreachable, does not reply, or is still starting.
//! An invalid URL, a failed login or a schema that is too new is an error immediately.

mod first_connection;

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use self::first_connection::FirstConnection;
use crate::database::Database;
use crate::error::{Error, chain};

/// The pause after the first failed attempt, which doubles after each attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The wait before the first log line, which doubles with each further line.
const FIRST_NOTICE: Duration = Duration::from_secs(2);

/// The longest time between two log lines.
const LONGEST_NOTICE: Duration = Duration::from_secs(10 * 60);

/// The progress of the first connection.
#[derive(Debug, Default)]
pub struct Connecting {
    /// The error of the last failed attempt.
    failure: Mutex<Option<String>>,
    /// Notified by the first failure.
    failed: Notify,
}

impl Connecting {
    /// Returns the error of the last failed attempt, if any.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects, and retries while the database is down.
    ///
    /// Calls `when_waiting` after 2 s, once. Returns an error that a retry cannot fix, such as an invalid
    /// configuration.
    pub(crate) async fn connect(&self, url: &str, when_waiting: impl FnOnce()) -> Result<Database, Error> {
        let begun = Instant::now();
        let database = tokio::select! {
            connected = self.attempts(url) => connected?,
            never = self.notices(begun, when_waiting) => match never {},
        };
        if self.failure().is_some() {
            tracing::info!(waited = ?begun.elapsed(), "connected to the database");
        }
        Ok(database)
    }

    /// Waits until an attempt has failed or 2 s have passed.
    ///
    /// After that, the database counts as down.
    pub async fn down(&self) {
        let _ = timeout(FIRST_NOTICE, self.failed.notified()).await;
    }

    async fn attempts(&self, url: &str) -> Result<Database, Error> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match Database::connect(url).await {
                Err(error) if is_down(url, &error) => chain(&error),
                connected => return connected,
            };
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            self.failed.notify_one();
            // The random extra of up to a half keeps replicas from reconnecting simultaneously.
            sleep(pause.mul_f64(1.0 + rand::random::<f64>() / 2.0)).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    async fn notices(&self, begun: Instant, when_waiting: impl FnOnce()) -> Infallible {
        let mut when_waiting = Some(when_waiting);
        let mut wait = FIRST_NOTICE;
        loop {
            sleep_until(begun + wait).await;
            if let Some(when_waiting) = when_waiting.take() {
                when_waiting();
            }
            let reason = self.failure().unwrap_or_else(|| "no reply yet".to_owned());
            tracing::warn!(waited = ?begun.elapsed(), reason, "waiting for the database");
            wait += wait.min(LONGEST_NOTICE);
        }
    }
}

/// Returns whether a retry can help.
///
/// A retry cannot help if a SQLite file cannot be opened.
fn is_down(url: &str, error: &Error) -> bool {
    error.is_retryable() && !url.starts_with("sqlite:")
}
