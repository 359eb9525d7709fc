//! From the rows of a period to its summary; pure.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::database::Uniques;

/// A replica's row, as a collection deleted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenRow {
    /// The replica.
    pub replica: Uuid,
    /// Its sketches and counts.
    pub uniques: Uniques,
    /// Requests let through.
    pub allowed: u64,
    /// Requests blocked.
    pub denied: u64,
    /// The replica's last flush of the period.
    pub updated_at: DateTime<Utc>,
}

/// What a period held, over all replicas. The fields up to `period_duration_ms` have the names that consumers of the
/// reference know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Workspaces that were active, each counted once however many replicas saw it. Exact up to 16,384, then an
    /// estimate with a relative standard error of 0.78 %.
    pub unique_workspaces: u64,
    /// Users that were active; counted in the same way.
    pub unique_users: u64,
    /// Requests let through.
    pub allowed_requests: u64,
    /// Requests blocked.
    pub denied_requests: u64,
    /// The cutover that opened the period.
    pub period_start: DateTime<Utc>,
    /// From that cutover to the one that closed the period, in milliseconds.
    pub period_duration_ms: u64,
    /// The period's id, for the acknowledgement of its delivery.
    pub period_id: i64,
    /// The replicas that had a row.
    pub replicas: u64,
    /// The sum of the replicas' unique workspaces: one seen by two replicas counts twice.
    pub replica_workspaces_sum: u64,
    /// The sum of the replicas' unique users: one seen by two replicas counts twice.
    pub replica_users_sum: u64,
    /// Rows deleted but left out of all other numbers, because they had not been updated for longer than the staleness.
    pub stale_rows: u64,
    /// Requests let through that those rows held.
    pub stale_allowed_requests: u64,
    /// Requests blocked that those rows held.
    pub stale_denied_requests: u64,
}
