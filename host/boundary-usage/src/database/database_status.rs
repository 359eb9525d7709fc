//! The status of a database: the open period, the replicas, and the closed periods.

use std::fmt::{self, Display};

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{DeliveryStatus, KeyFingerprint};
use crate::summary::Summary;

/// The number of rows and of replicas that a status of the scope [`StatusScope::Recent`] lists.
const RECENT: u32 = 100;

/// The number of newest periods that such a status lists: a day of half hours.
const NEWEST_PERIODS: u32 = 48;

/// The number of oldest undelivered periods that such a status lists.
const OLDEST_UNDELIVERED: u32 = 20;

/// The number up to which a status counts replicas and periods, so that it does not read long tables.
const COUNT_MAX: u32 = 1_000;

/// What a status lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatusScope {
    /// The rows and replicas that were updated last, the newest periods, and the oldest undelivered ones.
    ///
    /// The time to read them does not depend on the number of replicas and of periods.
    #[default]
    Recent,
    /// Everything.
    All,
}

impl StatusScope {
    /// Returns the largest number of rows and of replicas to read.
    pub(super) fn recent(self) -> i64 {
        self.limit(RECENT)
    }

    /// Returns the largest numbers of newest periods and of oldest undelivered periods to read.
    pub(super) fn periods(self) -> [i64; 2] {
        [self.limit(NEWEST_PERIODS), self.limit(OLDEST_UNDELIVERED)]
    }

    /// Returns the number up to which replicas and periods are counted.
    pub(super) fn count(self) -> i64 {
        self.limit(COUNT_MAX)
    }

    fn limit(self, recent: u32) -> i64 {
        match self {
            Self::Recent => recent.into(),
            Self::All => i64::MAX,
        }
    }
}

/// A number of things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Number {
    /// The number.
    pub count: u64,
    /// Whether there may be more, because a status does not count further.
    pub at_least: bool,
}

impl Number {
    /// Creates a number that was counted up to a limit.
    pub(super) fn counted(count: u64, limit: i64) -> Self {
        Self { count, at_least: i64::try_from(count).is_ok_and(|count| count >= limit) }
    }

    /// Returns the number of things that are not listed.
    pub fn without(self, listed: usize) -> Self {
        Self { count: self.count.saturating_sub(listed as u64), ..self }
    }
}

impl Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.at_least { "at least " } else { "" };
        write!(formatter, "{prefix}{}", self.count)
    }
}

/// The open period, the replicas and the closed periods of a database.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DatabaseStatus {
    /// The last cutover, or the creation of the schema before the first cutover.
    pub period_start: DateTime<Utc>,
    /// The summary that a collection would return now, with the period id 0.
    ///
    /// If `more_rows` is not 0, the sketches of these rows were not read. The unique counts are then lower bounds.
    pub so_far: Summary,
    /// Errors of rows with damaged sketches.
    ///
    /// A collection would refuse such rows. `so_far` excludes them if all rows are listed.
    pub damaged: Vec<String>,
    /// The fingerprint of the hashing key. `None` if the database has lost its key.
    pub key_fingerprint: Option<KeyFingerprint>,
    /// The rows of the open period that were updated last, newest first.
    pub rows: Vec<RowStatus>,
    /// The number of other rows.
    pub more_rows: Number,
    /// The replicas that flushed last, newest first.
    pub replicas: Vec<ReplicaStatus>,
    /// The number of other replicas.
    pub more_replicas: Number,
    /// The newest closed periods and the oldest undelivered ones, newest first.
    pub periods: Vec<PeriodStatus>,
    /// The number of other closed periods.
    pub more_periods: Number,
    /// The number of all undelivered periods.
    pub undelivered: Number,
}

/// A replica's row in the open period.
#[derive(Clone, Debug, Serialize)]
pub struct RowStatus {
    /// The replica.
    pub replica: Uuid,
    /// The estimated number of active workspaces.
    pub unique_workspaces: u64,
    /// The estimated number of active users.
    pub unique_users: u64,
    /// Allowed requests.
    pub allowed_requests: u64,
    /// Denied requests.
    pub denied_requests: u64,
    /// The time of the replica's first flush of the period.
    pub window_start: DateTime<Utc>,
    /// The time of the replica's last flush of the period.
    pub updated_at: DateTime<Utc>,
}

/// A replica's last flush.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaStatus {
    /// The replica.
    pub replica: Uuid,
    /// The number of the last flush.
    pub last_flush: u64,
    /// The time of the last flush.
    pub flushed_at: DateTime<Utc>,
}

/// A closed period.
#[derive(Clone, Debug, Serialize)]
pub struct PeriodStatus {
    /// The summary.
    #[serde(flatten)]
    pub summary: Summary,
    /// The time of the acknowledgement. `None` if the summary is undelivered.
    pub delivered_at: Option<DateTime<Utc>>,
    /// The state of the delivery.
    ///
    /// `None` after the acknowledgement and before the first attempt.
    pub delivery: Option<DeliveryStatus>,
}
