//! A transaction of PostgreSQL, with its statements and its time limits.

use std::mem;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Execute, Executor, Postgres};
use tokio::time::timeout;
use uuid::Uuid;

use super::{PooledPostgres, errors, literals, sql};
use crate::database::driver_errors::poisoned;
use crate::database::pool::timed_out;
use crate::database::rows::Cells;
use crate::database::{Lock, LockMode, PeriodStatus, PruneLimits, Pruned, Transaction, period_rows, rows};
use crate::error::Error;
use crate::records::{Day, DeletedRow, OpenPeriod, StoredUsage, Uniques, UniquesUpdate, Update};
use crate::summary::Summary;

/// The first statement of a transaction and its time limits.
pub(super) struct Limits {
    /// The statements that begin the transaction and set the server's limits.
    pub(super) begin: &'static str,
    /// The server's `lock_timeout`, for messages.
    pub(super) lock: &'static str,
    /// The longest wait for any reply. This limit exceeds the server's own limits and detects a server that is gone.
    pub(super) reply: Duration,
}

/// The limits of a flush.
pub(super) const FLUSH: Limits = Limits { begin: sql::BEGIN_FLUSH, lock: "5 s", reply: Duration::from_secs(15) };

/// The limits of a collection.
///
/// A collection waits for the lock longer than a hanging flush can hold it.
pub(super) const COLLECTION: Limits =
    Limits { begin: sql::BEGIN_COLLECTION, lock: "30 s", reply: Duration::from_secs(310) };

/// The limits of a transaction that only reads.
pub(super) const READ: Limits = Limits { begin: sql::BEGIN_READ, lock: "5 s", reply: Duration::from_secs(40) };

/// Returns a statement that leaves nothing prepared in the session.
///
/// A pooler may run the next transaction in another session, which would lack a prepared statement.
pub(super) fn query(sql: &'static str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(sql).persistent(false)
}

/// An open transaction and its connection.
pub(super) struct PostgresTransaction {
    pooled: PooledPostgres,
    limits: &'static Limits,
    /// Whether a statement failed or was abandoned before its reply. In that case the connection can only be closed.
    poisoned: bool,
}

impl PostgresTransaction {
    pub(super) fn new(pooled: PooledPostgres, limits: &'static Limits) -> Self {
        Self { pooled, limits, poisoned: false }
    }

    /// Runs a statement that returns at most one row.
    pub(super) async fn fetch<'q>(
        &mut self,
        action: &'static str,
        statement: impl Execute<'q, Postgres> + 'q,
    ) -> Result<Option<PgRow>, Error> {
        self.start()?;
        let row = self.reply(statement).await.map_err(|error| errors::classify(action, error))?;
        self.poisoned = false;
        Ok(row)
    }

    /// Runs a statement and reads each row as it arrives.
    pub(super) async fn fetch_all<T>(
        &mut self,
        action: &'static str,
        statement: Query<'static, Postgres, PgArguments>,
        mut read: impl FnMut(&PgRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        self.start()?;
        let rows = statement.fetch(&mut self.pooled.connection).map_err(|error| errors::classify(action, error));
        let rows = rows.and_then(|row| std::future::ready(errors::decoded(read(&row)))).try_collect();
        let rows = timeout(self.limits.reply, rows).await;
        let rows = rows.unwrap_or_else(|_| Err(errors::classify(action, timed_out(self.limits.reply))))?;
        self.poisoned = false;
        Ok(rows)
    }

    /// Runs a statement and returns its rows as a stream.
    fn stream<T: Send + 'static>(
        &mut self,
        action: &'static str,
        sql: &'static str,
        read: impl Fn(&PgRow) -> Result<T, sqlx::Error> + Send + 'static,
    ) -> BoxStream<'_, Result<T, Error>> {
        if let Err(error) = self.start() {
            return stream::once(async { Err(error) }).boxed();
        }
        let Self { pooled, limits, poisoned } = self;
        let limit = limits.reply;
        let rows = query(sql).fetch(&mut pooled.connection);
        // The statement is complete only if its stream has ended. A dropped stream leaves the transaction poisoned.
        let read = stream::unfold(Some((rows, poisoned, read)), move |state| async move {
            let (mut rows, poisoned, read) = state?;
            match timeout(limit, rows.next()).await.unwrap_or_else(|_| Some(Err(timed_out(limit)))) {
                Some(Ok(row)) => Some((errors::decoded(read(&row)), Some((rows, poisoned, read)))),
                Some(Err(error)) => Some((Err(errors::classify(action, error)), None)),
                None => {
                    *poisoned = false;
                    None
                }
            }
        });
        read.boxed()
    }

    fn start(&mut self) -> Result<(), Error> {
        if mem::replace(&mut self.poisoned, true) { Err(poisoned()) } else { Ok(()) }
    }

    async fn reply<'q>(&mut self, statement: impl Execute<'q, Postgres> + 'q) -> Result<Option<PgRow>, sqlx::Error> {
        let reply = timeout(self.limits.reply, self.pooled.connection.fetch_optional(statement)).await;
        reply.unwrap_or_else(|_| Err(timed_out(self.limits.reply)))
    }
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn acquire(&mut self, lock: Lock, mode: LockMode) -> Result<(), Error> {
        let statement = match (lock, mode) {
            (Lock::Cutover, LockMode::Shared) => sqlx::raw_sql(sql::ACQUIRE_SHARED_CUTOVER_LOCK),
            (Lock::Cutover, LockMode::Exclusive) => sqlx::raw_sql(sql::ACQUIRE_EXCLUSIVE_CUTOVER_LOCK),
            (Lock::Replica(replica), LockMode::Exclusive) => {
                literals::simple(sql::ACQUIRE_REPLICA_LOCK, &[literals::uuid(replica)])
            }
            (Lock::Replica(_), LockMode::Shared) => {
                return Err(Error::Refused { message: "a replica's lock is exclusive".to_owned() });
            }
        };
        self.start()?;
        self.reply(statement).await.map_err(|error| match errors::is_lock_timeout(&error) {
            true => lock_conflict(lock, mode, self.limits.lock),
            false => errors::classify("acquiring a lock", error),
        })?;
        self.poisoned = false;
        Ok(())
    }

    async fn read(&mut self, replica: Uuid) -> Result<StoredUsage, Error> {
        let statement = literals::simple(sql::READ_USAGE, &[literals::uuid(replica)]);
        let row = self.fetch("reading the stored usage", statement).await?;
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
        match self.fetch("writing usage", literals::simple(statement, &values)).await? {
            Some(_) => Ok(()),
            None => Err(rows::old_flush(replica, update.flush)),
        }
    }

    async fn open_period(&mut self) -> Result<OpenPeriod, Error> {
        let row = self.fetch("reading the open period", query(sql::READ_OPEN_PERIOD)).await?;
        errors::decoded(rows::open_period(&row.expect("the statement always returns a row")))
    }

    fn delete_rows(&mut self) -> BoxStream<'_, Result<DeletedRow, Error>> {
        self.stream("deleting the period's rows", sql::DELETE_ROWS, rows::deleted)
    }

    async fn add_client_drops(&mut self, replica: Uuid, logs: u64) -> Result<(), Error> {
        let statement = query(sql::ADD_CLIENT_DROPS).bind(replica).bind(rows::bigint(logs));
        self.fetch("recording dropped logs", statement).await.map(drop)
    }

    async fn delete_client_drops(&mut self) -> Result<u64, Error> {
        let statement = query(sql::DELETE_CLIENT_DROPS);
        let drops = self.fetch_all("deleting dropped logs", statement, |row| row.count("dropped_logs")).await?;
        Ok(period_rows::total(&drops))
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        let statement = query(sql::INSERT_PERIOD).bind(summary.period_start).bind(summary.end());
        let statement = period_rows::summary_numbers(summary).into_iter().fold(statement, Query::bind);
        let row = self.fetch("writing the period's summary", statement).await?;
        errors::decoded(period_rows::period_id(&row.expect("an insert returns its row")))
    }

    async fn read_day(&mut self, date: NaiveDate) -> Result<Option<Day>, Error> {
        let row = self.fetch("reading a day", query(sql::READ_DAY).bind(date)).await?;
        errors::decoded(row.as_ref().map(rows::day).transpose())
    }

    async fn write_day(&mut self, day: &Day) -> Result<(), Error> {
        let statement = query(sql::WRITE_DAY).bind(day.date).bind(rows::bigint(day.periods)).bind(day.spans_midnight);
        let statement = rows::day_numbers(day).into_iter().fold(statement, Query::bind);
        let Uniques { workspaces, users } = day.uniques.clone();
        self.fetch("writing a day", statement.bind(workspaces.bytes).bind(users.bytes)).await.map(drop)
    }

    async fn read_before(&mut self) -> Result<Option<Day>, Error> {
        let row = self.fetch("reading the pruned days", query(sql::READ_BEFORE)).await?;
        errors::decoded(row.as_ref().map(rows::day).transpose())
    }

    async fn write_before(&mut self, before: &Day) -> Result<(), Error> {
        let statement = query(sql::WRITE_BEFORE).bind(before.date).bind(rows::bigint(before.periods));
        let statement = rows::day_numbers(before).into_iter().fold(statement, Query::bind);
        let Uniques { workspaces, users } = before.uniques.clone();
        self.fetch("writing the pruned days", statement.bind(workspaces.bytes).bind(users.bytes)).await.map(drop)
    }

    async fn delete_days(&mut self, before: NaiveDate, limit: u32) -> Result<Vec<Day>, Error> {
        let statement = query(sql::DELETE_DAYS).bind(before).bind(i64::from(limit));
        self.fetch_all("deleting days", statement, rows::day).await
    }

    async fn delete_periods(
        &mut self,
        ended_before: DateTime<Utc>,
        undelivered: bool,
        limit: u32,
    ) -> Result<u64, Error> {
        let statement = query(sql::DELETE_PERIODS).bind(ended_before).bind(undelivered).bind(i64::from(limit));
        Ok(self.fetch_all("deleting periods", statement, period_rows::period_id).await?.len() as u64)
    }

    async fn delete_replicas(&mut self, idle_since: DateTime<Utc>, limit: u32) -> Result<u64, Error> {
        let statement = query(sql::DELETE_REPLICAS).bind(idle_since).bind(i64::from(limit));
        Ok(self.fetch_all("deleting replicas", statement, Cells::replica).await?.len() as u64)
    }

    async fn count_prunable(&mut self, limits: &PruneLimits) -> Result<Pruned, Error> {
        let statement = query(sql::COUNT_PRUNABLE).bind(limits.periods_ended_before).bind(limits.undelivered);
        let statement = statement.bind(limits.replicas_idle_since).bind(limits.days_before);
        let row = self.fetch("counting what to delete", statement).await?;
        errors::decoded(rows::prunable(&row.expect("an aggregate returns a row")))
    }

    fn days(&mut self) -> BoxStream<'_, Result<Day, Error>> {
        self.stream("reading the history", sql::READ_DAYS, rows::day)
    }

    fn periods(&mut self) -> BoxStream<'_, Result<PeriodStatus, Error>> {
        self.stream("reading the periods", sql::READ_ALL_PERIODS, period_rows::period_status)
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        // PostgreSQL reports success for the COMMIT of a failed transaction, although it rolls back.
        self.start()?;
        match timeout(self.limits.reply, self.pooled.connection.execute("COMMIT")).await {
            Ok(Ok(_)) => {
                self.pooled.release();
                Ok(())
            }
            Ok(Err(error)) => Err(errors::classify_commit(error)),
            Err(_) => Err(errors::classify_commit(timed_out(self.limits.reply))),
        }
    }

    async fn rollback(mut self: Box<Self>) {
        if self.start().is_ok() {
            let reply = timeout(self.limits.reply, self.pooled.connection.execute("ROLLBACK")).await;
            if matches!(reply, Ok(Ok(_))) {
                self.pooled.release();
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
            "a collection has held the cutover lock for more than {limit}; if this persists, find the session in \
             pg_locks (locktype advisory, objid 9)"
        ),
        (Lock::Cutover, LockMode::Exclusive) => format!(
            "flushes or another collection have held the cutover lock for more than {limit}; if this persists, find \
             the sessions in pg_locks (locktype advisory, objid 9)"
        ),
    };
    Error::Conflict { message }
}
