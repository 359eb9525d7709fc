//! The traits that each kind of database implements.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::stream::BoxStream;
use uuid::Uuid;

use super::{
    Ages, DatabaseStatus, Delivery, DeliveryClaim, HashingKey, KeyFingerprint, LiveReplicas, PeriodStatus, PruneLimits,
    Pruned, StatusScope,
};
use crate::error::Error;
use crate::records::{Day, DeletedRow, OpenPeriod, StoredUsage, Update};
use crate::summary::Summary;

/// A kind of database.
///
/// SQLite and PostgreSQL implement this trait, and so do tests that inject faults.
///
/// The calls of a flush run on the tracker's thread, in the context of the Tokio runtime of the
/// [`Database`](super::Database), so they must not block. If the tracker stops waiting, a task of that runtime finishes
/// the call. The futures of these calls are never dropped before their end.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Reads the key of the id hashes, which is created once, with the schema.
    async fn hashing_key(&self) -> Result<HashingKey, Error>;

    /// Reads the fingerprint of the hashing key, which does not reveal the key.
    async fn key_fingerprint(&self) -> Result<KeyFingerprint, Error> {
        Ok(KeyFingerprint::of(self.hashing_key().await?))
    }

    /// Begins a transaction.
    async fn begin(&self, purpose: Purpose) -> Result<Box<dyn Transaction>, Error>;

    /// See [`Database::status`](super::Database::status).
    async fn status(&self, scope: StatusScope) -> Result<DatabaseStatus, Error>;

    /// See [`Database::ages`](super::Database::ages). A backend may read the ages without the rest of the status.
    async fn ages(&self) -> Result<Ages, Error> {
        Ok(Ages::of(&self.status(StatusScope::All).await?, Utc::now()))
    }

    /// See [`Database::live_replicas`](super::Database::live_replicas).
    async fn live_replicas(&self, within: Duration) -> Result<LiveReplicas, Error> {
        Ok(LiveReplicas::of(&self.status(StatusScope::All).await?, within, Utc::now()))
    }

    /// See [`Database::acknowledge`](super::Database::acknowledge).
    async fn acknowledge(&self, period: i64) -> Result<bool, Error>;

    /// See [`Database::claim_delivery`](super::Database::claim_delivery). `lease` identifies the claim.
    async fn claim_delivery(&self, lease: Uuid, length: Duration) -> Result<DeliveryClaim, Error>;

    /// See [`Database::delivery_failed`](super::Database::delivery_failed).
    async fn delivery_failed(&self, delivery: &Delivery, error: &str, retry_in: Duration) -> Result<bool, Error>;

    /// Closes all connections.
    async fn close(&self);
}

/// A transaction. Dropping this value rolls back and closes the connection.
#[async_trait]
pub trait Transaction: Send {
    /// Waits for a lock, which is held until the transaction ends.
    ///
    /// # Errors
    ///
    /// - [`Error::Conflict`] if the wait takes too long.
    async fn acquire(&mut self, lock: Lock, mode: LockMode) -> Result<(), Error>;

    /// Reads the stored usage of a replica. The caller holds the replica's lock.
    async fn read(&mut self, replica: Uuid) -> Result<StoredUsage, Error>;

    /// Inserts or updates the replica's row, and records the flush as the replica's last.
    ///
    /// Request counts are added and saturate.
    ///
    /// # Errors
    ///
    /// - [`Error::Conflict`] if the replica's last flush has this number or a higher one. Nothing is written.
    /// - [`Error::Conflict`] if a row to insert exists, or a row to update is missing. Nothing is written.
    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<(), Error>;

    /// Reads the start of the open period and the database's current time.
    async fn open_period(&mut self) -> Result<OpenPeriod, Error>;

    /// Deletes all rows and returns exactly the deleted ones.
    fn delete_rows(&mut self) -> BoxStream<'_, Result<DeletedRow, Error>>;

    /// Adds to the logs that clients of a replica reported as dropped in the open period. The sum saturates.
    async fn add_client_drops(&mut self, _replica: Uuid, _logs: u64) -> Result<(), Error> {
        Err(Error::Refused { message: "this kind of database cannot record dropped logs".to_owned() })
    }

    /// Deletes the dropped logs of the open period, and returns their sum over all replicas, which saturates.
    async fn delete_client_drops(&mut self) -> Result<u64, Error> {
        Ok(0)
    }

    /// Inserts a period's summary as undelivered, and returns the period's id.
    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error>;

    /// Reads a day of the history. `None` if it has no activity.
    async fn read_day(&mut self, date: NaiveDate) -> Result<Option<Day>, Error>;

    /// Inserts or replaces a day of the history.
    async fn write_day(&mut self, day: &Day) -> Result<(), Error>;

    /// Reads all days of the history, oldest first.
    ///
    /// # Errors
    ///
    /// - [`Error::Conflict`] if the database changed during a read without locks. The next read may succeed.
    fn days(&mut self) -> BoxStream<'_, Result<Day, Error>>;

    /// Reads all closed periods, oldest first.
    ///
    /// # Errors
    ///
    /// - [`Error::Conflict`] if the database changed during a read without locks. The next read may succeed.
    fn periods(&mut self) -> BoxStream<'_, Result<PeriodStatus, Error>>;

    /// Reads the merged set of the pruned days. `None` if no day was pruned.
    ///
    /// Its date is that of the last pruned day, and its numbers are sums over all of them.
    async fn read_before(&mut self) -> Result<Option<Day>, Error> {
        Ok(None)
    }

    /// Inserts or replaces the merged set of the pruned days.
    async fn write_before(&mut self, _before: &Day) -> Result<(), Error> {
        Err(cannot_prune())
    }

    /// Deletes up to `limit` of the oldest days before a date, and returns them in any order.
    async fn delete_days(&mut self, _before: NaiveDate, _limit: u32) -> Result<Vec<Day>, Error> {
        Err(cannot_prune())
    }

    /// Deletes up to `limit` of the oldest periods that ended before a time, and returns their number.
    ///
    /// The newest period stays, and so do undelivered ones unless `undelivered` is true.
    async fn delete_periods(
        &mut self,
        _ended_before: DateTime<Utc>,
        _undelivered: bool,
        _limit: u32,
    ) -> Result<u64, Error> {
        Err(cannot_prune())
    }

    /// Deletes up to `limit` replicas that have not flushed since a time, and returns their number.
    ///
    /// A replica with a row in the open period stays.
    async fn delete_replicas(&mut self, _idle_since: DateTime<Utc>, _limit: u32) -> Result<u64, Error> {
        Err(cannot_prune())
    }

    /// Counts what pruning would delete.
    async fn count_prunable(&mut self, _limits: &PruneLimits) -> Result<Pruned, Error> {
        Err(cannot_prune())
    }

    /// Commits the transaction.
    ///
    /// # Errors
    ///
    /// - [`Error::CommitUnknown`] if the commit was sent and had no reply.
    /// - After any other error, nothing is applied.
    async fn commit(self: Box<Self>) -> Result<(), Error>;

    /// Rolls back and releases the connection.
    async fn rollback(self: Box<Self>);
}

/// Returns the error of a backend without the methods for pruning.
fn cannot_prune() -> Error {
    Error::Refused { message: "this kind of database cannot prune".to_owned() }
}

/// The purpose of a transaction, which determines its time limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A flush of one replica, with short time limits.
    Flush,
    /// A collection, which waits for running flushes and reads all rows, or a batch of a pruning.
    Collection,
    /// A report or an export, which reads one state of the database and writes nothing.
    Report,
}

/// A lock of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// The lock of the cutover from one period to the next.
    Cutover,
    /// The lock of one replica's flushes.
    Replica(Uuid),
}

/// The mode of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Several transactions may hold the lock in this mode.
    Shared,
    /// No other transaction may hold the lock.
    Exclusive,
}
