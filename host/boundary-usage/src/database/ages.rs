//! The ages of the open period and of the oldest undelivered summary.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Database, DatabaseStatus};
use crate::error::Error;

/// Ages of the open period and the oldest undelivered summary.
///
/// The ages are computed with the database's clock. An age is negative if the clock was ahead when the time was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// Time since the open period began.
    pub open_period: TimeDelta,
    /// Time since the end of the oldest period whose summary is undelivered.
    ///
    /// `None` if all summaries are delivered.
    pub oldest_undelivered: Option<TimeDelta>,
}

impl Ages {
    /// Computes the ages from a status.
    pub(super) fn of(status: &DatabaseStatus, now: DateTime<Utc>) -> Self {
        let undelivered = status.periods.iter().filter(|period| period.delivered_at.is_none());
        let oldest = undelivered.map(|period| period.summary.end()).min();
        Self { open_period: now - status.period_start, oldest_undelivered: oldest.map(|end| now - end) }
    }
}

impl Database {
    /// Reads the ages of the open period and the oldest undelivered summary.
    ///
    /// This read costs less than [`Database::status`].
    ///
    /// # Errors
    ///
    /// - Any error of the backend if the database cannot be read.
    pub async fn ages(&self) -> Result<Ages, Error> {
        self.backend().ages().await
    }
}
