//! A database in memory that keeps the promises of the real ones: the validate's copy, for tests that must see inside.
//!
//! Writes of a transaction become visible at its commit; the cutover lock is shared or exclusive, a replica's lock is
//! exclusive, and both are held until the transaction ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use boundary_usage::{
    Backend, DatabaseStatus, DeletedRow, Delivery, DeliveryClaim, Error, HashingKey, Lock, LockMode, OpenPeriod,
    Purpose, Sketch, StoredUsage, Summary, Transaction, Uniques, UniquesUpdate, Update,
};
use chrono::{DateTime, Utc};
use futures_util::stream::{self, BoxStream};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};
use tokio::task::coop::consume_budget;
use uuid::Uuid;

/// A database in memory; clones are the same database.
#[derive(Clone, Default)]
pub struct ModelDatabase(Arc<Shared>);

#[derive(Default)]
struct Shared {
    tables: Mutex<Tables>,
    cutover: Arc<RwLock<()>>,
    commits: watch::Sender<u64>,
    replica_locks: Mutex<BTreeMap<Uuid, Arc<tokio::sync::Mutex<()>>>>,
}

/// What it holds.
#[derive(Clone, Default)]
pub struct Tables {
    /// The rows of the open period.
    pub rows: BTreeMap<Uuid, DeletedRow>,
    /// The number of each replica's last flush.
    pub last_flushes: BTreeMap<Uuid, u64>,
    /// The closed periods, oldest first.
    pub periods: Vec<Summary>,
}

impl ModelDatabase {
    /// What is committed.
    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.tables.lock().expect("no holder of this lock panics")
    }

    /// Waits until as many transactions have been committed since the start.
    pub async fn committed(&self, count: u64) {
        let mut commits = self.0.commits.subscribe();
        commits.wait_for(|commits| *commits >= count).await.expect("the sender lives in self");
    }

    /// Holds the cutover lock alone, as a long collection does, until the guard is dropped.
    pub async fn hold_cutover(&self) -> OwnedRwLockWriteGuard<()> {
        self.0.cutover.clone().write_owned().await
    }
}

#[async_trait]
impl Backend for ModelDatabase {
    async fn hashing_key(&self) -> Result<HashingKey, Error> {
        Ok(HashingKey(17, 4))
    }

    async fn begin(&self, _: Purpose) -> Result<Box<dyn Transaction>, Error> {
        Ok(Box::new(ModelTransaction { database: self.clone(), guards: Vec::new(), writes: Vec::new() }))
    }

    async fn status(&self) -> Result<DatabaseStatus, Error> {
        let period_start = DateTime::<Utc>::UNIX_EPOCH;
        Ok(DatabaseStatus { period_start, ..DatabaseStatus::default() })
    }

    async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        Err(Error::Refused { message: format!("the model keeps no deliveries, so not of period {period} either") })
    }

    async fn claim_delivery(&self, _: Uuid, _: Duration) -> Result<DeliveryClaim, Error> {
        Ok(DeliveryClaim::NothingDue(None))
    }

    async fn delivery_failed(&self, delivery: &Delivery, _: &str, _: Duration) -> Result<bool, Error> {
        Err(Error::Refused { message: format!("the model keeps no deliveries, so not {delivery:?} either") })
    }

    async fn close(&self) {}
}

struct ModelTransaction {
    database: ModelDatabase,
    guards: Vec<Guard>,
    writes: Vec<Write>,
}

/// Held for its drop.
#[allow(dead_code)]
enum Guard {
    Shared(OwnedRwLockReadGuard<()>),
    Exclusive(OwnedRwLockWriteGuard<()>),
    Replica(OwnedMutexGuard<()>),
}

enum Write {
    Upsert(Uuid, Update),
    TakeRows,
    Period(Summary),
}

impl Write {
    fn apply(self, tables: &mut Tables) {
        match self {
            Self::Upsert(replica, update) => {
                tables.last_flushes.insert(replica, update.flush);
                match update.uniques {
                    UniquesUpdate::Delta(uniques) | UniquesUpdate::Cumulative(uniques) => {
                        let row = tables.rows.entry(replica);
                        row.or_insert_with(|| empty_row(replica)).uniques = uniques;
                    }
                    UniquesUpdate::Unchanged => {}
                }
                let row = tables.rows.get_mut(&replica).expect("the upsert has found a row, or brings one");
                row.allowed += update.allowed;
                row.denied += update.denied;
            }
            Self::TakeRows => tables.rows.clear(),
            Self::Period(summary) => tables.periods.push(summary),
        }
    }
}

fn empty_row(replica: Uuid) -> DeletedRow {
    let empty = || Sketch { count: 0, bytes: Vec::new() };
    let uniques = Uniques { workspaces: empty(), users: empty() };
    DeletedRow { replica, uniques, allowed: 0, denied: 0, updated_at: DateTime::UNIX_EPOCH }
}

#[async_trait]
impl Transaction for ModelTransaction {
    async fn acquire(&mut self, lock: Lock, mode: LockMode) -> Result<(), Error> {
        let shared = &self.database.0;
        let guard = match (lock, mode) {
            (Lock::Cutover, LockMode::Shared) => Guard::Shared(shared.cutover.clone().read_owned().await),
            (Lock::Cutover, LockMode::Exclusive) => Guard::Exclusive(shared.cutover.clone().write_owned().await),
            (Lock::Replica(replica), _) => {
                let lock = shared.replica_locks.lock().expect("no holder panics").entry(replica).or_default().clone();
                Guard::Replica(lock.lock_owned().await)
            }
        };
        self.guards.push(guard);
        Ok(())
    }

    async fn read(&mut self, replica: Uuid) -> Result<StoredUsage, Error> {
        // As whatever waits for a socket does: who asks without end must let others have their turn.
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
        Ok(OpenPeriod { start: DateTime::UNIX_EPOCH, now: DateTime::UNIX_EPOCH })
    }

    fn delete_rows(&mut self) -> BoxStream<'_, Result<DeletedRow, Error>> {
        self.writes.push(Write::TakeRows);
        let rows: Vec<_> = self.database.tables().rows.values().cloned().map(Ok).collect();
        Box::pin(stream::iter(rows))
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        self.writes.push(Write::Period(summary.clone()));
        Ok(1 + self.database.tables().periods.len() as i64)
    }

    async fn commit(self: Box<Self>) -> Result<(), Error> {
        self.writes.into_iter().for_each(|write| write.apply(&mut self.database.tables()));
        self.database.0.commits.send_modify(|commits| *commits += 1);
        Ok(())
    }

    async fn rollback(self: Box<Self>) {}
}
