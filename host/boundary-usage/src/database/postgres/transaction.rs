//! A transaction of PostgreSQL, with its statements and its time limits.

use std::mem;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor, Postgres};
use tokio::time::timeout;
use uuid::Uuid;

use super::{PostgresLease, errors, literals, sql};
use crate::database::driver_errors::poisoned;
use crate::database::pool::timed_out;
use crate::database::{Lock, LockMode, Transaction, rows};
use crate::error::Error;
use crate::records::{DeletedRow, OpenPeriod, StoredUsage, Uniques, UniquesUpdate, Update};
use crate::summary::Summary;

/// How a transaction begins, and its time limits.
pub(super) struct Limits {
    /// Begins it and sets the server's limits. Contains the variable `schema`.
    pub(super) begin: &'static str,
    /// The server's `lock_timeout`, for messages.
    pub(super) lock: &'static str,
    /// The wait for any reply. It is longer than the server's own limits and serves when the server is gone.
    pub(super) reply: Duration,
}

/// A replica's flush.
pub(super) const FLUSH: Limits = Limits { begin: sql::BEGIN_FLUSH, lock: "5 s", reply: Duration::from_secs(15) };

/// A collection. It waits longer for the lock than a flush that hangs can hold it.
pub(super) const COLLECTION: Limits =
    Limits { begin: sql::BEGIN_COLLECTION, lock: "30 s", reply: Duration::from_secs(310) };

/// Several reads of one state of the database.
pub(super) const READ: Limits = Limits { begin: sql::BEGIN_READ, lock: "5 s", reply: Duration::from_secs(40) };

/// Returns a statement that is not prepared in the session, because a pooler may lend another session to the next
/// transaction.
pub(super) fn query(sql: &'static str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(sql).persistent(false)
}

/// An open transaction, and the connection that it runs on.
pub(super) struct PostgresTransaction {
    lease: PostgresLease,
    limits: &'static Limits,
    /// A statement failed, or was sent and its reply not waited for: the connection can only be closed.
    poisoned: bool,
}

impl PostgresTransaction {
    pub(super) fn new(lease: PostgresLease, limits: &'static Limits) -> Self {
        Self { lease, limits, poisoned: false }
    }

    /// Runs a statement that answers at most one row.
    pub(super) async fn fetch(
        &mut self,
        action: &'static str,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Option<PgRow>, Error> {
        self.start()?;
        let row = self.reply(statement).await.map_err(|error| errors::classify(action, error))?;
        self.poisoned = false;
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
        let rows = query(sql).fetch(&mut self.lease.connection).map_err(|error| errors::classify(action, error));
        let rows = rows.and_then(|row| std::future::ready(errors::decoded(read(&row)))).try_collect();
        let rows = timeout(self.limits.reply, rows).await;
        let rows = rows.unwrap_or_else(|_| Err(errors::classify(action, timed_out(self.limits.reply))))?;
        self.poisoned = false;
        Ok(rows)
    }

    fn start(&mut self) -> Result<(), Error> {
        if mem::replace(&mut self.poisoned, true) { Err(poisoned()) } else { Ok(()) }
    }

    /// Runs a statement of the simple query protocol, which takes one round trip, and returns its first row.
    async fn fetch_simple(&mut self, action: &'static str, statement: String) -> Result<Option<PgRow>, Error> {
        self.start()?;
        let row = self.simple_reply(statement).await.map_err(|error| errors::classify(action, error))?;
        self.poisoned = false;
        Ok(row)
    }

    async fn simple_reply(&mut self, statement: String) -> Result<Option<PgRow>, sqlx::Error> {
        // Its only values are literals of our own.
        let statement = sqlx::raw_sql(AssertSqlSafe(statement));
        let reply = timeout(self.limits.reply, statement.fetch_optional(&mut self.lease.connection)).await;
        reply.unwrap_or_else(|_| Err(timed_out(self.limits.reply)))
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
            (Lock::Cutover, LockMode::Shared) => sql::ACQUIRE_SHARED_CUTOVER_LOCK.to_owned(),
            (Lock::Cutover, LockMode::Exclusive) => sql::ACQUIRE_EXCLUSIVE_CUTOVER_LOCK.to_owned(),
            (Lock::Replica(replica), LockMode::Exclusive) => {
                literals::bind(sql::ACQUIRE_REPLICA_LOCK, &[literals::uuid(replica)])
            }
            (Lock::Replica(_), LockMode::Shared) => {
                return Err(Error::Refused { message: "a replica's lock is exclusive".to_owned() });
            }
        };
        self.start()?;
        self.simple_reply(statement).await.map_err(|error| match errors::is_lock_timeout(&error) {
            true => lock_conflict(lock, mode, self.limits.lock),
            false => errors::classify("acquiring a lock", error),
        })?;
        self.poisoned = false;
        Ok(())
    }

    async fn read(&mut self, replica: Uuid) -> Result<StoredUsage, Error> {
        let statement = literals::bind(sql::READ_USAGE, &[literals::uuid(replica)]);
        let row = self.fetch_simple("reading the stored usage", statement).await?;
        errors::decoded(rows::stored(&row.expect("the statement always returns a row")))
    }

    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<(), Error> {
        let statement = match update.uniques {
            UniquesUpdate::Delta(_) => sql::INSERT_USAGE,
            UniquesUpdate::Cumulative(_) => sql::UPDATE_USAGE,
            UniquesUpdate::Unchanged => sql::UPDATE_REQUESTS,
        };
        let mut values = vec![literals::uuid(replica)];
        values.extend(rows::update_numbers(update).map(|number| number.to_string()));
        if let Some(Uniques { workspaces, users }) = rows::sketches(update) {
            values.extend([workspaces, users].map(|sketch| rows::bigint(sketch.count).to_string()));
            values.extend([workspaces, users].map(|sketch| literals::bytes(&sketch.bytes)));
        }
        match self.fetch_simple("writing usage", literals::bind(statement, &values)).await? {
            Some(_) => Ok(()),
            None => Err(rows::old_flush(replica, update.flush)),
        }
    }

    async fn open_period(&mut self) -> Result<OpenPeriod, Error> {
        let row = self.fetch("reading the open period", query(sql::READ_OPEN_PERIOD)).await?;
        errors::decoded(rows::open_period(&row.expect("the statement always answers a row")))
    }

    fn delete_rows(&mut self) -> BoxStream<'_, Result<DeletedRow, Error>> {
        if let Err(error) = self.start() {
            return stream::once(async { Err(error) }).boxed();
        }
        let Self { lease, limits, poisoned } = self;
        let rows = query(sql::DELETE_ROWS).fetch(&mut lease.connection);
        // The statement is finished when its stream has ended, and not when that is dropped before.
        let taken = stream::unfold(Some((rows, poisoned)), async |state| {
            let (mut rows, poisoned) = state?;
            match timeout(limits.reply, rows.next()).await.unwrap_or_else(|_| Some(Err(timed_out(limits.reply)))) {
                Some(Ok(row)) => Some((errors::decoded(rows::deleted(&row)), Some((rows, poisoned)))),
                Some(Err(error)) => Some((Err(errors::classify("deleting the period's rows", error)), None)),
                None => {
                    *poisoned = false;
                    None
                }
            }
        });
        taken.boxed()
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        let statement = query(sql::INSERT_PERIOD).bind(summary.period_start).bind(rows::period_end(summary));
        let statement = rows::summary_numbers(summary).into_iter().fold(statement, Query::bind);
        let row = self.fetch("writing the period's summary", statement).await?;
        errors::decoded(rows::period_id(&row.expect("an insert returns its row")))
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        // PostgreSQL answers COMMIT of a failed transaction with success, and rolls it back.
        self.start()?;
        match timeout(self.limits.reply, self.lease.connection.execute("COMMIT")).await {
            Ok(Ok(_)) => {
                self.lease.give_back();
                Ok(())
            }
            Ok(Err(error)) => Err(errors::classify_commit(error)),
            Err(_) => Err(errors::classify_commit(timed_out(self.limits.reply))),
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

fn lock_conflict(lock: Lock, mode: LockMode, limit: &str) -> Error {
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
