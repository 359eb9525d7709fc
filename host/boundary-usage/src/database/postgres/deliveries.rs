//! Deliveries in PostgreSQL.

use std::time::Duration;

use uuid::Uuid;

use super::failure;
use super::transaction::PostgresTransaction;
use crate::database::{Delivery, DeliveryClaim, Transaction, rows};
use crate::error::Error;

/// Of two that claim at once, the second passes the row over that the first has locked; and if the first is done by
/// then, finds in the last line that the delivery is no longer due.
const CLAIM: &str = "
    WITH due AS (
        SELECT p.period_id
        FROM boundary_usage_periods AS p LEFT JOIN boundary_usage_deliveries AS t ON t.period_id = p.period_id
        WHERE p.delivered_at IS NULL AND (t.period_id IS NULL OR t.next_attempt_at <= statement_timestamp())
        ORDER BY p.period_id LIMIT 1
        FOR UPDATE OF p SKIP LOCKED
    )
    INSERT INTO boundary_usage_deliveries AS d (
        period_id, idempotency_key, lease, attempts, attempted_at, next_attempt_at
    )
    SELECT period_id, $1, $2, 1, statement_timestamp(), statement_timestamp() + $3 * interval '1 second' FROM due
    ON CONFLICT (period_id) DO UPDATE SET lease = excluded.lease, attempts = d.attempts + 1,
        attempted_at = excluded.attempted_at, next_attempt_at = excluded.next_attempt_at
        WHERE d.next_attempt_at <= statement_timestamp()
    RETURNING period_id";

/// Null when nothing is undelivered.
const DUE: &str = "
    SELECT (1000 * extract(epoch FROM min(t.next_attempt_at) - statement_timestamp()))::bigint AS due_in_ms
    FROM boundary_usage_periods AS p JOIN boundary_usage_deliveries AS t ON t.period_id = p.period_id
    WHERE p.delivered_at IS NULL";

const FAIL: &str = "
    UPDATE boundary_usage_deliveries
    SET lease = NULL, last_error = $3, next_attempt_at = statement_timestamp() + $4 * interval '1 second'
    WHERE period_id = $1 AND lease = $2
    RETURNING period_id";

/// Claims the oldest delivery that is due.
pub(super) async fn claim(
    mut transaction: PostgresTransaction,
    lease: Uuid,
    length: Duration,
) -> Result<DeliveryClaim, Error> {
    let claim = sqlx::query(CLAIM).bind(Uuid::new_v4()).bind(lease).bind(length.as_secs_f64());
    let Some(row) = transaction.fetch("claiming a delivery", claim).await? else {
        let row = transaction.fetch("looking for deliveries", sqlx::query(DUE)).await?;
        let due = failure::decoded(rows::delivery_due(&row.expect("an aggregate answers a row")))?;
        Box::new(transaction).rollback().await;
        return Ok(DeliveryClaim::NothingDue(due));
    };
    let period = failure::decoded(rows::period_id(&row))?;
    let row = transaction.fetch("reading a summary", sqlx::query(rows::SELECT_CLAIMED).bind(period)).await?;
    let delivery = failure::decoded(rows::claimed(&row.expect("the claimed period is there"), lease))?;
    Box::new(transaction).commit().await?;
    Ok(DeliveryClaim::Claimed(delivery))
}

/// Records a failure, if the claim still holds.
pub(super) async fn failed(
    mut transaction: PostgresTransaction,
    delivery: &Delivery,
    error: &str,
    retry_in: Duration,
) -> Result<bool, Error> {
    let fail = sqlx::query(FAIL).bind(delivery.summary.period_id).bind(delivery.lease);
    let fail = fail.bind(error).bind(retry_in.as_secs_f64());
    let held = transaction.fetch("recording a failed delivery", fail).await?.is_some();
    Box::new(transaction).commit().await?;
    Ok(held)
}
