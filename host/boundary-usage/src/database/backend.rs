//! The traits that a kind of database implements.

use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use futures_util::stream::BoxStream;
use uuid::Uuid;

use super::{Ages, DatabaseStatus, Delivery, DeliveryClaim, HashingKey};
use crate::error::Error;
use crate::records::{DeletedRow, OpenPeriod, StoredUsage, Update};
use crate::summary::Summary;

/// A kind of database. Implemented for SQLite and PostgreSQL, and by tests that inject faults.
///
/// The futures of a flush are polled on the thread of its tracker, within the Tokio runtime of the [`Database`]. So they must
/// not block; and what they spawn or open belongs to that runtime. They are not dropped before their end.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The key under which ids are hashed: made once, with the schema.
    async fn hashing_key(&self) -> Result<HashingKey, Error>;

    /// Opens a transaction.
    async fn begin(&self, purpose: Purpose) -> Result<Box<dyn Transaction>, Error>;

    /// Opens the transaction of a replica's flush: with the cutover lock shared, its replica's lock alone, and then what is
    /// stored, because what an earlier transaction did is certain only under that lock. A database behind a wire may ask
    /// for all that at once.
    async fn begin_flush(&self, replica: Uuid) -> Result<(Box<dyn Transaction>, StoredUsage), Error> {
        let mut transaction = self.begin(Purpose::Flush).await?;
        let stored = async {
            transaction.acquire(Lock::Cutover, LockMode::Shared).await?;
            transaction.acquire(Lock::Replica(replica), LockMode::Exclusive).await?;
            transaction.read(replica).await
        };
        match stored.await {
            Ok(stored) => Ok((transaction, stored)),
            Err(error) => {
                transaction.rollback().await;
                Err(error)
            }
        }
    }

    /// See [`Database::status`].
    async fn status(&self) -> Result<DatabaseStatus, Error>;

    /// See [`Database::ages`]. A backend may read them without all the rest of the status.
    async fn ages(&self) -> Result<Ages, Error> {
        Ok(Ages::of(&self.status().await?, Utc::now()))
    }

    /// See [`Database::acknowledge`].
    async fn acknowledge(&self, period: i64) -> Result<bool, Error>;

    /// See [`Database::claim_delivery`]; `lease` names the claim.
    async fn claim_delivery(&self, lease: Uuid, length: Duration) -> Result<DeliveryClaim, Error>;

    /// See [`Database::delivery_failed`].
    async fn delivery_failed(&self, delivery: &Delivery, error: &str, retry_in: Duration) -> Result<bool, Error>;

    /// Closes all connections.
    async fn close(&self);
}

/// A transaction. To drop one rolls it back; a connection whose state is then unknown is closed, not used again.
#[async_trait]
pub trait Transaction: Send {
    /// Waits for a lock, which is held until the transaction ends. [`Error::Conflict`] when the wait takes too long.
    async fn acquire(&mut self, lock: Lock, mode: LockMode) -> Result<(), Error>;

    /// What is stored of a replica. Certain only under the replica's lock.
    async fn read(&mut self, replica: Uuid) -> Result<StoredUsage, Error>;

    /// Inserts the replica's row or updates it, as the update says; adds the request counts, saturating; records the flush as
    /// the replica's last. [`Error::Conflict`] when the replica's last flush has this number or a greater one, or when a row
    /// to insert is there already, or one to update is not: nothing is written then.
    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<(), Error>;

    /// Both, which end a flush. A database behind a wire may ask for both at once. Errors are those of a commit: once the
    /// request is on its way, one whose answer does not come is [`Error::CommitUnknown`].
    async fn upsert_and_commit(self: Box<Self>, replica: Uuid, update: &Update) -> Result<(), Error> {
        upsert_then_commit(self, replica, update).await
    }

    /// When the open period began, and what time it is, by the database's clock.
    async fn open_period(&mut self) -> Result<OpenPeriod, Error>;

    /// Deletes every row, and answers exactly the deleted ones, one at a time.
    fn delete_rows(&mut self) -> BoxStream<'_, Result<DeletedRow, Error>>;

    /// Writes a period's summary as undelivered; answers the period's id.
    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error>;

    /// Commits. [`Error::CommitUnknown`] when the commit was sent and no reply came; after any other error nothing is
    /// applied.
    async fn commit(self: Box<Self>) -> Result<(), Error>;

    /// Rolls back and hands the connection back.
    async fn rollback(self: Box<Self>);
}

/// An update and its commit, one after the other.
async fn upsert_then_commit<T: Transaction + ?Sized>(
    mut transaction: Box<T>,
    replica: Uuid,
    update: &Update,
) -> Result<(), Error> {
    match transaction.upsert(replica, update).await {
        Ok(()) => transaction.commit().await,
        Err(error) => {
            transaction.rollback().await;
            Err(error)
        }
    }
}

/// What a transaction is for; decides its time limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A replica's flush: short.
    Flush,
    /// A collection: waits for all flushes under way, and reads every row.
    Collection,
}

/// What can be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// The cutover from one period to the next.
    Cutover,
    /// One replica's flushes.
    Replica(Uuid),
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}
