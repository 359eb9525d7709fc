//! Usage to write: ids, sketches of them, and the flush of one replica as the component would make it.

use std::ops::Range;

use boundary_usage::{
    Backend, Error, HashingKey, Lock, LockMode, Purpose, Sketch, Transaction, Uniques, UniquesUpdate, Update,
};
use boundary_usage_tracker as tracker;
use uuid::Uuid;

/// The id of that number; never nil.
pub fn id(number: u128) -> Uuid {
    Uuid::from_u128(number + 1)
}

/// The set of the ids of those numbers.
pub fn set(ids: Range<u128>) -> Sketch {
    let mut set = tracker::ThetaSketch::new();
    ids.for_each(|number| set.insert(HashingKey(1, 2), id(number).as_u128()));
    let sketch = set.compact();
    Sketch { count: sketch.count(), bytes: sketch.to_bytes() }
}

/// Sets of workspaces and users.
pub fn uniques(workspaces: Range<u128>, users: Range<u128>) -> Uniques {
    Uniques { workspaces: set(workspaces), users: set(users) }
}

/// The first flush of a period.
pub fn update(flush: u64, ids: Range<u128>, allowed: u64, denied: u64) -> Update {
    Update { flush, uniques: UniquesUpdate::Delta(uniques(ids.clone(), ids)), allowed, denied }
}

/// A later flush of a period, after which these are all its ids.
pub fn later_update(flush: u64, ids: Range<u128>, allowed: u64, denied: u64) -> Update {
    Update { flush, uniques: UniquesUpdate::Cumulative(uniques(ids.clone(), ids)), allowed, denied }
}

/// Opens the transaction of a flush, and takes its locks.
///
/// # Errors
///
/// Whatever the database answers.
pub async fn begin_flush(backend: &dyn Backend, replica: Uuid) -> Result<Box<dyn Transaction>, Error> {
    let mut transaction = backend.begin(Purpose::Flush).await?;
    transaction.acquire(Lock::Replica(replica), LockMode::Exclusive).await?;
    transaction.acquire(Lock::Cutover, LockMode::Shared).await?;
    Ok(transaction)
}

/// Writes an update in a transaction of its own.
///
/// # Errors
///
/// Whatever the database answers.
pub async fn flush(backend: &dyn Backend, replica: Uuid, update: &Update) -> Result<(), Error> {
    let mut transaction = begin_flush(backend, replica).await?;
    transaction.upsert(replica, update).await?;
    transaction.commit().await
}
