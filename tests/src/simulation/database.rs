//! The simulation's server: a database in memory whose connections fail, and whose clock and tables jump.
//!
//! The server keeps the locks of a transaction until the transaction ends on the server. That can be long after its
//! client lost the connection.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use boundary_usage::{
    Backend, Database, DatabaseStatus, Delivery, DeliveryClaim, Error, HashingKey, OpenPeriod, Purpose, StatusScope,
    Summary, Transaction, Update,
};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use super::model;
use super::run::{self, Run};
use super::schedule::Fault;
use super::session::{Session, SessionTransaction};
use crate::model_database::{ModelDatabase, Tables};

/// The number of commits that a crash of the server can lose.
const LOST_COMMITS_MAX: usize = 4;

/// The days from 1970 to the start of a run.
const DAYS_UNTIL_START: i64 = 20_000;

/// The server, which outlives all processes.
pub(super) struct Server {
    pub(super) run: Arc<Run>,
    pub(super) database: ModelDatabase,
    /// The number of crashes. A crash ends the sessions that began before it.
    crashes: AtomicU64,
    /// The seconds by which the clock was set.
    clock_offset: AtomicI64,
    /// The states before the last commits, oldest first.
    past: Mutex<VecDeque<Past>>,
    /// The end of the current outage.
    outage: Mutex<Option<Instant>>,
    /// The end of the time during which another database replaces the file.
    replaced: Mutex<Option<Instant>>,
}

/// The state that the server restores if it loses commits.
struct Past {
    tables: Tables,
    model: model::Past,
}

/// A write of a commit, for the trace and the model.
pub(super) enum Applied {
    Flush(Uuid, Update),
    Period(Summary),
}

/// The client of a connection.
#[derive(Clone, Copy)]
pub(super) enum Client {
    Replica {
        id: Uuid,
        /// The index of the process among all processes of the replica.
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
        let database = ModelDatabase::default();
        database.tables().created = start();
        Arc::new(Self {
            run,
            database,
            crashes: AtomicU64::default(),
            clock_offset: AtomicI64::default(),
            past: Mutex::default(),
            outage: Mutex::default(),
            replaced: Mutex::default(),
        })
    }

    /// Returns a connection for a client.
    pub(super) fn connect(self: &Arc<Self>, client: Client) -> Database {
        Database::with_backend(Arc::new(Connection { server: self.clone(), client }))
    }

    /// Returns the number of crashes so far.
    pub(super) fn crashes(&self) -> u64 {
        self.crashes.load(Ordering::Relaxed)
    }

    /// Opens no transaction for this duration.
    pub(super) fn go_away(&self, duration: Duration) {
        *self.outage.lock().expect("no holder of this lock panics") = Some(Instant::now() + duration);
    }

    /// Refuses every transaction for this duration, because the file is another database's.
    pub(super) fn replace(&self, duration: Duration) {
        *self.replaced.lock().expect("no holder of this lock panics") = Some(Instant::now() + duration);
    }

    /// Crashes and restarts without the last commits.
    pub(super) fn forget(&self, commits: usize) {
        let mut past = self.past.lock().expect("no holder of this lock panics");
        let kept = past.len().saturating_sub(commits);
        let Some(returned) = past.drain(kept..).next() else { return };
        self.crashes.fetch_add(1, Ordering::Relaxed);
        self.database.free_locks();
        *self.database.tables() = returned.tables;
        self.run.model().forgotten(returned.model);
    }

    /// Sets the clock ahead by `seconds`.
    pub(super) fn set_clock(&self, seconds: i64) {
        self.clock_offset.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Moves the database's clock to the virtual time.
    fn update_clock(&self) {
        let elapsed = TimeDelta::from_std(self.run.elapsed()).expect("a run is short");
        let offset = TimeDelta::seconds(self.clock_offset.load(Ordering::Relaxed));
        self.database.tables().now = start() + elapsed + offset;
    }

    pub(super) fn open_period(&self) -> OpenPeriod {
        self.update_clock();
        self.database.tables().open_period()
    }

    /// Commits the session's transaction, unless the server has crashed since its begin.
    pub(super) async fn commit(&self, client: Client, session: Session) {
        if session.crashes != self.crashes() {
            return;
        }
        self.keep_past();
        self.update_clock();
        if let Some(applied) = &session.applied {
            self.report(client, applied);
        }
        let is_collection = matches!(session.applied, Some(Applied::Period(_)));
        session.transaction.commit().await.expect("a commit of the model does not fail");
        if is_collection {
            let days = self.database.tables().days.clone();
            self.run.model().check_days(&days);
        }
    }

    /// Keeps the state before a commit if a crash of this run can lose commits.
    fn keep_past(&self) {
        if !self.run.schedule().knows(Fault::CommitsForgotten) {
            return;
        }
        let mut past = self.past.lock().expect("no holder of this lock panics");
        past.push_back(Past { tables: self.database.tables().clone(), model: self.run.model().past() });
        if past.len() > LOST_COMMITS_MAX {
            past.pop_front();
        }
    }

    /// Records the writes of a commit in the trace and the model.
    pub(super) fn report(&self, client: Client, applied: &Applied) {
        match applied {
            Applied::Flush(replica, update) => {
                self.run.note(client, format_args!("applied flush {}", update.flush));
                if let Client::Replica { process, .. } = client {
                    self.run.model().committed(*replica, process, update);
                }
            }
            Applied::Period(summary) => {
                self.run.note(client, format_args!("applied period {}", summary.period_id));
                self.run.model().collected(summary);
            }
        }
    }
}

/// Returns the time at which a run starts.
fn start() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(DAYS_UNTIL_START)
}

/// Returns whether the virtual time is before `end`.
fn is_before(end: &Mutex<Option<Instant>>) -> bool {
    let end = end.lock().expect("no holder of this lock panics");
    end.is_some_and(|end| Instant::now() < end)
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
            return Err(Error::Refused { message: "the simulation: the file is another database's".into() });
        }
        if is_before(&server.outage) || server.run.strikes(Fault::BeginFails, client) {
            return Err(Error::Unavailable { action: "beginning a transaction", source: "the simulation".into() });
        }
        server.run.note(client, "begin");
        let session = Session::begin(server, purpose).await?;
        Ok(Box::new(SessionTransaction::new(server.clone(), *client, purpose, session)))
    }

    async fn status(&self, scope: StatusScope) -> Result<DatabaseStatus, Error> {
        self.server.database.status(scope).await
    }

    async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        self.server.database.acknowledge(period).await
    }

    async fn claim_delivery(&self, lease: Uuid, length: Duration) -> Result<DeliveryClaim, Error> {
        self.server.database.claim_delivery(lease, length).await
    }

    async fn delivery_failed(&self, delivery: &Delivery, error: &str, retry_in: Duration) -> Result<bool, Error> {
        self.server.database.delivery_failed(delivery, error, retry_in).await
    }

    async fn close(&self) {}
}
