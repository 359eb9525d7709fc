//! A database in memory that keeps the promises of PostgreSQL, for tests that inspect its tables.
//!
//! The writes of a transaction become visible together, at its commit. The cutover lock is shared or exclusive, and a
//! replica's lock is exclusive. A transaction holds its locks until it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use boundary_usage::{
    Backend, DatabaseStatus, Day, DeletedRow, Delivery, DeliveryClaim, Error, HashingKey, Lock, LockMode, OpenPeriod,
    PeriodStatus, Purpose, StatusScope, StoredUsage, Summary, Transaction, UniquesUpdate, Update,
};
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::stream::{self, BoxStream};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};
use tokio::task::coop::consume_budget;
use uuid::Uuid;

/// A database in memory. Clones share their content.
#[derive(Clone, Default)]
pub struct ModelDatabase(Arc<Shared>);

#[derive(Default)]
struct Shared {
    tables: Mutex<Tables>,
    locks: Mutex<Locks>,
    commits: watch::Sender<u64>,
}

#[derive(Default)]
struct Locks {
    cutover: Arc<RwLock<()>>,
    replicas: BTreeMap<Uuid, Arc<tokio::sync::Mutex<()>>>,
}

/// The committed content of the database.
#[derive(Clone, Default)]
pub struct Tables {
    /// The rows of the open period.
    pub rows: BTreeMap<Uuid, DeletedRow>,
    /// The number of each replica's last flush.
    pub last_flushes: BTreeMap<Uuid, u64>,
    /// The closed periods, oldest first.
    pub periods: Vec<Summary>,
    /// The days of the history.
    pub days: BTreeMap<NaiveDate, Day>,
    /// The start of the first period.
    pub created: DateTime<Utc>,
    /// The database's clock, which only a test moves.
    pub now: DateTime<Utc>,
}

impl Tables {
    /// Returns the bounds of the open period.
    pub fn open_period(&self) -> OpenPeriod {
        let start = self.periods.last().map_or(self.created, Summary::end);
        OpenPeriod { start, now: self.now, has_usage: !self.rows.is_empty() }
    }

    /// Returns the id of the next closed period.
    pub fn next_period_id(&self) -> i64 {
        1 + i64::try_from(self.periods.len()).expect("a test closes few periods")
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Upsert(replica, update) => self.upsert(replica, update),
            Write::DeleteRows(replicas) => self.rows.retain(|replica, _| !replicas.contains(replica)),
            Write::InsertPeriod(summary) => self.periods.push(summary),
            Write::Day(day) => drop(self.days.insert(day.date, day)),
        }
    }

    fn upsert(&mut self, replica: Uuid, update: Update) {
        self.last_flushes.insert(replica, update.flush);
        let now = self.now;
        let row = match update.uniques {
            UniquesUpdate::Delta(uniques) | UniquesUpdate::Cumulative(uniques) => {
                let new = DeletedRow { replica, uniques: uniques.clone(), allowed: 0, denied: 0, updated_at: now };
                let row = self.rows.entry(replica).or_insert(new);
                row.uniques = uniques;
                row
            }
            UniquesUpdate::Unchanged => match self.rows.get_mut(&replica) {
                Some(row) => row,
                // A collection deleted the row after the upsert, which is possible only without a lock.
                None => return,
            },
        };
        row.allowed += update.allowed;
        row.denied += update.denied;
        row.updated_at = now;
    }
}

impl ModelDatabase {
    /// Returns the committed content.
    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.tables.lock().expect("no holder of this lock panics")
    }

    /// Waits until this number of transactions has been committed.
    pub async fn committed(&self, count: u64) {
        let mut commits = self.0.commits.subscribe();
        commits.wait_for(|commits| *commits >= count).await.expect("the sender lives in self");
    }

    /// Acquires the cutover lock exclusively, like a long collection, until the guard is dropped.
    pub async fn hold_cutover(&self) -> OwnedRwLockWriteGuard<()> {
        let cutover = self.locks().cutover.clone();
        cutover.write_owned().await
    }

    /// Frees all locks, as a crash of the server does. The holders must not commit afterwards.
    pub fn free_locks(&self) {
        *self.locks() = Locks::default();
    }

    fn locks(&self) -> MutexGuard<'_, Locks> {
        self.0.locks.lock().expect("no holder of this lock panics")
    }
}

#[async_trait]
impl Backend for ModelDatabase {
    async fn hashing_key(&self) -> Result<HashingKey, Error> {
        Ok(HashingKey(17, 4))
    }

    async fn begin(&self, _: Purpose) -> Result<Box<dyn Transaction>, Error> {
        // This yields for the same reason as in `read`.
        consume_budget().await;
        Ok(Box::new(ModelTransaction { database: self.clone(), guards: Vec::new(), writes: Vec::new() }))
    }

    async fn status(&self, _: StatusScope) -> Result<DatabaseStatus, Error> {
        Ok(DatabaseStatus { period_start: self.tables().open_period().start, ..DatabaseStatus::default() })
    }

    async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        Err(Error::Refused { message: format!("the model has no deliveries, so none of period {period}") })
    }

    async fn claim_delivery(&self, _: Uuid, _: Duration) -> Result<DeliveryClaim, Error> {
        Ok(DeliveryClaim::NothingDue(None))
    }

    async fn delivery_failed(&self, delivery: &Delivery, _: &str, _: Duration) -> Result<bool, Error> {
        Err(Error::Refused { message: format!("the model has no deliveries, so not {delivery:?}") })
    }

    async fn close(&self) {}
}

struct ModelTransaction {
    database: ModelDatabase,
    guards: Vec<Guard>,
    writes: Vec<Write>,
}

/// A lock, which ends with the guard.
#[allow(dead_code)]
enum Guard {
    Shared(OwnedRwLockReadGuard<()>),
    Exclusive(OwnedRwLockWriteGuard<()>),
    Replica(OwnedMutexGuard<()>),
}

/// A write of a transaction, applied at its commit.
enum Write {
    Upsert(Uuid, Update),
    DeleteRows(Vec<Uuid>),
    InsertPeriod(Summary),
    Day(Day),
}

#[async_trait]
impl Transaction for ModelTransaction {
    async fn acquire(&mut self, lock: Lock, mode: LockMode) -> Result<(), Error> {
        let (cutover, replica_lock) = {
            let mut locks = self.database.locks();
            let replica_lock = match lock {
                Lock::Cutover => None,
                Lock::Replica(replica) => Some(locks.replicas.entry(replica).or_default().clone()),
            };
            (locks.cutover.clone(), replica_lock)
        };
        self.guards.push(match (replica_lock, mode) {
            (Some(replica_lock), _) => Guard::Replica(replica_lock.lock_owned().await),
            (None, LockMode::Shared) => Guard::Shared(cutover.read_owned().await),
            (None, LockMode::Exclusive) => Guard::Exclusive(cutover.write_owned().await),
        });
        Ok(())
    }

    async fn read(&mut self, replica: Uuid) -> Result<StoredUsage, Error> {
        // A wait for a socket would yield. Without it, a component that reads in a loop would starve other tasks.
        consume_budget().await;
        let tables = self.database.tables();
        Ok(StoredUsage {
            last_flush: tables.last_flushes.get(&replica).copied().unwrap_or_default(),
            uniques: tables.rows.get(&replica).map(|row| row.uniques.clone()),
        })
    }

    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<(), Error> {
        let stored = self.read(replica).await?;
        if stored.last_flush >= update.flush {
            return Err(Error::Conflict { message: format!("flush {} is not newer", update.flush) });
        }
        if stored.uniques.is_some() == matches!(update.uniques, UniquesUpdate::Delta(_)) {
            return Err(Error::Conflict { message: format!("flush {} does not fit the row", update.flush) });
        }
        self.writes.push(Write::Upsert(replica, update.clone()));
        Ok(())
    }

    async fn open_period(&mut self) -> Result<OpenPeriod, Error> {
        Ok(self.database.tables().open_period())
    }

    fn delete_rows(&mut self) -> BoxStream<'_, Result<DeletedRow, Error>> {
        let rows: Vec<_> = self.database.tables().rows.values().cloned().collect();
        self.writes.push(Write::DeleteRows(rows.iter().map(|row| row.replica).collect()));
        Box::pin(stream::iter(rows.into_iter().map(Ok)))
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        let period_id = self.database.tables().next_period_id();
        self.writes.push(Write::InsertPeriod(Summary { period_id, ..summary.clone() }));
        Ok(period_id)
    }

    async fn read_day(&mut self, date: NaiveDate) -> Result<Option<Day>, Error> {
        Ok(self.database.tables().days.get(&date).cloned())
    }

    async fn write_day(&mut self, day: &Day) -> Result<(), Error> {
        self.writes.push(Write::Day(day.clone()));
        Ok(())
    }

    fn days(&mut self) -> BoxStream<'_, Result<Day, Error>> {
        let days: Vec<_> = self.database.tables().days.values().cloned().map(Ok).collect();
        Box::pin(stream::iter(days))
    }

    fn periods(&mut self) -> BoxStream<'_, Result<PeriodStatus, Error>> {
        let periods = self.database.tables().periods.clone().into_iter();
        let undelivered = |summary| Ok(PeriodStatus { summary, delivered_at: None, delivery: None });
        Box::pin(stream::iter(periods.map(undelivered)))
    }

    async fn commit(self: Box<Self>) -> Result<(), Error> {
        {
            let mut tables = self.database.tables();
            self.writes.into_iter().for_each(|write| tables.apply(write));
        }
        self.database.0.commits.send_modify(|commits| *commits += 1);
        Ok(())
    }

    async fn rollback(self: Box<Self>) {}
}
