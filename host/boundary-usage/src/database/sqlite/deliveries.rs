//! Deliveries in SQLite. Its one writer at a time makes a claim nobody else's.

use std::time::Duration;

use uuid::Uuid;

use super::transaction::SqliteTransaction;
use crate::database::{Delivery, DeliveryClaim, Transaction, rows};
use crate::error::Error;

/// Whether a delivery is not due yet. The wait is at most `DELIVERY_WAIT_MAX`, and no attempt was made in the future, as far
/// as clocks agree to a minute: other times are those of a clock that was ahead.
macro_rules! waits {
    () => {
        "(t.next_attempt_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
            AND t.next_attempt_at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+24 hours', '+1 minute')
            AND t.attempted_at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute'))"
    };
}

/// See [`Destination`](crate::database::deliveries::Destination).
const DESTINATION: &str = concat!(
    "
    SELECT
        coalesce(sum(t.attempts) FILTER (WHERE t.last_error IS NOT NULL AND t.attempted_at > coalesce((
            SELECT max(delivered_at) FROM boundary_usage_periods
            WHERE delivered_at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')
        ), '')), 0) AS failures,
        CAST(1000 * (unixepoch(min(t.next_attempt_at) FILTER (WHERE ",
    waits!(),
    "), 'subsec') - unixepoch('now', 'subsec')) AS INTEGER) AS first_due_ms,
        CAST(1000 * (unixepoch(max(t.next_attempt_at) FILTER (WHERE ",
    waits!(),
    "), 'subsec') - unixepoch('now', 'subsec')) AS INTEGER) AS last_due_ms
    FROM boundary_usage_periods AS p JOIN boundary_usage_deliveries AS t ON t.period_id = p.period_id
    WHERE p.delivered_at IS NULL"
);

const CLAIM: &str = concat!(
    "
    INSERT INTO boundary_usage_deliveries AS d (
        period_id, idempotency_key, lease, attempts, attempted_at, next_attempt_at
    )
    SELECT p.period_id, $1, $2, 1, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'),
        strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', $3 || ' seconds')
    FROM boundary_usage_periods AS p LEFT JOIN boundary_usage_deliveries AS t ON t.period_id = p.period_id
    WHERE p.delivered_at IS NULL AND (t.period_id IS NULL OR NOT ",
    waits!(),
    ")
    ORDER BY coalesce(t.attempts, 0), p.period_id LIMIT 1
    ON CONFLICT (period_id) DO UPDATE SET lease = excluded.lease, attempts = d.attempts + 1,
        attempted_at = excluded.attempted_at, next_attempt_at = excluded.next_attempt_at
    RETURNING period_id"
);

const FAIL: &str = "
    UPDATE boundary_usage_deliveries
    SET lease = NULL, last_error = $3, next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', $4 || ' seconds')
    WHERE period_id = $1 AND lease = $2
    RETURNING period_id";

/// Claims a delivery that is due, unless the destination backs off.
pub(super) async fn claim(
    mut transaction: SqliteTransaction,
    lease: Uuid,
    length: Duration,
) -> Result<DeliveryClaim, Error> {
    let row = transaction.fetch("looking for deliveries", sqlx::query(DESTINATION)).await?;
    let destination = transaction.decoded(rows::destination(&row.expect("an aggregate returns a row")))?;
    if let Some(wait) = destination.backs_off() {
        Box::new(transaction).rollback().await;
        return Ok(DeliveryClaim::NothingDue(Some(wait)));
    }
    let (key, length) = (Uuid::new_v4(), length.as_secs_f64());
    let claim = sqlx::query(CLAIM).bind(key.hyphenated()).bind(lease.hyphenated()).bind(length);
    let Some(row) = transaction.fetch("claiming a delivery", claim).await? else {
        Box::new(transaction).rollback().await;
        return Ok(DeliveryClaim::NothingDue(destination.first_due));
    };
    let period = transaction.decoded(rows::period_id(&row))?;
    let row = transaction.fetch("reading a summary", sqlx::query(rows::SELECT_CLAIMED).bind(period)).await?;
    let delivery =
        transaction.decoded(rows::claimed(&row.expect("the claimed period is there"), destination.failures, lease))?;
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
