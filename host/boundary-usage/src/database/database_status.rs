//! The status of a database: the open period, the replicas, and the closed periods.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{DeliveryStatus, KeyFingerprint};
use crate::summary::Summary;

/// The open period, the replicas and the closed periods of a database.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DatabaseStatus {
    /// The last cutover, or the creation of the schema before the first cutover.
    pub period_start: DateTime<Utc>,
    /// The summary that a collection would return now, with the period id 0.
    pub so_far: Summary,
    /// Errors of rows with damaged sketches.
    ///
    /// A collection would refuse such rows, and `so_far` excludes them.
    pub damaged: Vec<String>,
    /// The fingerprint of the hashing key. `None` if the database has lost its key.
    pub key_fingerprint: Option<KeyFingerprint>,
    /// The rows of the open period.
    pub rows: Vec<RowStatus>,
    /// All replicas that have ever flushed.
    pub replicas: Vec<ReplicaStatus>,
    /// The most recent closed periods and all undelivered ones, newest first.
    pub periods: Vec<PeriodStatus>,
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
