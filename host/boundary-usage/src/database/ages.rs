//! The ages of what should not grow old: the open period, and the oldest undelivered summary.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Database, DatabaseStatus};
use crate::error::Error;

/// How old the open period and the oldest undelivered summary are, by the database's clock.
///
/// An age is negative if the clock was ahead when the time was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// Time since the open period began.
    pub open_period: TimeDelta,
    /// Time since the end of the oldest period whose summary is undelivered; `None` if there is none.
    pub oldest_undelivered: Option<TimeDelta>,
}

impl Ages {
    /// The ages that a status shows at a time.
    pub(super) fn of(status: &DatabaseStatus, now: DateTime<Utc>) -> Self {
        let undelivered = status.periods.iter().filter(|period| period.delivered_at.is_none());
        let oldest = undelivered.map(|period| super::rows::period_end(&period.summary)).min();
        Self { open_period: now - status.period_start, oldest_undelivered: oldest.map(|end| now - end) }
    }
}

impl Database {
    /// Reads how old the open period and the oldest undelivered summary are. It costs less than a [`Database::status`].
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn ages(&self) -> Result<Ages, Error> {
        self.backend().ages().await
    }
}
