//! The first connection to the database, which may be away when `serve` starts.
//!
//! A database that is away is waited for: a server that refuses connections, cannot be reached, does not reply or starts
//! up. Wrong configuration is an error at once: a URL that is not valid, a login that fails, a schema that is too new.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use boundary_usage::{Database, Error};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

/// The pause after the first failed attempt. It doubles after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The first log line comes after this wait, the next ones after twice the wait of the one before.
const FIRST_NOTICE: Duration = Duration::from_secs(2);

/// The longest time between two log lines.
const LONGEST_NOTICE: Duration = Duration::from_secs(10 * 60);

/// A connection that is being made.
#[derive(Debug, Default)]
pub struct Connecting {
    /// Why the last attempt failed.
    failure: Mutex<Option<String>>,
    /// Notified by the first failure.
    failed: Notify,
}

impl Connecting {
    /// Why there is no connection yet, after an attempt that failed.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects, and waits for a database that is away. Calls `when_waiting` once if it waits for 2 s.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong, so that to wait does not help.
    pub async fn connect(&self, url: &str, when_waiting: impl FnOnce()) -> Result<Database, Error> {
        let begun = Instant::now();
        let database = tokio::select! {
            connected = self.attempts(url) => connected?,
            never = self.notices(begun, when_waiting) => match never {},
        };
        if self.failure().is_some() {
            info!(waited = ?begun.elapsed(), "the database is reached");
        }
        Ok(database)
    }

    /// Waits for the first failure, and no longer than 2 s: the database is away then.
    pub async fn away(&self) {
        let _ = timeout(FIRST_NOTICE, self.failed.notified()).await;
    }

    async fn attempts(&self, url: &str) -> Result<Database, Error> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match Database::connect(url).await {
                Err(error) if is_away(url, &error) => anyhow::Error::from(error),
                connected => return connected,
            };
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
            self.failed.notify_one();
            // Up to a half more, so that replicas which lost one server do not return together.
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
            warn!(waited = ?begun.elapsed(), reason, "waiting for the database");
            wait += wait.min(LONGEST_NOTICE);
        }
    }
}

/// Whether it helps to wait. A SQLite file that cannot be opened is an error at once: no server will open it.
fn is_away(url: &str, error: &Error) -> bool {
    error.is_retryable() && !url.starts_with("sqlite:")
}
