//! The database, in the words of the domain: flushes read and upsert, a collection takes all rows.
//!
//! This is the end of the flow *proxy → intake → component → transaction → **database***. The SQL is in `sqlite` and
//! `postgres` and nowhere else; the two keep the same promises, and one test suite holds both to them.

mod ages;
mod connections;
mod deliveries;
mod failure;
mod postgres;
mod rows;
mod schema;
mod sqlite;
mod unconnected;
mod url;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use serde::Serialize;
use uuid::Uuid;

pub use boundary_usage_tracker::HashingKey;

pub use self::ages::Ages;
pub use self::deliveries::{DELIVERY_WAIT_MAX, Delivery, DeliveryClaim, DeliveryStatus};

use crate::collection::{Summary, TakenRow};
use crate::error::Error;

/// A database that holds usage: SQLite or PostgreSQL. Cheap to clone; clones share connections.
///
/// Its work runs on the Tokio runtime on which it was connected; that runtime must outlive it.
#[derive(Clone)]
pub struct Database {
    backend: Arc<dyn Backend>,
    /// The backend again, if it was made without a connection.
    unconnected: Option<Arc<unconnected::Unconnected>>,
    runtime: tokio::runtime::Handle,
}

impl Database {
    /// Connects, and brings the schema up to date; safe when several processes do so at once.
    ///
    /// - `sqlite:PATH`: a file, created when missing; several processes of one machine can share it.
    /// - `postgres://USER:PASSWORD@HOST:PORT/DATABASE`: for several replicas.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] for a URL that is neither; [`Error::Unavailable`] if the database cannot be reached, so
    /// that trying again can help; [`Error::Refused`] if the login fails, the server is not trusted, or the schema cannot
    /// be used. None shows the URL's password.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, schema::WhenMissing::Make).await
    }

    /// Connects to a database that has its schema, and changes nothing: for those who only look.
    ///
    /// # Errors
    ///
    /// As [`Database::connect`], and [`Error::Refused`] when the schema is missing or not up to date.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, schema::WhenMissing::Refuse).await
    }

    async fn connect_with(url: &str, when_missing: schema::WhenMissing) -> Result<Self, Error> {
        let backend: Arc<dyn Backend> = match url::Scheme::of(url)? {
            url::Scheme::Sqlite => Arc::new(sqlite::Sqlite::connect(url, when_missing).await?),
            url::Scheme::Postgres => Arc::new(postgres::Postgres::connect(url, when_missing).await?),
        };
        Ok(Self::with_backend(backend))
    }

    /// Whether [`Database::connect`] would take this URL; opens nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] with what is wrong, and without the URL's password.
    pub fn check_url(url: &str) -> Result<(), Error> {
        match url::Scheme::of(url)? {
            url::Scheme::Sqlite => url::sqlite(url).map(drop),
            url::Scheme::Postgres => url::postgres(url).map(drop),
        }
    }

    /// What a PostgreSQL URL leads to, without its password: the server, the database, the role, and the session's options.
    pub(crate) fn target(url: &str) -> Result<Option<String>, Error> {
        match url::Scheme::of(url)? {
            url::Scheme::Sqlite => Ok(None),
            url::Scheme::Postgres => url::postgres(url).map(|url| Some(url.target)),
        }
    }

    /// A database of one's own making. Must be called on a Tokio runtime.
    pub fn with_backend(backend: Arc<dyn Backend>) -> Self {
        Self { backend, unconnected: None, runtime: tokio::runtime::Handle::current() }
    }

    /// What the database holds now; changes nothing.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn status(&self) -> Result<DatabaseStatus, Error> {
        self.backend.status().await
    }

    /// Records that a period's summary has been delivered. Answers whether it was undelivered until now.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when there is no such period.
    pub async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        self.backend.acknowledge(period).await
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.backend.close().await;
    }

    /// What does the work; for those who wrap it in a backend of their own.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }
}

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
    async fn begin_flush(&self, replica: Uuid) -> Result<(Box<dyn Transaction>, Stored), Error> {
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
    async fn read(&mut self, replica: Uuid) -> Result<Stored, Error>;

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
    fn take_rows(&mut self) -> BoxStream<'_, Result<TakenRow, Error>>;

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

/// A unique set as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueSet {
    /// How many ids it holds, as the sketch estimates.
    pub count: u64,
    /// A compact Theta sketch.
    pub sketch: Vec<u8>,
}

/// The two sets that are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uniques {
    /// The workspaces that were active.
    pub workspaces: UniqueSet,
    /// The users who own them.
    pub users: UniqueSet,
}

/// What is stored of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The number of the last flush applied; 0 when there was none.
    pub last_flush: u64,
    /// The sketches of the open period; `None` when the replica has no row in it. Their counts are those stored.
    pub uniques: Option<Uniques>,
}

/// What one flush writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The flush's number.
    pub flush: u64,
    /// What becomes of the unique sets.
    pub uniques: UniquesUpdate,
    /// Requests let through since the last flush, at most 2^63 - 1.
    pub allowed: u64,
    /// Requests blocked since the last flush, at most 2^63 - 1.
    pub denied: u64,
}

/// What an update makes of the unique sets in a replica's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UniquesUpdate {
    /// There is no row in the open period: a new one takes the ids of this flush alone.
    Delta(Uniques),
    /// The ids of the open period, this flush included, replace those of the row.
    Cumulative(Uniques),
    /// The row keeps its sets: it holds the ids of this flush already.
    Unchanged,
}

/// The period that a collection would close now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPeriod {
    /// The last cutover; before the first, when the schema was made.
    pub start: DateTime<Utc>,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What the database holds: the open period, the replicas, the closed periods.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DatabaseStatus {
    /// When the open period began: the last cutover, or before the first when the schema was made.
    pub period_start: DateTime<Utc>,
    /// What a collection would have answered at this moment; the period's id is 0, because it has none yet.
    pub so_far: Summary,
    /// Rows that a collection would refuse because their sketches are damaged; they are left out of `so_far`.
    pub damaged: Vec<String>,
    /// The rows of the open period.
    pub rows: Vec<RowStatus>,
    /// Every replica that ever flushed.
    pub replicas: Vec<ReplicaStatus>,
    /// The most recent closed periods and every undelivered one, newest first.
    pub periods: Vec<PeriodStatus>,
}

/// A replica's row in the open period.
#[derive(Clone, Debug, Serialize)]
pub struct RowStatus {
    /// The replica.
    pub replica: Uuid,
    /// Workspaces that it saw, as its sketch estimates.
    pub unique_workspaces: u64,
    /// Users that it saw, as its sketch estimates.
    pub unique_users: u64,
    /// Requests let through.
    pub allowed_requests: u64,
    /// Requests blocked.
    pub denied_requests: u64,
    /// Its first flush of the period.
    pub window_start: DateTime<Utc>,
    /// Its last flush of the period.
    pub updated_at: DateTime<Utc>,
}

/// A replica's last flush.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaStatus {
    /// The replica.
    pub replica: Uuid,
    /// The number of its last flush.
    pub last_flush: u64,
    /// When that was.
    pub flushed_at: DateTime<Utc>,
}

/// A closed period.
#[derive(Clone, Debug, Serialize)]
pub struct PeriodStatus {
    /// Its summary.
    #[serde(flatten)]
    pub summary: Summary,
    /// When delivery of the summary was acknowledged; `None` while it is undelivered.
    pub delivered_at: Option<DateTime<Utc>>,
    /// How its delivery fares; `None` when it is delivered, or was never tried.
    pub delivery: Option<DeliveryStatus>,
}
