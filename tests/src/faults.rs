//! A database that fails where it is told to, in front of one that does not.
//!
//! Faults are queued for a step and strike one call each, in order. So a test says "the next commit is applied but its
//! reply is lost", on SQLite, on PostgreSQL and on the model alike.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use boundary_usage::{
    Backend, Database, DatabaseStatus, Delivery, DeliveryClaim, Error, HashingKey, Lock, LockMode, OpenPeriod, Purpose,
    Stored, Summary, TakenRow, Transaction, Update,
};
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
    /// The commit is answered with an error: nothing is applied.
    Commit,
    /// The commit is lost on its way: nothing is applied, and nobody knows.
    CommitLost,
    /// The commit is applied, and its reply is lost.
    CommitReplyLost,
}

/// The faults to come, and how many transactions have been begun.
#[derive(Clone)]
pub struct Faults {
    queued: Arc<Mutex<VecDeque<Fault>>>,
    begun: watch::Sender<u64>,
}

impl Faults {
    /// A database in front of another, and the way to make it fail.
    pub fn in_front_of(database: &Database) -> (Database, Self) {
        let faults = Self { queued: Arc::default(), begun: watch::Sender::new(0) };
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

    /// Waits until as many transactions have been begun since the start.
    pub async fn begun(&self, count: u64) {
        self.begun.subscribe().wait_for(|begun| *begun >= count).await.expect("the sender lives in self");
    }

    /// How many transactions have been begun since the start.
    pub fn begun_so_far(&self) -> u64 {
        *self.begun.borrow()
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
        self.faults.begun.send_modify(|begun| *begun += 1);
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

    async fn read(&mut self, replica: Uuid) -> Result<Stored, Error> {
        if self.faults.strikes(Fault::Read) {
            return Err(injected("reading"));
        }
        self.inner.read(replica).await
    }

    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<bool, Error> {
        if self.faults.strikes(Fault::Upsert) {
            return Err(injected("writing"));
        }
        self.inner.upsert(replica, update).await
    }

    async fn open_period(&mut self) -> Result<OpenPeriod, Error> {
        self.inner.open_period().await
    }

    fn take_rows(&mut self) -> BoxStream<'_, Result<TakenRow, Error>> {
        self.inner.take_rows()
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
        inner.commit().await
    }

    async fn rollback(self: Box<Self>) {
        self.inner.rollback().await;
    }
}
