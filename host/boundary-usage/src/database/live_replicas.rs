//! The replicas that have flushed recently, for monitoring.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{Database, DatabaseStatus};
use crate::error::Error;

/// The replicas that have flushed recently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveReplicas {
    /// The number of these replicas.
    pub count: u64,
    /// The one that flushed the longest time ago, and the time since its last flush, by the database's clock.
    ///
    /// `None` if no replica has flushed recently.
    pub longest_silent: Option<(Uuid, TimeDelta)>,
}

impl LiveReplicas {
    /// Selects the live replicas of a status.
    pub(super) fn of(status: &DatabaseStatus, within: Duration, now: DateTime<Utc>) -> Self {
        let ages = status.replicas.iter().map(|replica| (replica.replica, now - replica.flushed_at));
        let live: Vec<_> = ages.filter(|(_, age)| age.to_std().unwrap_or_default() < within).collect();
        Self { count: live.len() as u64, longest_silent: live.into_iter().max_by_key(|(_, age)| *age) }
    }
}

impl Database {
    /// Reads which replicas have flushed within a time.
    ///
    /// A replica without activity does not flush, and is not live after that time.
    ///
    /// # Errors
    ///
    /// - Any error of the backend if the database cannot be read.
    pub async fn live_replicas(&self, within: Duration) -> Result<LiveReplicas, Error> {
        self.backend().live_replicas(within).await
    }
}
