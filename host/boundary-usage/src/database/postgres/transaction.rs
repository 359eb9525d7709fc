//! A transaction of PostgreSQL, with its statements and its time limits.

use std::mem;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Executor, Postgres};
use tokio::time::timeout;
use uuid::Uuid;

use super::{PostgresLease, failure, write};
use crate::collection::{Summary, TakenRow};
use crate::database::connections::timed_out;
use crate::database::failure::unfinished;
use crate::database::{
    Lock, LockMode, OpenPeriod, Stored, Transaction, UniquesUpdate, Update, rows, upsert_then_commit,
};
use crate::error::Error;

/// How a transaction begins, and what it may take.
pub(super) struct Limits {
    /// Begins it and sets the server's limits. Further settings of the transaction follow in the same round trip.
    pub(super) begin: &'static str,
    /// What the server's `lock_timeout` is, for messages.
    pub(super) lock: &'static str,
    /// How long to wait for any reply: longer than the server's own limits, for when there is no server any more.
    pub(super) reply: Duration,
}

/// A replica's flush.
pub(super) const FLUSH: Limits = Limits {
    begin: "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '5s'; \
            SET LOCAL statement_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '15s'",
    lock: "5 s",
    reply: Duration::from_secs(15),
};

/// A collection. It waits longer for the lock than a flush that hangs can hold it.
pub(super) const COLLECTION: Limits = Limits {
    begin: "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '30s'; \
            SET LOCAL statement_timeout = '300s'; SET LOCAL idle_in_transaction_session_timeout = '60s'",
    lock: "30 s",
    reply: Duration::from_secs(310),
};

/// Several reads of one state of the database.
pub(super) const READ: Limits = Limits {
    begin: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '5s'; \
            SET LOCAL statement_timeout = '30s'; SET LOCAL idle_in_transaction_session_timeout = '15s'",
    lock: "5 s",
    reply: Duration::from_secs(40),
};

/// In milliseconds, as a period's length is given: so that one period ends exactly where the next one starts.
const OPEN_PERIOD: &str = "
    SELECT date_trunc('milliseconds', statement_timestamp()) AS now, coalesce(
        (SELECT period_end FROM boundary_usage_periods ORDER BY period_id DESC LIMIT 1),
        (SELECT created_at FROM boundary_usage_deployment)
    ) AS period_start";

const TAKE_ROWS: &str = "DELETE FROM boundary_usage_stats RETURNING *";

/// An open transaction, and the connection that it runs on.
pub(super) struct PostgresTransaction {
    lease: PostgresLease,
    limits: &'static Limits,
    /// A statement failed, or was sent and its reply not waited for: the connection can only be closed.
    unfinished: bool,
}

impl PostgresTransaction {
    pub(super) fn new(lease: PostgresLease, limits: &'static Limits) -> Self {
        Self { lease, limits, unfinished: false }
    }

    /// Runs a statement that answers at most one row.
    pub(super) async fn fetch(
        &mut self,
        action: &'static str,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Option<PgRow>, Error> {
        self.start()?;
        let row = self.reply(statement).await.map_err(|error| failure::of(action, error))?;
        self.unfinished = false;
        Ok(row)
    }

    /// Runs a statement, and reads each row as it comes.
    pub(super) async fn fetch_all<T>(
        &mut self,
        action: &'static str,
        sql: &'static str,
        mut read: impl FnMut(&PgRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        self.start()?;
        let rows = sqlx::query(sql).fetch(&mut self.lease.connection).map_err(|error| failure::of(action, error));
        let rows = rows.and_then(|row| std::future::ready(failure::decoded(read(&row)))).try_collect();
        let rows = timeout(self.limits.reply, rows).await;
        let rows = rows.unwrap_or_else(|_| Err(failure::of(action, timed_out(self.limits.reply))))?;
        self.unfinished = false;
        Ok(rows)
    }

    fn start(&mut self) -> Result<(), Error> {
        if mem::replace(&mut self.unfinished, true) { Err(unfinished()) } else { Ok(()) }
    }

    async fn reply(&mut self, statement: Query<'_, Postgres, PgArguments>) -> Result<Option<PgRow>, sqlx::Error> {
        let reply = timeout(self.limits.reply, statement.fetch_optional(&mut self.lease.connection)).await;
        reply.unwrap_or_else(|_| Err(timed_out(self.limits.reply)))
    }
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn acquire(&mut self, lock: Lock, mode: LockMode) -> Result<(), Error> {
        let statement = match (lock, mode) {
            (Lock::Cutover, LockMode::Shared) => sqlx::query("SELECT pg_advisory_xact_lock_shared(9)"),
            (Lock::Cutover, LockMode::Exclusive) => sqlx::query("SELECT pg_advisory_xact_lock(9)"),
            (Lock::Replica(replica), LockMode::Shared) => {
                sqlx::query("SELECT pg_advisory_xact_lock_shared(9, $1)").bind(lock_key(replica))
            }
            (Lock::Replica(replica), LockMode::Exclusive) => {
                sqlx::query("SELECT pg_advisory_xact_lock(9, $1)").bind(lock_key(replica))
            }
        };
        self.start()?;
        self.reply(statement).await.map_err(|error| match failure::is_lock_timeout(&error) {
            true => lock_conflict(lock, mode, self.limits.lock),
            false => failure::of("taking a lock", error),
        })?;
        self.unfinished = false;
        Ok(())
    }

    async fn read(&mut self, replica: Uuid) -> Result<Stored, Error> {
        let row = self.fetch("reading the stored usage", sqlx::query(rows::READ).bind(replica)).await?;
        failure::decoded(rows::stored(&row.expect("the statement always answers a row")))
    }

    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<(), Error> {
        match self.fetch("writing usage", write::statement(replica, update)).await? {
            Some(_) => Ok(()),
            None => Err(rows::old_flush(replica, update.flush)),
        }
    }

    /// In one round trip when the unique sets are unchanged. Sketches would have to be sent as text for that, twice as long.
    async fn upsert_and_commit(mut self: Box<Self>, replica: Uuid, update: &Update) -> Result<(), Error> {
        if !self.lease.notes.has_prepared_flushes || update.uniques != UniquesUpdate::Unchanged {
            return upsert_then_commit(self, replica, update).await;
        }
        self.start()?;
        let written = sqlx::raw_sql(write::requests_and_commit(replica, update)).fetch_all(&mut self.lease.connection);
        match timeout(self.limits.reply, written).await.unwrap_or_else(|_| Err(timed_out(self.limits.reply))) {
            Ok(written) => {
                self.lease.give_back();
                if written.is_empty() { Err(rows::old_flush(replica, update.flush)) } else { Ok(()) }
            }
            Err(error) => Err(failure::of_commit(error)),
        }
    }

    async fn open_period(&mut self) -> Result<OpenPeriod, Error> {
        let row = self.fetch("reading the open period", sqlx::query(OPEN_PERIOD)).await?;
        failure::decoded(rows::open_period(&row.expect("the statement always answers a row")))
    }

    fn take_rows(&mut self) -> BoxStream<'_, Result<TakenRow, Error>> {
        if let Err(error) = self.start() {
            return stream::once(async { Err(error) }).boxed();
        }
        let Self { lease, limits, unfinished } = self;
        let rows = sqlx::query(TAKE_ROWS).fetch(&mut lease.connection);
        // The statement is finished when its stream has ended, and not when that is dropped before.
        let taken = stream::unfold(Some((rows, unfinished)), async |state| {
            let (mut rows, unfinished) = state?;
            match timeout(limits.reply, rows.next()).await.unwrap_or_else(|_| Some(Err(timed_out(limits.reply)))) {
                Some(Ok(row)) => Some((failure::decoded(rows::taken(&row)), Some((rows, unfinished)))),
                Some(Err(error)) => Some((Err(failure::of("deleting the period's rows", error)), None)),
                None => {
                    *unfinished = false;
                    None
                }
            }
        });
        taken.boxed()
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        let statement = sqlx::query(rows::INSERT_PERIOD).bind(summary.period_start).bind(rows::period_end(summary));
        let statement = rows::summary_numbers(summary).into_iter().fold(statement, Query::bind);
        let row = self.fetch("writing the period's summary", statement).await?;
        failure::decoded(rows::period_id(&row.expect("an insert returns its row")))
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        // PostgreSQL answers COMMIT of a failed transaction with success, and rolls it back.
        self.start()?;
        match timeout(self.limits.reply, self.lease.connection.execute("COMMIT")).await {
            Ok(Ok(_)) => {
                self.lease.give_back();
                Ok(())
            }
            Ok(Err(error)) => Err(failure::of_commit(error)),
            Err(_) => Err(failure::of_commit(timed_out(self.limits.reply))),
        }
    }

    async fn rollback(mut self: Box<Self>) {
        if self.start().is_ok() {
            let reply = timeout(self.limits.reply, self.lease.connection.execute("ROLLBACK")).await;
            if matches!(reply, Ok(Ok(_))) {
                self.lease.give_back();
            }
        }
    }
}

/// A replica's lock has two integers for a key, 9 and this. Two replicas may share one by chance: they then wait for
/// each other now and then, which is harmless.
pub(super) fn lock_key(replica: Uuid) -> i32 {
    let (words, _) = replica.as_bytes().as_chunks::<4>();
    words.iter().fold(0, |key, word| key ^ i32::from_be_bytes(*word))
}

pub(super) fn lock_conflict(lock: Lock, mode: LockMode, limit: &str) -> Error {
    let message = match (lock, mode) {
        (Lock::Replica(replica), _) => format!(
            "another flush of replica {replica} has not ended within {limit}; make sure that no second process runs \
             under this id"
        ),
        (Lock::Cutover, LockMode::Shared) => format!(
            "a collection has held the cutover lock for more than {limit}; if that does not pass, look for it in \
             pg_locks (locktype advisory, objid 9)"
        ),
        (Lock::Cutover, LockMode::Exclusive) => format!(
            "flushes or another collection have held the cutover lock for more than {limit}; if that does not pass, \
             look for them in pg_locks (locktype advisory, objid 9)"
        ),
    };
    Error::Conflict { message }
}
