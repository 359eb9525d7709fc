//! Conversions between rows and closed periods, for both kinds of database.

use uuid::Uuid;

use super::rows::{Cells, Decoded, bigint, missing};
use super::{Delivery, DeliveryStatus, PeriodStatus};
use crate::summary::Summary;

pub(super) fn period_status(row: &impl Cells) -> Decoded<PeriodStatus> {
    let delivered_at = row.time("delivered_at")?;
    let delivery = match (delivered_at, row.integer("attempts")?) {
        (None, Some(_)) => Some(delivery_status(row)?),
        _ => None,
    };
    Ok(PeriodStatus { summary: summary(row)?, delivered_at, delivery })
}

fn delivery_status(row: &impl Cells) -> Decoded<DeliveryStatus> {
    Ok(DeliveryStatus {
        attempts: row.count("attempts")?,
        attempted_at: row.timestamp("attempted_at")?,
        next_attempt_at: row.timestamp("next_attempt_at")?,
        under_way: row.flag("under_way")?,
        last_error: row.text("last_error")?,
    })
}

/// Reads the result of `read_delivery.sql`.
pub(super) fn claimed(row: &impl Cells, failures: u64, lease: Uuid) -> Decoded<Delivery> {
    let (idempotency_key, attempt) = (row.id("idempotency_key")?, row.count("attempts")?);
    Ok(Delivery { summary: summary(row)?, idempotency_key, attempt, failures, lease })
}

fn summary(row: &impl Cells) -> Decoded<Summary> {
    Ok(Summary {
        unique_workspaces: row.count("unique_workspaces")?,
        unique_users: row.count("unique_users")?,
        allowed_requests: row.count("allowed_requests")?,
        denied_requests: row.count("denied_requests")?,
        period_start: row.timestamp("period_start")?,
        period_duration_ms: row.count("period_duration_ms")?,
        period_id: period_id(row)?,
        replicas: row.count("replicas")?,
        replica_workspaces_sum: row.count("replica_workspaces_sum")?,
        replica_users_sum: row.count("replica_users_sum")?,
        stale_rows: row.count("stale_rows")?,
        stale_allowed_requests: row.count("stale_allowed_requests")?,
        stale_denied_requests: row.count("stale_denied_requests")?,
        client_dropped_logs: row.count("client_dropped_logs")?,
    })
}

/// Returns the numbers of a summary, in the order of the parameters of `insert_period.sql`.
pub(super) fn summary_numbers(summary: &Summary) -> [i64; 12] {
    [
        summary.period_duration_ms,
        summary.unique_workspaces,
        summary.unique_users,
        summary.allowed_requests,
        summary.denied_requests,
        summary.replicas,
        summary.replica_workspaces_sum,
        summary.replica_users_sum,
        summary.stale_rows,
        summary.stale_allowed_requests,
        summary.stale_denied_requests,
        summary.client_dropped_logs,
    ]
    .map(bigint)
}

/// Returns the sum of counts. It saturates at the databases' largest integer.
pub(super) fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count)).min(i64::MAX.unsigned_abs())
}

/// Reads the id of a period.
pub(super) fn period_id(row: &impl Cells) -> Decoded<i64> {
    row.integer("period_id")?.ok_or_else(|| missing("period_id"))
}
