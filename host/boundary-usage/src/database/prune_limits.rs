//! The limits of a pruning, and its result.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

/// The limits of a pruning, as times of the database. `None` deletes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneLimits {
    /// Periods that ended before this time are deleted.
    pub periods_ended_before: Option<DateTime<Utc>>,
    /// Whether undelivered periods are deleted, too.
    pub undelivered: bool,
    /// Replicas whose last flush is before this time are deleted.
    pub replicas_idle_since: Option<DateTime<Utc>>,
    /// Days before this date are deleted.
    pub days_before: Option<NaiveDate>,
}

/// What a pruning deleted or would delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The number of closed periods.
    pub periods: u64,
    /// The number of old periods that stay only because they are undelivered.
    pub undelivered_kept: u64,
    /// The number of replicas.
    pub replicas: u64,
    /// The number of days.
    pub days: u64,
}

impl Pruned {
    /// Returns whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        (self.periods, self.replicas, self.days) == (0, 0, 0)
    }
}
