//! The simulation's database: tables in memory, locks that wait in virtual time, and connections that fail.
//!
//! It promises what PostgreSQL promises: writes are applied together at the commit; locks are held until the transaction is
//! over on the server, which may be long after the client has lost sight of it; a waiting collection lets no new flush in.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use boundary_usage::{
    Backend, Database, DatabaseStatus, DeletedRow, Delivery, DeliveryClaim, Error, HashingKey, OpenPeriod, Purpose,
    Summary, Transaction, UniquesUpdate, Update,
};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::RwLock;
use tokio::time::Instant;
use uuid::Uuid;

use super::model;
use super::run::{self, Run};
use super::schedule::Fault;
use super::session::{Session, SessionTransaction};

/// How many commits a server may forget at once.
const COMMITS_FORGOTTEN_MAX: usize = 4;

/// The server, which outlives all processes.
pub(super) struct Server {
    pub(super) run: Arc<Run>,
    tables: Mutex<Tables>,
    locks: Mutex<Locks>,
    /// The states before the last commits, the latest one last.
    past: Mutex<VecDeque<Past>>,
    /// Until when no transaction can be opened.
    outage: Mutex<Option<Instant>>,
    /// Until when another database's file stands in the place of ours.
    replaced: Mutex<Option<Instant>>,
}

/// The locks of the server since it was started last; a crash ends all of them.
#[derive(Default)]
struct Locks {
    /// How often the server has crashed. A session of an earlier start is gone.
    crashes: u64,
    cutover: Arc<RwLock<()>>,
    replicas: BTreeMap<Uuid, Arc<tokio::sync::Mutex<()>>>,
}

/// What a server that forgets its last commits returns to.
struct Past {
    tables: Tables,
    model: model::Past,
}

#[derive(Clone)]
pub(super) struct Tables {
    pub(super) rows: BTreeMap<Uuid, DeletedRow>,
    pub(super) last_flushes: BTreeMap<Uuid, u64>,
    pub(super) periods: Vec<Summary>,
    pub(super) next_period: i64,
    /// By how many seconds the clock has been set.
    clock_offset: i64,
}

/// A write of a transaction, applied at its commit.
pub(super) enum Write {
    Upsert(Uuid, Update),
    /// Deletes these rows.
    DeleteRows(Vec<Uuid>),
    Period(Summary),
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy)]
pub(super) enum Client {
    Replica {
        id: Uuid,
        /// Which of its processes, from 0.
        process: u32,
    },
    Collector,
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica { id, process } => formatter.pad(&format!("r{}.{process}", id.as_u128())),
            Self::Collector => formatter.pad("c"),
        }
    }
}

impl Server {
    pub(super) fn new(run: Arc<Run>) -> Arc<Self> {
        let tables = Tables {
            rows: BTreeMap::new(),
            last_flushes: BTreeMap::new(),
            periods: Vec::new(),
            next_period: 1,
            clock_offset: 0,
        };
        Arc::new(Self {
            run,
            tables: Mutex::new(tables),
            locks: Mutex::default(),
            past: Mutex::default(),
            outage: Mutex::default(),
            replaced: Mutex::default(),
        })
    }

    /// A connection for a client.
    pub(super) fn connect(self: &Arc<Self>, client: Client) -> Database {
        Database::with_backend(Arc::new(Connection { server: self.clone(), client }))
    }

    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("no holder of this lock panics")
    }

    fn locks(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock().expect("no holder of this lock panics")
    }

    pub(super) fn cutover(&self) -> Arc<RwLock<()>> {
        self.locks().cutover.clone()
    }

    pub(super) fn replica_lock(&self, replica: Uuid) -> Arc<tokio::sync::Mutex<()>> {
        self.locks().replicas.entry(replica).or_default().clone()
    }

    /// How often the server has crashed.
    pub(super) fn crashes(&self) -> u64 {
        self.locks().crashes
    }

    /// Opens no transaction for that long.
    pub(super) fn go_away(&self, duration: Duration) {
        *self.outage.lock().expect("no holder of this lock panics") = Some(Instant::now() + duration);
    }

    /// Refuses every transaction for that long, because the file is another database's.
    pub(super) fn replace(&self, duration: Duration) {
        *self.replaced.lock().expect("no holder of this lock panics") = Some(Instant::now() + duration);
    }

    /// Keeps the state before a commit, if this run's server may forget.
    pub(super) fn keep_past(&self) {
        if !self.run.schedule().knows(Fault::CommitsForgotten) {
            return;
        }
        let mut past = self.past.lock().expect("no holder of this lock panics");
        past.push_back(Past { tables: self.tables().clone(), model: self.run.model().past() });
        if past.len() > COMMITS_FORGOTTEN_MAX {
            past.pop_front();
        }
    }

    /// Crashes, and comes back without its last commits, at most so many.
    pub(super) fn forget(&self, commits: usize) {
        let mut past = self.past.lock().expect("no holder of this lock panics");
        let kept = past.len().saturating_sub(commits);
        let Some(returned) = past.drain(kept..).next() else { return };
        {
            let mut locks = self.locks();
            *locks = Locks { crashes: locks.crashes + 1, ..Locks::default() };
        }
        let mut tables = self.tables();
        *tables = Tables { clock_offset: tables.clock_offset, ..returned.tables };
        self.run.model().forgotten(returned.model);
    }

    /// Sets the clock by so many seconds.
    pub(super) fn set_clock(&self, seconds: i64) {
        self.tables().clock_offset += seconds;
    }

    fn now(&self, tables: &Tables) -> DateTime<Utc> {
        let elapsed = TimeDelta::from_std(self.run.elapsed()).expect("a run is short");
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + elapsed + TimeDelta::seconds(tables.clock_offset)
    }

    pub(super) fn open_period(&self) -> OpenPeriod {
        let tables = self.tables();
        let created = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let start = tables
            .periods
            .last()
            .map_or(created, |last| last.period_start + TimeDelta::milliseconds(last.period_duration_ms.cast_signed()));
        OpenPeriod { start, now: self.now(&tables) }
    }

    /// Applies what a client has written, and tells the model.
    pub(super) fn apply(&self, client: Client, writes: Vec<Write>) {
        let mut tables = self.tables();
        let now = self.now(&tables);
        for write in writes {
            match write {
                Write::Upsert(replica, update) => {
                    self.run.note(client, format_args!("applied flush {}", update.flush));
                    if let Client::Replica { process, .. } = client {
                        self.run.model().committed(replica, process, &update);
                    }
                    tables.upsert(replica, update, now);
                }
                Write::DeleteRows(replicas) => tables.rows.retain(|replica, _| !replicas.contains(replica)),
                Write::Period(summary) => {
                    self.run.note(client, format_args!("applied period {}", summary.period_id));
                    self.run.model().collected(&summary);
                    tables.periods.push(summary);
                }
            }
        }
    }
}

impl Tables {
    fn upsert(&mut self, replica: Uuid, update: Update, now: DateTime<Utc>) {
        self.last_flushes.insert(replica, update.flush);
        let uniques = match update.uniques {
            UniquesUpdate::Delta(uniques) | UniquesUpdate::Cumulative(uniques) => uniques,
            UniquesUpdate::Unchanged => match self.rows.get(&replica) {
                Some(row) => row.uniques.clone(),
                // Gone since the upsert has found it: a lock was not held.
                None => return,
            },
        };
        let new = || DeletedRow { replica, uniques: uniques.clone(), allowed: 0, denied: 0, updated_at: now };
        let row = self.rows.entry(replica).or_insert_with(new);
        row.uniques = uniques;
        row.allowed += update.allowed;
        row.denied += update.denied;
        row.updated_at = now;
    }
}

/// Whether it is not yet as late as that.
fn is_before(until: &Mutex<Option<Instant>>) -> bool {
    let until = until.lock().expect("no holder of this lock panics");
    until.is_some_and(|until| Instant::now() < until)
}

struct Connection {
    server: Arc<Server>,
    client: Client,
}

#[async_trait]
impl Backend for Connection {
    async fn hashing_key(&self) -> Result<HashingKey, Error> {
        Ok(run::hashing_key(self.server.run.mutation))
    }

    async fn begin(&self, purpose: Purpose) -> Result<Box<dyn Transaction>, Error> {
        let Self { server, client } = self;
        let reply_time = server.run.schedule().reply_time();
        server.run.pause(reply_time).await;
        if is_before(&server.replaced) {
            return Err(Error::Refused { message: "the simulation: this is another database's file".into() });
        }
        if is_before(&server.outage) || server.run.strikes(Fault::BeginFails, client) {
            return Err(Error::Unavailable { action: "beginning a transaction", source: "the simulation".into() });
        }
        server.run.note(client, "begin");
        let session = Session::new(server.crashes(), &server.tables());
        Ok(Box::new(SessionTransaction::new(server.clone(), *client, purpose, session)))
    }

    async fn status(&self) -> Result<DatabaseStatus, Error> {
        let period_start = self.server.open_period().start;
        Ok(DatabaseStatus { period_start, ..DatabaseStatus::default() })
    }

    async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        Err(Error::Refused { message: format!("the simulation keeps no deliveries, so not of period {period} either") })
    }

    async fn claim_delivery(&self, _: Uuid, _: Duration) -> Result<DeliveryClaim, Error> {
        Ok(DeliveryClaim::NothingDue(None))
    }

    async fn delivery_failed(&self, delivery: &Delivery, _: &str, _: Duration) -> Result<bool, Error> {
        Err(Error::Refused { message: format!("the simulation keeps no deliveries, so not {delivery:?} either") })
    }

    async fn close(&self) {}
}
