//! A transaction from both ends: the client's handle, which fails, and the server's session, which goes on without it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boundary_usage::{
    DeletedRow, Error, Lock, LockMode, OpenPeriod, Purpose, StoredUsage, Summary, Transaction, UniquesUpdate, Update,
};
use futures_util::stream::{self, BoxStream};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard};
use tokio::time::timeout;
use uuid::Uuid;

use super::Mutation;
use super::database::{Client, Server, Tables, Write};
use super::schedule::Fault;

/// What the server holds for a transaction, until that is over.
pub(super) struct Session {
    /// How often the server had crashed when it began.
    crashes: u64,
    guards: Vec<Guard>,
    writes: Vec<Write>,
    /// The rows as they were at the beginning; only a mutation reads them.
    rows_at_begin: BTreeMap<Uuid, DeletedRow>,
    /// A statement has failed: the transaction can only be rolled back.
    failed: bool,
}

/// Held for its drop.
#[allow(dead_code)]
enum Guard {
    Shared(OwnedRwLockReadGuard<()>),
    Exclusive(OwnedRwLockWriteGuard<()>),
    Replica(OwnedMutexGuard<()>),
}

impl Session {
    pub(super) fn new(crashes: u64, tables: &Tables) -> Self {
        Self { crashes, guards: Vec::new(), writes: Vec::new(), rows_at_begin: tables.rows.clone(), failed: false }
    }
}

/// The client's end.
pub(super) struct SessionTransaction {
    server: Arc<Server>,
    client: Client,
    purpose: Purpose,
    /// `None` once the connection is lost or the transaction is over.
    session: Option<Session>,
}

impl SessionTransaction {
    pub(super) fn new(server: Arc<Server>, client: Client, purpose: Purpose, session: Session) -> Self {
        Self { server, client, purpose, session: Some(session) }
    }

    /// A statement is sent; answers once the server has carried it out, or has not.
    async fn statement(&mut self, action: &'static str, fault: Fault) -> Result<&mut Session, Error> {
        let run = self.server.run.clone();
        let slow = run.strikes(Fault::SlowReply, self.client);
        let reply_time = match slow {
            true => Duration::from_secs(20) + run.schedule().milliseconds(60_000),
            false => run.schedule().reply_time(),
        };
        run.pause(reply_time).await;
        if self.session.is_some() && run.strikes(Fault::ConnectionDropped, self.client) {
            self.lose();
        }
        let crashes = self.server.crashes();
        // A crash ends every session, whatever it holds.
        self.session.take_if(|session| session.crashes != crashes);
        let Some(session) = &mut self.session else { return Err(failed(action)) };
        if session.failed {
            return Err(failed(action));
        }
        if run.strikes(fault, self.client) {
            session.failed = true;
            return Err(match fault {
                Fault::LockTimesOut => conflict("the lock"),
                _ => failed(action),
            });
        }
        run.note(self.client, action);
        Ok(session)
    }

    /// The connection is gone. The server notices later, and rolls back.
    fn lose(&mut self) {
        let Some(session) = self.session.take() else { return };
        // Without a runtime the run is over.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (server, client) = (self.server.clone(), self.client);
        let noticed = server.run.schedule().milliseconds(15_000);
        runtime.spawn(async move {
            tokio::time::sleep(noticed).await;
            server.run.note(client, "the server rolls back a lost session");
            server.roll_back(client, session);
        });
    }

    /// The commit goes on without the client.
    fn commit_late(&mut self, session: Session) {
        let (server, client) = (self.server.clone(), self.client);
        let (after, applies) = {
            let mut schedule = server.run.schedule();
            (schedule.milliseconds(20_000), schedule.chance(0.5))
        };
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            server.run.note(client, format_args!("late commit, applies: {applies}"));
            match applies {
                true => server.commit(client, session),
                false => server.roll_back(client, session),
            }
        });
    }

    /// How long to wait for a lock.
    fn lock_limit(&self) -> Duration {
        match self.purpose {
            Purpose::Flush => Duration::from_secs(5),
            Purpose::Collection => Duration::from_secs(30),
        }
    }
}

impl Server {
    /// Applies the writes; the locks end after that.
    fn commit(&self, client: Client, session: Session) {
        // A commit that comes late may come after a crash.
        if session.crashes == self.crashes() {
            self.keep_past();
            self.apply(client, session.writes);
        }
        drop(session.guards);
    }

    fn roll_back(&self, client: Client, session: Session) {
        if self.run.is(Mutation::RollbackApplies) {
            self.commit(client, session);
        }
    }

    async fn lock(&self, lock: Lock, mode: LockMode) -> Option<Guard> {
        let is_flush = mode == LockMode::Shared;
        Some(match (lock, mode) {
            (Lock::Cutover, _) if is_flush && self.run.is(Mutation::FlushNotLocked) => return None,
            (Lock::Replica(_), _) if self.run.is(Mutation::LateCommitNotAwaited) => return None,
            (Lock::Cutover, LockMode::Shared) => Guard::Shared(self.cutover().read_owned().await),
            (Lock::Cutover, LockMode::Exclusive) => Guard::Exclusive(self.cutover().write_owned().await),
            (Lock::Replica(replica), _) => Guard::Replica(self.replica_lock(replica).lock_owned().await),
        })
    }
}

#[async_trait]
impl Transaction for SessionTransaction {
    async fn acquire(&mut self, lock: Lock, mode: LockMode) -> Result<(), Error> {
        let (server, limit) = (self.server.clone(), self.lock_limit());
        let action = match lock {
            Lock::Cutover => "lock cutover",
            Lock::Replica(_) => "lock replica",
        };
        let session = self.statement(action, Fault::LockTimesOut).await?;
        match timeout(limit, server.lock(lock, mode)).await {
            Ok(guard) => session.guards.extend(guard),
            Err(_) => {
                session.failed = true;
                server.run.note(self.client, "the lock was not granted in time");
                return Err(conflict(action));
            }
        }
        Ok(())
    }

    async fn read(&mut self, replica: Uuid) -> Result<StoredUsage, Error> {
        self.statement("read", Fault::ReadFails).await?;
        let tables = self.server.tables();
        let last_flush = tables.last_flushes.get(&replica).copied().unwrap_or_default();
        self.server.run.model().learned(replica);
        Ok(StoredUsage { last_flush, uniques: tables.rows.get(&replica).map(|row| row.uniques.clone()) })
    }

    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<(), Error> {
        let server = self.server.clone();
        let session = self.statement("upsert", Fault::UpsertFails).await?;
        let tables = server.tables();
        let last_flush = tables.last_flushes.get(&replica).copied().unwrap_or_default();
        if last_flush >= update.flush {
            session.failed = true;
            return Err(conflict("an old flush"));
        }
        if tables.rows.contains_key(&replica) == matches!(update.uniques, UniquesUpdate::Delta(_)) {
            session.failed = true;
            return Err(conflict("a row that is not as it was read"));
        }
        session.writes.push(Write::Upsert(replica, update.clone()));
        Ok(())
    }

    async fn open_period(&mut self) -> Result<OpenPeriod, Error> {
        self.statement("open period", Fault::ReadFails).await?;
        Ok(self.server.open_period())
    }

    fn delete_rows(&mut self) -> BoxStream<'_, Result<DeletedRow, Error>> {
        let rows = async move {
            match self.take_all_rows().await {
                Ok(rows) => rows.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        };
        Box::pin(stream::StreamExt::flatten(stream::once(async { stream::iter(rows.await) })))
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        let (server, client) = (self.server.clone(), self.client);
        let session = self.statement("insert period", Fault::PeriodFails).await?;
        let period_id = {
            let mut tables = server.tables();
            tables.next_period += 1;
            tables.next_period - 1
        };
        let write = Write::Period(Summary { period_id, ..summary.clone() });
        match server.run.is(Mutation::SummaryOutsideTheTransaction) {
            true => server.apply(client, vec![write]),
            false => session.writes.push(write),
        }
        Ok(period_id)
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        let (run, client) = (self.server.run.clone(), self.client);
        self.statement("commit", Fault::CommitFails).await.map(drop).or_else(|error| {
            match self.session.is_some() && run.is(Mutation::FailureCalledSuccess) {
                true => Ok(()),
                false => Err(error),
            }
        })?;
        if run.strikes(Fault::CommitLost, client) {
            self.lose();
            return Err(unknown());
        }
        let session = self.session.take().expect("the statement has found it");
        if session.failed {
            return Ok(());
        }
        if run.strikes(Fault::LateCommit, client) {
            self.commit_late(session);
            return Err(unknown());
        }
        let reply_lost = run.strikes(Fault::ReplyLost, client);
        self.server.commit(client, session);
        if let (Client::Replica { id, .. }, false) = (client, reply_lost) {
            run.model().learned(id);
        }
        match reply_lost {
            true if run.is(Mutation::LostReplyCalledFailure) => Err(failed("the commit")),
            true => Err(unknown()),
            false => Ok(()),
        }
    }

    async fn rollback(mut self: Box<Self>) {
        let run = self.server.run.clone();
        let reply_time = run.schedule().reply_time();
        run.pause(reply_time).await;
        if let Some(session) = self.session.take() {
            run.note(self.client, "rollback");
            self.server.roll_back(self.client, session);
        }
    }
}

impl SessionTransaction {
    /// Deletes all rows at the commit; answers them.
    async fn take_all_rows(&mut self) -> Result<Vec<DeletedRow>, Error> {
        let server = self.server.clone();
        let session = self.statement("take rows", Fault::RowsBreakOff).await?;
        let mut tables = server.tables();
        let mut rows: Vec<_> = tables.rows.values().cloned().collect();
        let mut deleted: Vec<_> = rows.iter().map(|row| row.replica).collect();
        if server.run.is(Mutation::RowsReadBeforeTheLock) {
            rows = std::mem::take(&mut session.rows_at_begin).into_values().collect();
        }
        if server.run.is(Mutation::DeletesMoreThanItSums) && rows.len() > 2 {
            rows.pop();
        }
        if server.run.is(Mutation::DeletedOutsideTheTransaction) {
            tables.rows.clear();
            deleted.clear();
        }
        session.writes.push(Write::DeleteRows(deleted));
        Ok(rows)
    }
}

impl Drop for SessionTransaction {
    fn drop(&mut self) {
        self.lose();
    }
}

fn failed(action: &'static str) -> Error {
    Error::Unavailable { action, source: "the simulation".into() }
}

fn conflict(what: &str) -> Error {
    Error::Conflict { message: format!("the simulation: {what}") }
}

fn unknown() -> Error {
    Error::CommitUnknown { source: "the simulation".into() }
}
