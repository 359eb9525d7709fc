//! Deliveries in SQLite. One transaction writes at a time, so claims cannot overlap.

use std::time::Duration;

use sqlx::query;
use uuid::Uuid;

use super::sql;
use super::transaction::SqliteTransaction;
use crate::database::{Delivery, DeliveryClaim, Transaction, period_rows, rows};
use crate::error::Error;

/// Claims a delivery that is due, unless deliveries are paused after a failure.
pub(super) async fn claim(
    mut transaction: SqliteTransaction,
    lease: Uuid,
    length: Duration,
) -> Result<DeliveryClaim, Error> {
    let row = transaction.fetch("looking for deliveries", query(sql::READ_BACKOFF)).await?;
    let destination = transaction.decoded(rows::destination(&row.expect("an aggregate returns a row")))?;
    if let Some(wait) = destination.backs_off() {
        Box::new(transaction).rollback().await;
        return Ok(DeliveryClaim::NothingDue(Some(wait)));
    }
    let (key, length) = (Uuid::new_v4(), length.as_secs_f64());
    let claim = query(sql::CLAIM_DELIVERY).bind(key.hyphenated()).bind(lease.hyphenated()).bind(length);
    let Some(row) = transaction.fetch("claiming a delivery", claim).await? else {
        Box::new(transaction).rollback().await;
        return Ok(DeliveryClaim::NothingDue(destination.first_due));
    };
    let period = transaction.decoded(period_rows::period_id(&row))?;
    let row = transaction.fetch("reading a summary", query(sql::READ_DELIVERY).bind(period)).await?;
    let delivery = transaction.decoded(period_rows::claimed(
        &row.expect("the claimed period is there"),
        destination.failures,
        lease,
    ))?;
    Box::new(transaction).commit().await?;
    Ok(DeliveryClaim::Claimed(delivery))
}

/// Records a failure if the claim still holds, and returns whether it does.
pub(super) async fn failed(
    mut transaction: SqliteTransaction,
    delivery: &Delivery,
    error: &str,
    retry_in: Duration,
) -> Result<bool, Error> {
    let fail = query(sql::RECORD_FAILED_DELIVERY).bind(delivery.summary.period_id).bind(delivery.lease.hyphenated());
    let fail = fail.bind(error).bind(retry_in.as_secs_f64());
    let held = transaction.fetch("recording a failed delivery", fail).await?.is_some();
    Box::new(transaction).commit().await?;
    Ok(held)
}
