//! The status of a database: the open period, the replicas, and the closed periods.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::DeliveryStatus;
use crate::summary::Summary;

/// What the database holds: the open period, the replicas, the closed periods.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DatabaseStatus {
    /// When the open period began: the last cutover, or before the first when the schema was made.
    pub period_start: DateTime<Utc>,
    /// What a collection would have answered at this moment; the period's id is 0, because it has none yet.
    pub so_far: Summary,
    /// Rows that a collection would refuse because their sketches are damaged; they are left out of `so_far`.
    pub damaged: Vec<String>,
    /// The rows of the open period.
    pub rows: Vec<RowStatus>,
    /// Every replica that ever flushed.
    pub replicas: Vec<ReplicaStatus>,
    /// The most recent closed periods and every undelivered one, newest first.
    pub periods: Vec<PeriodStatus>,
}

/// A replica's row in the open period.
#[derive(Clone, Debug, Serialize)]
pub struct RowStatus {
    /// The replica.
    pub replica: Uuid,
    /// Workspaces that it saw, as its sketch estimates.
    pub unique_workspaces: u64,
    /// Users that it saw, as its sketch estimates.
    pub unique_users: u64,
    /// Requests let through.
    pub allowed_requests: u64,
    /// Requests blocked.
    pub denied_requests: u64,
    /// Its first flush of the period.
    pub window_start: DateTime<Utc>,
    /// Its last flush of the period.
    pub updated_at: DateTime<Utc>,
}

/// A replica's last flush.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaStatus {
    /// The replica.
    pub replica: Uuid,
    /// The number of its last flush.
    pub last_flush: u64,
    /// When that was.
    pub flushed_at: DateTime<Utc>,
}

/// A closed period.
#[derive(Clone, Debug, Serialize)]
pub struct PeriodStatus {
    /// Its summary.
    #[serde(flatten)]
    pub summary: Summary,
    /// When delivery of the summary was acknowledged; `None` while it is undelivered.
    pub delivered_at: Option<DateTime<Utc>>,
    /// How its delivery fares; `None` when it is delivered, or was never tried.
    pub delivery: Option<DeliveryStatus>,
}
