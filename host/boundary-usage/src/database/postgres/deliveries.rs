//! Deliveries in PostgreSQL.

use std::time::Duration;

use uuid::Uuid;

use super::failure;
use super::transaction::PostgresTransaction;
use crate::database::{Delivery, DeliveryClaim, Transaction, rows};
use crate::error::Error;

/// Claims are made one after the other, so that each sees the ones before it. No replica has this lock.
const LOCK: &str = "SELECT pg_advisory_xact_lock(9, 0)";

/// Whether a delivery is not due yet. The wait is at most `DELIVERY_WAIT_MAX`, and no attempt was made in the future, as far
/// as clocks agree to a minute: other times are those of a clock that was ahead.
macro_rules! waits {
    () => {
        "(t.next_attempt_at > statement_timestamp()
            AND t.next_attempt_at <= statement_timestamp() + interval '24 hours 1 minute'
            AND t.attempted_at <= statement_timestamp() + interval '1 minute')"
    };
}

/// See [`Destination`](crate::database::deliveries::Destination).
const DESTINATION: &str = concat!(
    "
    SELECT
        coalesce(sum(t.attempts) FILTER (WHERE t.last_error IS NOT NULL AND t.attempted_at > coalesce((
            SELECT max(delivered_at) FROM boundary_usage_periods
            WHERE delivered_at <= statement_timestamp() + interval '1 minute'
        ), '-infinity')), 0)::bigint AS failures,
        ceil(1000 * extract(epoch FROM min(t.next_attempt_at) FILTER (WHERE ",
    waits!(),
    ") - statement_timestamp()))::bigint AS first_due_ms,
        ceil(1000 * extract(epoch FROM max(t.next_attempt_at) FILTER (WHERE ",
    waits!(),
    ") - statement_timestamp()))::bigint AS last_due_ms
    FROM boundary_usage_periods AS p JOIN boundary_usage_deliveries AS t ON t.period_id = p.period_id
    WHERE p.delivered_at IS NULL"
);

/// Passes over a period that is just being acknowledged.
const CLAIM: &str = concat!(
    "
    WITH due AS (
        SELECT p.period_id
        FROM boundary_usage_periods AS p LEFT JOIN boundary_usage_deliveries AS t ON t.period_id = p.period_id
        WHERE p.delivered_at IS NULL AND (t.period_id IS NULL OR NOT ",
    waits!(),
    ")
        ORDER BY coalesce(t.attempts, 0), p.period_id LIMIT 1
        FOR UPDATE OF p SKIP LOCKED
    )
    INSERT INTO boundary_usage_deliveries AS d (
        period_id, idempotency_key, lease, attempts, attempted_at, next_attempt_at
    )
    SELECT period_id, $1, $2, 1, statement_timestamp(), statement_timestamp() + $3 * interval '1 second' FROM due
    ON CONFLICT (period_id) DO UPDATE SET lease = excluded.lease, attempts = d.attempts + 1,
        attempted_at = excluded.attempted_at, next_attempt_at = excluded.next_attempt_at
    RETURNING period_id"
);

const FAIL: &str = "
    UPDATE boundary_usage_deliveries
    SET lease = NULL, last_error = $3, next_attempt_at = statement_timestamp() + $4 * interval '1 second'
    WHERE period_id = $1 AND lease = $2
    RETURNING period_id";

/// Claims a delivery that is due, unless the destination backs off.
pub(super) async fn claim(
    mut transaction: PostgresTransaction,
    lease: Uuid,
    length: Duration,
) -> Result<DeliveryClaim, Error> {
    transaction.fetch("waiting for another claim", sqlx::query(LOCK)).await?;
    let row = transaction.fetch("looking for deliveries", sqlx::query(DESTINATION)).await?;
    let destination = failure::decoded(rows::destination(&row.expect("an aggregate returns a row")))?;
    if let Some(wait) = destination.backs_off() {
        Box::new(transaction).rollback().await;
        return Ok(DeliveryClaim::NothingDue(Some(wait)));
    }
    let claim = sqlx::query(CLAIM).bind(Uuid::new_v4()).bind(lease).bind(length.as_secs_f64());
    let Some(row) = transaction.fetch("claiming a delivery", claim).await? else {
        Box::new(transaction).rollback().await;
        return Ok(DeliveryClaim::NothingDue(destination.first_due));
    };
    let period = failure::decoded(rows::period_id(&row))?;
    let row = transaction.fetch("reading a summary", sqlx::query(rows::SELECT_CLAIMED).bind(period)).await?;
    let delivery =
        failure::decoded(rows::claimed(&row.expect("the claimed period is there"), destination.failures, lease))?;
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
