//! Deliveries in SQLite. Its one writer at a time makes a claim nobody else's.

use std::time::Duration;

use uuid::Uuid;

use super::transaction::SqliteTransaction;
use crate::database::{Delivery, DeliveryClaim, Transaction, rows};
use crate::error::Error;

const CLAIM: &str = "
    INSERT INTO boundary_usage_deliveries AS d (
        period_id, idempotency_key, lease, attempts, attempted_at, next_attempt_at
    )
    SELECT p.period_id, $1, $2, 1, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'),
        strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', $3 || ' seconds')
    FROM boundary_usage_periods AS p LEFT JOIN boundary_usage_deliveries AS t ON t.period_id = p.period_id
    WHERE p.delivered_at IS NULL
        AND coalesce(t.next_attempt_at, '') <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
    ORDER BY p.period_id LIMIT 1
    ON CONFLICT (period_id) DO UPDATE SET lease = excluded.lease, attempts = d.attempts + 1,
        attempted_at = excluded.attempted_at, next_attempt_at = excluded.next_attempt_at
    RETURNING period_id";

/// Null when nothing is undelivered.
const DUE: &str = "
    SELECT CAST(1000 * min(unixepoch(t.next_attempt_at, 'subsec') - unixepoch('now', 'subsec')) AS INTEGER) AS due_in_ms
    FROM boundary_usage_periods AS p JOIN boundary_usage_deliveries AS t ON t.period_id = p.period_id
    WHERE p.delivered_at IS NULL";

const FAIL: &str = "
    UPDATE boundary_usage_deliveries
    SET lease = NULL, last_error = $3, next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', $4 || ' seconds')
    WHERE period_id = $1 AND lease = $2
    RETURNING period_id";

/// Claims the oldest delivery that is due.
pub(super) async fn claim(
    mut transaction: SqliteTransaction,
    lease: Uuid,
    length: Duration,
) -> Result<DeliveryClaim, Error> {
    let (key, length) = (Uuid::new_v4(), length.as_secs_f64());
    let claim = sqlx::query(CLAIM).bind(key.hyphenated()).bind(lease.hyphenated()).bind(length);
    let Some(row) = transaction.fetch("claiming a delivery", claim).await? else {
        let row = transaction.fetch("looking for deliveries", sqlx::query(DUE)).await?;
        let due = transaction.decoded(rows::delivery_due(&row.expect("an aggregate answers a row")))?;
        Box::new(transaction).rollback().await;
        return Ok(DeliveryClaim::NothingDue(due));
    };
    let period = transaction.decoded(rows::period_id(&row))?;
    let row = transaction.fetch("reading a summary", sqlx::query(rows::SELECT_CLAIMED).bind(period)).await?;
    let delivery = transaction.decoded(rows::claimed(&row.expect("the claimed period is there"), lease))?;
    Box::new(transaction).commit().await?;
    Ok(DeliveryClaim::Claimed(delivery))
}

/// Records a failure, if the claim still holds.
pub(super) async fn failed(
    mut transaction: SqliteTransaction,
    delivery: &Delivery,
    error: &str,
    retry_in: Duration,
) -> Result<bool, Error> {
    let fail = sqlx::query(FAIL).bind(delivery.summary.period_id).bind(delivery.lease.hyphenated());
    let fail = fail.bind(error).bind(retry_in.as_secs_f64());
    let held = transaction.fetch("recording a failed delivery", fail).await?.is_some();
    Box::new(transaction).commit().await?;
    Ok(held)
}
