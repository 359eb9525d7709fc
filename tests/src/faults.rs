//! A database that fails where it is told to, in front of one that does not.
//!
//! Faults are queued for a step and strike one call each, in order. So a test says "the next commit is applied but its
//! reply is lost", on SQLite, on PostgreSQL and on the model alike.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use boundary_usage::{
    Backend, Database, DatabaseStatus, DeletedRow, Delivery, DeliveryClaim, Error, HashingKey, Lock, LockMode,
    OpenPeriod, Purpose, StoredUsage, Summary, Transaction, Update,
};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use uuid::Uuid;

/// Where and how a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No transaction can be opened.
    Begin,
    /// A lock is not granted in time.
    Acquire,
    /// The row cannot be read.
    Read,
    /// The row cannot be written.
    Upsert,
    /// The row is read only once [`Faults::release`] says so.
    ReadHeld,
    /// The row is written only once [`Faults::release`] says so.
    UpsertHeld,
    /// The commit waits until [`Faults::release`].
    CommitHeld,
    /// The driver panics as it writes the row.
    UpsertPanics,
    /// The driver panics when it is asked to roll back, before it does anything.
    RollbackPanics,
    /// The commit is answered with an error: nothing is applied.
    Commit,
    /// The commit is lost on its way: nothing is applied, and nobody knows.
    CommitLost,
    /// The commit is applied, and its reply is lost.
    CommitReplyLost,
    /// The driver panics as it commits: nothing is applied.
    CommitPanics,
}

/// The faults to come, and what has been seen of transactions.
#[derive(Clone)]
pub struct Faults {
    queued: Arc<Mutex<VecDeque<Fault>>>,
    seen: watch::Sender<Seen>,
}

/// What has been seen since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Transactions begun.
    pub begun: u64,
    /// Whether a call is held at this moment.
    pub held: bool,
    /// Calls whose future was dropped half way, while they were held.
    pub abandoned: u64,
    /// Transactions rolled back.
    pub rolled_back: u64,
    /// Transactions committed, and answered so.
    pub committed: u64,
}

impl Faults {
    /// A database in front of another, and the way to make it fail.
    pub fn in_front_of(database: &Database) -> (Database, Self) {
        let faults = Self { queued: Arc::default(), seen: watch::Sender::new(Seen::default()) };
        let backend = FaultyDatabase { inner: database.backend().clone(), faults: faults.clone() };
        (Database::with_backend(Arc::new(backend)), faults)
    }

    /// Queues a fault.
    pub fn inject(&self, fault: Fault) {
        self.lock().push_back(fault);
    }

    /// Faults that have not struck yet.
    pub fn pending(&self) -> usize {
        self.lock().len()
    }

    /// Waits until what has been seen is as said.
    pub async fn until(&self, is_so: impl Fn(&Seen) -> bool) {
        self.seen.subscribe().wait_for(is_so).await.expect("the sender lives in self");
    }

    /// What has been seen.
    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Holds the call that asks, if this fault strikes.
    async fn hold(&self, fault: Fault) {
        if self.strikes(fault) {
            let held = Held::new(&self.seen);
            self.until(|seen| !seen.held).await;
            drop(held);
        }
    }

    /// Lets the call that is held go on.
    pub fn release(&self) {
        self.seen.send_modify(|seen| seen.held = false);
    }

    /// Whether the next fault is this one; it has then struck.
    fn strikes(&self, fault: Fault) -> bool {
        let mut queued = self.lock();
        let strikes = queued.front() == Some(&fault);
        if strikes {
            queued.pop_front();
        }
        strikes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Fault>> {
        self.queued.lock().expect("no holder of this lock panics")
    }
}

struct FaultyDatabase {
    inner: Arc<dyn Backend>,
    faults: Faults,
}

fn injected(action: &'static str) -> Error {
    Error::Unavailable { action, source: "injected by the test".into() }
}

#[async_trait]
impl Backend for FaultyDatabase {
    async fn hashing_key(&self) -> Result<HashingKey, Error> {
        self.inner.hashing_key().await
    }

    async fn begin(&self, purpose: Purpose) -> Result<Box<dyn Transaction>, Error> {
        self.faults.seen.send_modify(|seen| seen.begun += 1);
        if self.faults.strikes(Fault::Begin) {
            return Err(injected("beginning a transaction"));
        }
        let inner = self.inner.begin(purpose).await?;
        Ok(Box::new(FaultyTransaction { inner, faults: self.faults.clone() }))
    }

    async fn status(&self) -> Result<DatabaseStatus, Error> {
        self.inner.status().await
    }

    async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        self.inner.acknowledge(period).await
    }

    async fn claim_delivery(&self, lease: Uuid, length: Duration) -> Result<DeliveryClaim, Error> {
        self.inner.claim_delivery(lease, length).await
    }

    async fn delivery_failed(&self, delivery: &Delivery, error: &str, retry_in: Duration) -> Result<bool, Error> {
        self.inner.delivery_failed(delivery, error, retry_in).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct FaultyTransaction {
    inner: Box<dyn Transaction>,
    faults: Faults,
}

#[async_trait]
impl Transaction for FaultyTransaction {
    async fn acquire(&mut self, lock: Lock, mode: LockMode) -> Result<(), Error> {
        if self.faults.strikes(Fault::Acquire) {
            return Err(Error::Conflict { message: format!("{lock:?} was not granted in time (injected)") });
        }
        self.inner.acquire(lock, mode).await
    }

    async fn read(&mut self, replica: Uuid) -> Result<StoredUsage, Error> {
        if self.faults.strikes(Fault::Read) {
            return Err(injected("reading"));
        }
        self.faults.hold(Fault::ReadHeld).await;
        self.inner.read(replica).await
    }

    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<(), Error> {
        if self.faults.strikes(Fault::Upsert) {
            return Err(injected("writing"));
        }
        assert!(!self.faults.strikes(Fault::UpsertPanics), "injected by the test");
        self.faults.hold(Fault::UpsertHeld).await;
        self.inner.upsert(replica, update).await
    }

    async fn open_period(&mut self) -> Result<OpenPeriod, Error> {
        self.inner.open_period().await
    }

    fn delete_rows(&mut self) -> BoxStream<'_, Result<DeletedRow, Error>> {
        self.inner.delete_rows()
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        self.inner.insert_period(summary).await
    }

    async fn commit(self: Box<Self>) -> Result<(), Error> {
        let Self { inner, faults } = *self;
        if faults.strikes(Fault::Commit) {
            inner.rollback().await;
            return Err(injected("the commit"));
        }
        if faults.strikes(Fault::CommitLost) {
            inner.rollback().await;
            return Err(Error::CommitUnknown { source: "injected by the test".into() });
        }
        if faults.strikes(Fault::CommitReplyLost) {
            inner.commit().await?;
            return Err(Error::CommitUnknown { source: "injected by the test".into() });
        }
        assert!(!faults.strikes(Fault::CommitPanics), "injected by the test");
        faults.hold(Fault::CommitHeld).await;
        inner.commit().await?;
        faults.seen.send_modify(|seen| seen.committed += 1);
        Ok(())
    }

    /// Not an `async fn`, so that its panic is one of the caller's.
    fn rollback<'a>(self: Box<Self>) -> BoxFuture<'a, ()>
    where
        Self: 'a,
    {
        assert!(!self.faults.strikes(Fault::RollbackPanics), "injected by the test");
        Box::pin(async move {
            self.inner.rollback().await;
            self.faults.seen.send_modify(|seen| seen.rolled_back += 1);
        })
    }
}

/// A call that is held. When it is dropped before its release, it was dropped half way.
struct Held<'a>(&'a watch::Sender<Seen>);

impl<'a> Held<'a> {
    fn new(seen: &'a watch::Sender<Seen>) -> Self {
        seen.send_modify(|seen| seen.held = true);
        Self(seen)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|seen| seen.abandoned += u64::from(seen.held));
    }
}
