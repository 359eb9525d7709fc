//! Usage that tests write: ids, sketches, and a flush with the calls that a component makes.

use std::ops::Range;

use boundary_usage::{
    Backend, Error, HashingKey, Lock, LockMode, Purpose, Sketch, Transaction, Uniques, UniquesUpdate, Update,
};
use boundary_usage_tracker as tracker;
use uuid::Uuid;

/// Returns the id with this number, which is never nil.
pub fn id(number: u128) -> Uuid {
    Uuid::from_u128(number + 1)
}

/// Returns a sketch of the ids with these numbers.
pub fn set(ids: Range<u128>) -> Sketch {
    let mut set = tracker::ThetaSketch::new();
    ids.for_each(|number| set.insert(HashingKey(1, 2), id(number).as_u128()));
    let sketch = set.compact();
    Sketch { count: sketch.count(), bytes: sketch.to_bytes() }
}

/// Returns sketches of workspaces and users.
pub fn uniques(workspaces: Range<u128>, users: Range<u128>) -> Uniques {
    Uniques { workspaces: set(workspaces), users: set(users) }
}

/// Returns a replica's first update of a period.
pub fn update(flush: u64, ids: Range<u128>, allowed: u64, denied: u64) -> Update {
    Update { flush, uniques: UniquesUpdate::Delta(uniques(ids.clone(), ids)), allowed, denied }
}

/// Returns a later update of a period.
///
/// `ids` are all ids of the period, including those of earlier updates.
pub fn later_update(flush: u64, ids: Range<u128>, allowed: u64, denied: u64) -> Update {
    Update { flush, uniques: UniquesUpdate::Cumulative(uniques(ids.clone(), ids)), allowed, denied }
}

/// Begins the transaction of a flush, and acquires its locks.
///
/// # Errors
///
/// Returns the error of the database.
pub async fn begin_flush(backend: &dyn Backend, replica: Uuid) -> Result<Box<dyn Transaction>, Error> {
    let mut transaction = backend.begin(Purpose::Flush).await?;
    transaction.acquire(Lock::Replica(replica), LockMode::Exclusive).await?;
    transaction.acquire(Lock::Cutover, LockMode::Shared).await?;
    Ok(transaction)
}

/// Writes an update in its own transaction.
///
/// # Errors
///
/// Returns the error of the database.
pub async fn flush(backend: &dyn Backend, replica: Uuid, update: &Update) -> Result<(), Error> {
    let mut transaction = begin_flush(backend, replica).await?;
    transaction.upsert(replica, update).await?;
    transaction.commit().await
}
