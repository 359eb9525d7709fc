//! A transaction: the client's handle, which can fail, and the server's session, which can outlive it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boundary_usage::{
    Backend, Day, DeletedRow, Error, Lock, LockMode, OpenPeriod, PeriodStatus, Purpose, StoredUsage, Summary,
    Transaction, Update,
};
use chrono::NaiveDate;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::time::timeout;
use uuid::Uuid;

use super::Mutation;
use super::database::{Applied, Client, Server};
use super::schedule::Fault;

/// A transaction on the server.
pub(super) struct Session {
    /// The number of crashes before the beginning. A later crash ends the session.
    pub(super) crashes: u64,
    pub(super) transaction: Box<dyn Transaction>,
    /// The writes that the commit applies, for the trace and the model.
    pub(super) applied: Option<Applied>,
    /// The rows at the beginning, for [`Mutation::RowsReadBeforeTheLock`].
    rows_at_begin: Vec<DeletedRow>,
    /// The days at the beginning, for [`Mutation::DayReadBeforeTheLock`].
    days_at_begin: BTreeMap<NaiveDate, Day>,
    /// Whether a statement has failed, so that the transaction can only be rolled back.
    failed: bool,
}

impl Session {
    pub(super) async fn begin(server: &Server, purpose: Purpose) -> Result<Self, Error> {
        let (rows_at_begin, days_at_begin) = {
            let tables = server.database.tables();
            (tables.rows.values().cloned().collect(), tables.days.clone())
        };
        let transaction = server.database.begin(purpose).await?;
        let crashes = server.crashes();
        Ok(Self { crashes, transaction, applied: None, rows_at_begin, days_at_begin, failed: false })
    }
}

/// A transaction on the client.
pub(super) struct SessionTransaction {
    server: Arc<Server>,
    client: Client,
    purpose: Purpose,
    /// `None` after the connection was lost or the transaction ended.
    session: Option<Session>,
}

impl SessionTransaction {
    pub(super) fn new(server: Arc<Server>, client: Client, purpose: Purpose, session: Session) -> Self {
        Self { server, client, purpose, session: Some(session) }
    }

    /// Sends a statement. Returns the session that carries it out, or the fault that strikes first.
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

    /// Loses the connection. The server notices later and rolls back.
    fn lose(&mut self) {
        let Some(session) = self.session.take() else { return };
        // Without a runtime, the run has ended.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (server, client) = (self.server.clone(), self.client);
        let noticed = server.run.schedule().milliseconds(15_000);
        runtime.spawn(async move {
            tokio::time::sleep(noticed).await;
            server.run.note(client, "the server rolls back a lost session");
            server.roll_back(client, session).await;
        });
    }

    /// Lets the server commit after the client has given up.
    fn commit_late(&self, session: Session) {
        let (server, client) = (self.server.clone(), self.client);
        let (after, applies) = {
            let mut schedule = server.run.schedule();
            (schedule.milliseconds(20_000), schedule.chance(0.5))
        };
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            server.run.note(client, format_args!("late commit, applies: {applies}"));
            match applies {
                true => server.commit(client, session).await,
                false => server.roll_back(client, session).await,
            }
        });
    }

    /// Returns the limit of a wait for a lock.
    fn lock_limit(&self) -> Duration {
        match self.purpose {
            Purpose::Flush => Duration::from_secs(5),
            Purpose::Collection | Purpose::Report => Duration::from_secs(30),
        }
    }

    /// Registers the deletion of all rows, and returns the rows.
    async fn delete_all_rows(&mut self) -> Result<Vec<DeletedRow>, Error> {
        let server = self.server.clone();
        let session = self.statement("delete rows", Fault::RowsBreakOff).await?;
        let mut rows: Vec<_> = session.transaction.delete_rows().try_collect().await?;
        if server.run.is(Mutation::RowsReadBeforeTheLock) {
            rows = std::mem::take(&mut session.rows_at_begin);
        }
        if server.run.is(Mutation::DeletesMoreThanItSums) && rows.len() > 2 {
            rows.pop();
        }
        if server.run.is(Mutation::DeletedOutsideTheTransaction) {
            server.database.tables().rows.clear();
        }
        Ok(rows)
    }
}

impl Server {
    async fn roll_back(&self, client: Client, session: Session) {
        if self.run.is(Mutation::RollbackApplies) {
            self.commit(client, session).await;
        }
    }

    /// Returns whether a mutation omits this lock.
    fn omits(&self, lock: Lock, mode: LockMode) -> bool {
        match lock {
            Lock::Cutover => mode == LockMode::Shared && self.run.is(Mutation::FlushNotLocked),
            Lock::Replica(_) => self.run.is(Mutation::LateCommitNotAwaited),
        }
    }
}

#[async_trait]
impl Transaction for SessionTransaction {
    async fn acquire(&mut self, lock: Lock, mode: LockMode) -> Result<(), Error> {
        let (server, client, limit) = (self.server.clone(), self.client, self.lock_limit());
        let action = match lock {
            Lock::Cutover => "lock cutover",
            Lock::Replica(_) => "lock replica",
        };
        let session = self.statement(action, Fault::LockTimesOut).await?;
        if server.omits(lock, mode) {
            return Ok(());
        }
        timeout(limit, session.transaction.acquire(lock, mode)).await.unwrap_or_else(|_| {
            session.failed = true;
            server.run.note(client, "the lock was not granted in time");
            Err(conflict(action))
        })
    }

    async fn read(&mut self, replica: Uuid) -> Result<StoredUsage, Error> {
        let stored = self.statement("read", Fault::ReadFails).await?.transaction.read(replica).await?;
        self.server.run.model().learned(replica);
        Ok(stored)
    }

    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<(), Error> {
        let session = self.statement("upsert", Fault::UpsertFails).await?;
        let result = session.transaction.upsert(replica, update).await;
        match result {
            Ok(()) => session.applied = Some(Applied::Flush(replica, update.clone())),
            Err(_) => session.failed = true,
        }
        result
    }

    async fn open_period(&mut self) -> Result<OpenPeriod, Error> {
        self.statement("open period", Fault::ReadFails).await?;
        Ok(self.server.open_period())
    }

    fn delete_rows(&mut self) -> BoxStream<'_, Result<DeletedRow, Error>> {
        let rows = async move {
            match self.delete_all_rows().await {
                Ok(rows) => rows.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        };
        Box::pin(stream::once(rows).flat_map(stream::iter))
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        let (server, client) = (self.server.clone(), self.client);
        let session = self.statement("insert period", Fault::PeriodFails).await?;
        let is_outside = server.run.is(Mutation::SummaryOutsideTheTransaction);
        let period_id = match is_outside {
            true => server.database.tables().next_period_id(),
            false => session.transaction.insert_period(summary).await?,
        };
        let summary = Summary { period_id, ..summary.clone() };
        if is_outside {
            server.database.tables().periods.push(summary.clone());
            server.report(client, &Applied::Period(summary));
        } else {
            session.applied = Some(Applied::Period(summary));
        }
        Ok(period_id)
    }

    async fn read_day(&mut self, date: NaiveDate) -> Result<Option<Day>, Error> {
        let server = self.server.clone();
        let session = self.statement("read day", Fault::PeriodFails).await?;
        match server.run.is(Mutation::DayReadBeforeTheLock) {
            true => Ok(session.days_at_begin.get(&date).cloned()),
            false => session.transaction.read_day(date).await,
        }
    }

    async fn write_day(&mut self, day: &Day) -> Result<(), Error> {
        let server = self.server.clone();
        let session = self.statement("write day", Fault::PeriodFails).await?;
        if server.run.is(Mutation::DayOutsideTheTransaction) {
            server.database.tables().days.insert(day.date, day.clone());
            return Ok(());
        }
        if server.run.is(Mutation::DayNotWritten) {
            return Ok(());
        }
        session.transaction.write_day(day).await
    }

    fn days(&mut self) -> BoxStream<'_, Result<Day, Error>> {
        Box::pin(stream::once(async { Err(failed("reading the history")) }))
    }

    fn periods(&mut self) -> BoxStream<'_, Result<PeriodStatus, Error>> {
        Box::pin(stream::once(async { Err(failed("reading the periods")) }))
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
        let session = self.session.take().expect("the statement needed the session");
        if session.failed {
            return Ok(());
        }
        if run.strikes(Fault::LateCommit, client) {
            self.commit_late(session);
            return Err(unknown());
        }
        let reply_lost = run.strikes(Fault::ReplyLost, client);
        self.server.commit(client, session).await;
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
            self.server.roll_back(self.client, session).await;
        }
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

fn conflict(action: &str) -> Error {
    Error::Conflict { message: format!("the simulation: {action}") }
}

fn unknown() -> Error {
    Error::CommitUnknown { source: "the simulation".into() }
}
