//! Faults that a test injects between the library and any database.
//!
//! Faults are queued, and each affects one call, in order. So a test can, for example, lose the reply of the next
//! commit on SQLite, on PostgreSQL and on the model.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use boundary_usage::{
    Backend, Database, DatabaseStatus, Day, DeletedRow, Delivery, DeliveryClaim, Error, HashingKey, Lock, LockMode,
    OpenPeriod, PeriodStatus, PruneLimits, Pruned, Purpose, StatusScope, StoredUsage, Summary, Transaction, Update,
};
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use uuid::Uuid;

/// The call that fails, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No transaction can begin.
    Begin,
    /// A lock times out.
    Acquire,
    /// The row cannot be read.
    Read,
    /// The row cannot be written.
    Upsert,
    /// The read waits until [`Faults::release`].
    ReadHeld,
    /// The upsert waits until [`Faults::release`].
    UpsertHeld,
    /// The commit waits until [`Faults::release`].
    CommitHeld,
    /// The driver panics during the upsert.
    UpsertPanics,
    /// The driver panics before the rollback.
    RollbackPanics,
    /// The commit fails, and nothing is applied.
    Commit,
    /// The commit does not reach the database, and the client gets no reply.
    CommitLost,
    /// The commit is applied, and its reply is lost.
    CommitReplyLost,
    /// The driver panics during the commit, and nothing is applied.
    CommitPanics,
}

/// The queued faults, and the observed transactions.
#[derive(Clone)]
pub struct Faults {
    queued: Arc<Mutex<VecDeque<Fault>>>,
    seen: watch::Sender<Seen>,
}

/// The observed transactions and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Transactions begun.
    pub begun: u64,
    /// Whether a call is held now.
    pub held: bool,
    /// Calls whose future was dropped while they were held.
    pub abandoned: u64,
    /// Transactions rolled back.
    pub rolled_back: u64,
    /// Transactions whose commit returned a success.
    pub committed: u64,
}

impl Faults {
    /// Returns a database that forwards all calls to another one, and its faults.
    pub fn in_front_of(database: &Database) -> (Database, Self) {
        let faults = Self { queued: Arc::default(), seen: watch::Sender::new(Seen::default()) };
        let backend = FaultyDatabase { inner: database.backend().clone(), faults: faults.clone() };
        (Database::with_backend(Arc::new(backend)), faults)
    }

    /// Queues a fault.
    pub fn inject(&self, fault: Fault) {
        self.lock().push_back(fault);
    }

    /// Returns the number of faults that have not struck yet.
    pub fn pending(&self) -> usize {
        self.lock().len()
    }

    /// Waits until a condition on the observed transactions is true.
    pub async fn until(&self, is_true: impl Fn(&Seen) -> bool) {
        self.seen.subscribe().wait_for(is_true).await.expect("the sender lives in self");
    }

    /// Returns the observed transactions.
    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Holds the caller until the release, if this fault strikes.
    async fn hold(&self, fault: Fault) {
        if self.strikes(fault) {
            let held = Held::new(&self.seen);
            self.until(|seen| !seen.held).await;
            drop(held);
        }
    }

    /// Releases the call that is held.
    pub fn release(&self) {
        self.seen.send_modify(|seen| seen.held = false);
    }

    /// Removes the next fault from the queue if it is this one, and returns whether it was.
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

    async fn status(&self, scope: StatusScope) -> Result<DatabaseStatus, Error> {
        self.inner.status(scope).await
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
            return Err(Error::Conflict { message: format!("{lock:?} timed out (injected by the test)") });
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

    async fn add_client_drops(&mut self, replica: Uuid, logs: u64) -> Result<(), Error> {
        self.inner.add_client_drops(replica, logs).await
    }

    async fn delete_client_drops(&mut self) -> Result<u64, Error> {
        self.inner.delete_client_drops().await
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        self.inner.insert_period(summary).await
    }

    async fn read_day(&mut self, date: NaiveDate) -> Result<Option<Day>, Error> {
        self.inner.read_day(date).await
    }

    async fn write_day(&mut self, day: &Day) -> Result<(), Error> {
        self.inner.write_day(day).await
    }

    async fn read_before(&mut self) -> Result<Option<Day>, Error> {
        self.inner.read_before().await
    }

    async fn write_before(&mut self, before: &Day) -> Result<(), Error> {
        self.inner.write_before(before).await
    }

    async fn delete_days(&mut self, before: NaiveDate, limit: u32) -> Result<Vec<Day>, Error> {
        self.inner.delete_days(before, limit).await
    }

    async fn delete_periods(
        &mut self,
        ended_before: DateTime<Utc>,
        undelivered: bool,
        limit: u32,
    ) -> Result<u64, Error> {
        self.inner.delete_periods(ended_before, undelivered, limit).await
    }

    async fn delete_replicas(&mut self, idle_since: DateTime<Utc>, limit: u32) -> Result<u64, Error> {
        self.inner.delete_replicas(idle_since, limit).await
    }

    async fn count_prunable(&mut self, limits: &PruneLimits) -> Result<Pruned, Error> {
        self.inner.count_prunable(limits).await
    }

    fn days(&mut self) -> BoxStream<'_, Result<Day, Error>> {
        self.inner.days()
    }

    fn periods(&mut self) -> BoxStream<'_, Result<PeriodStatus, Error>> {
        self.inner.periods()
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

    /// Rolls back.
    ///
    /// It is not an `async fn`, so that an injected panic happens in the call instead of in the first poll.
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

/// A held call. Dropping it before its release counts it as abandoned.
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
