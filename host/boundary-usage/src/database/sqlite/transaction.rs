//! A transaction of SQLite, with its statements.

use std::mem;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::Executor;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use uuid::Uuid;

use super::files::{Files, Quiet};
use super::opening::PooledSqlite;
use super::{errors, sql};
use crate::database::driver_errors::poisoned;
use crate::database::rows::Cells;
use crate::database::{Lock, LockMode, PeriodStatus, PruneLimits, Pruned, Transaction, period_rows, rows};
use crate::error::Error;
use crate::records::{Day, DeletedRow, OpenPeriod, StoredUsage, Uniques, UniquesUpdate, Update};
use crate::summary::Summary;

/// An open transaction and its connection.
pub(super) struct SqliteTransaction {
    pooled: PooledSqlite,
    files: Arc<Files>,
    /// Whether a statement failed or was abandoned. In that case the connection can only be closed.
    poisoned: bool,
    /// The state of a file that is read without locks.
    pub(super) quiet: Option<Quiet>,
}

type Statement<'q> = Query<'q, sqlx::Sqlite, SqliteArguments>;

impl SqliteTransaction {
    pub(super) fn new(pooled: PooledSqlite, files: Arc<Files>) -> Self {
        Self { pooled, files, poisoned: false, quiet: None }
    }

    fn path(&self) -> &Path {
        self.files.shown()
    }

    /// Releases the connection after a commit, and checks that the file is still in place.
    ///
    /// If the file was replaced meanwhile, no other process sees the commit. The commit is therefore in doubt, and the
    /// next flush reads the file at the path to resolve it.
    fn committed(self) -> Result<(), Error> {
        let Self { pooled, files, .. } = self;
        let moved = pooled.metadata.database.and_then(|database| files.what_happened_to(database));
        pooled.release();
        match moved {
            None => Ok(()),
            Some(what) => Err(Error::CommitUnknown { source: format!("{what} while it was written").into() }),
        }
    }

    /// Runs a statement that returns at most one row.
    pub(super) async fn fetch(
        &mut self,
        action: &'static str,
        statement: Statement<'_>,
    ) -> Result<Option<SqliteRow>, Error> {
        self.start()?;
        let row = statement.fetch_optional(&mut self.pooled.connection).await;
        let row = row.map_err(|error| errors::classify(action, self.path(), error))?;
        self.poisoned = false;
        Ok(row)
    }

    /// Runs a statement and reads each row as it arrives.
    pub(super) async fn fetch_all<T>(
        &mut self,
        action: &'static str,
        statement: Statement<'_>,
        mut read: impl FnMut(&SqliteRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        self.start()?;
        let Self { pooled, files, .. } = self;
        let path = files.shown();
        let rows = statement.fetch(&mut pooled.connection).map_err(|error| errors::classify(action, path, error));
        let read = |row| std::future::ready(read(&row).map_err(|error| errors::classify("reading a row", path, error)));
        let rows = rows.and_then(read).try_collect().await?;
        self.poisoned = false;
        Ok(rows)
    }

    /// Runs a statement and returns its rows as a stream.
    fn stream<T: Send + 'static>(
        &mut self,
        action: &'static str,
        sql: &'static str,
        read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error> + Send + 'static,
    ) -> BoxStream<'_, Result<T, Error>> {
        if let Err(error) = self.start() {
            return stream::once(async { Err(error) }).boxed();
        }
        let Self { pooled, files, poisoned, quiet } = self;
        let (files, path) = (&**files, files.shown());
        let rows = sqlx::query(sql).fetch(&mut pooled.connection).map(move |row| {
            let row = row.map_err(|error| errors::classify(action, path, error))?;
            read(&row).map_err(|error| errors::classify("reading a row", path, error))
        });
        // Only a transaction whose stream has ended can be used again.
        let end = stream::once(async move {
            *poisoned = false;
            let is_disturbed = quiet.is_some() && files.quiet() != *quiet;
            is_disturbed.then(|| Err(errors::changed(path)))
        });
        rows.map(Some).chain(end).filter_map(std::future::ready).boxed()
    }

    /// Converts the error of a cell that cannot be read.
    pub(super) fn decoded<T>(&self, result: Result<T, sqlx::Error>) -> Result<T, Error> {
        result.map_err(|error| errors::classify("reading a row", self.path(), error))
    }

    fn start(&mut self) -> Result<(), Error> {
        if mem::replace(&mut self.poisoned, true) { Err(poisoned()) } else { Ok(()) }
    }

    async fn delete_row(&mut self) -> Result<Option<DeletedRow>, Error> {
        let row = self.fetch("deleting the period's rows", sqlx::query(sql::DELETE_NEXT_ROW)).await?;
        self.decoded(row.as_ref().map(rows::deleted).transpose())
    }
}

#[async_trait]
impl Transaction for SqliteTransaction {
    /// Does nothing, because SQLite's transaction has exclusive access from its start.
    async fn acquire(&mut self, _lock: Lock, _mode: LockMode) -> Result<(), Error> {
        if self.poisoned { Err(poisoned()) } else { Ok(()) }
    }

    async fn read(&mut self, replica: Uuid) -> Result<StoredUsage, Error> {
        let statement = sqlx::query(sql::READ_USAGE).bind(replica.hyphenated());
        let row = self.fetch("reading the stored usage", statement).await?;
        self.decoded(rows::stored(&row.expect("the statement always returns a row")))
    }

    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<(), Error> {
        let statement = match update.uniques {
            UniquesUpdate::Delta(_) => sql::INSERT_USAGE,
            UniquesUpdate::Cumulative(_) => sql::UPDATE_USAGE,
            UniquesUpdate::Unchanged => sql::UPDATE_REQUESTS,
        };
        let [flush, allowed, denied] = rows::update_numbers(update);
        let statement = sqlx::query(statement).bind(replica.hyphenated()).bind(flush).bind(allowed).bind(denied);
        let statement = match rows::sketches(update) {
            Some(Uniques { workspaces, users }) => statement
                .bind(rows::bigint(workspaces.count))
                .bind(rows::bigint(users.count))
                .bind(&workspaces.bytes[..])
                .bind(&users.bytes[..]),
            None => statement,
        };
        self.fetch("writing usage", statement).await?;
        let record = sqlx::query(sql::RECORD_FLUSH).bind(replica.hyphenated()).bind(flush);
        match self.fetch("recording the flush", record).await? {
            Some(_) => Ok(()),
            None => Err(rows::old_flush(replica, update.flush)),
        }
    }

    async fn open_period(&mut self) -> Result<OpenPeriod, Error> {
        let row = self.fetch("reading the open period", sqlx::query(sql::READ_OPEN_PERIOD)).await?;
        self.decoded(rows::open_period(&row.expect("the statement always returns a row")))
    }

    fn delete_rows(&mut self) -> BoxStream<'_, Result<DeletedRow, Error>> {
        let deleted = stream::unfold(Some(self), async |transaction| {
            let transaction = transaction?;
            match transaction.delete_row().await {
                Ok(row) => row.map(|row| (Ok(row), Some(transaction))),
                Err(error) => Some((Err(error), None)),
            }
        });
        deleted.boxed()
    }

    async fn add_client_drops(&mut self, replica: Uuid, logs: u64) -> Result<(), Error> {
        let statement = sqlx::query(sql::ADD_CLIENT_DROPS).bind(replica.hyphenated()).bind(rows::bigint(logs));
        self.fetch("recording dropped logs", statement).await.map(drop)
    }

    async fn delete_client_drops(&mut self) -> Result<u64, Error> {
        let statement = sqlx::query(sql::DELETE_CLIENT_DROPS);
        let drops = self.fetch_all("deleting dropped logs", statement, |row| row.count("dropped_logs")).await?;
        Ok(period_rows::total(&drops))
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        let (start, end) = (rows::rfc3339(summary.period_start), rows::rfc3339(summary.end()));
        let statement = sqlx::query(sql::INSERT_PERIOD).bind(start).bind(end);
        let statement = period_rows::summary_numbers(summary).into_iter().fold(statement, Query::bind);
        let row = self.fetch("writing the period's summary", statement).await?;
        self.decoded(period_rows::period_id(&row.expect("an insert returns its row")))
    }

    async fn read_day(&mut self, date: NaiveDate) -> Result<Option<Day>, Error> {
        let row = self.fetch("reading a day", sqlx::query(sql::READ_DAY).bind(date)).await?;
        self.decoded(row.as_ref().map(rows::day).transpose())
    }

    async fn write_day(&mut self, day: &Day) -> Result<(), Error> {
        let statement = sqlx::query(sql::WRITE_DAY).bind(day.date);
        let statement = statement.bind(rows::bigint(day.periods)).bind(day.spans_midnight);
        let statement = rows::day_numbers(day).into_iter().fold(statement, Query::bind);
        let statement = statement.bind(&day.uniques.workspaces.bytes[..]).bind(&day.uniques.users.bytes[..]);
        self.fetch("writing a day", statement).await.map(drop)
    }

    async fn read_before(&mut self) -> Result<Option<Day>, Error> {
        let row = self.fetch("reading the pruned days", sqlx::query(sql::READ_BEFORE)).await?;
        self.decoded(row.as_ref().map(rows::day).transpose())
    }

    async fn write_before(&mut self, before: &Day) -> Result<(), Error> {
        let statement = sqlx::query(sql::WRITE_BEFORE).bind(before.date).bind(rows::bigint(before.periods));
        let statement = rows::day_numbers(before).into_iter().fold(statement, Query::bind);
        let Uniques { workspaces, users } = &before.uniques;
        let statement = statement.bind(&workspaces.bytes[..]).bind(&users.bytes[..]);
        self.fetch("writing the pruned days", statement).await.map(drop)
    }

    async fn delete_days(&mut self, before: NaiveDate, limit: u32) -> Result<Vec<Day>, Error> {
        let statement = sqlx::query(sql::DELETE_DAYS).bind(before).bind(limit);
        self.fetch_all("deleting days", statement, rows::day).await
    }

    async fn delete_periods(
        &mut self,
        ended_before: DateTime<Utc>,
        undelivered: bool,
        limit: u32,
    ) -> Result<u64, Error> {
        let statement = sqlx::query(sql::DELETE_PERIODS).bind(rows::rfc3339(ended_before)).bind(undelivered);
        Ok(self.fetch_all("deleting periods", statement.bind(limit), period_rows::period_id).await?.len() as u64)
    }

    async fn delete_replicas(&mut self, idle_since: DateTime<Utc>, limit: u32) -> Result<u64, Error> {
        let statement = sqlx::query(sql::DELETE_REPLICAS).bind(rows::rfc3339(idle_since)).bind(limit);
        Ok(self.fetch_all("deleting replicas", statement, Cells::replica).await?.len() as u64)
    }

    async fn count_prunable(&mut self, limits: &PruneLimits) -> Result<Pruned, Error> {
        let statement = sqlx::query(sql::COUNT_PRUNABLE);
        let statement = statement.bind(limits.periods_ended_before.map(rows::rfc3339)).bind(limits.undelivered);
        let statement = statement.bind(limits.replicas_idle_since.map(rows::rfc3339)).bind(limits.days_before);
        let row = self.fetch("counting what to delete", statement).await?;
        self.decoded(rows::prunable(&row.expect("an aggregate returns a row")))
    }

    fn days(&mut self) -> BoxStream<'_, Result<Day, Error>> {
        self.stream("reading the history", sql::READ_DAYS, rows::day)
    }

    fn periods(&mut self) -> BoxStream<'_, Result<PeriodStatus, Error>> {
        self.stream("reading the periods", sql::READ_ALL_PERIODS, period_rows::period_status)
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        self.start()?;
        match self.pooled.connection.execute("COMMIT").await {
            Ok(_) => self.committed(),
            Err(error) => Err(errors::classify_commit(self.path(), error)),
        }
    }

    async fn rollback(mut self: Box<Self>) {
        if self.start().is_ok() && self.pooled.connection.execute("ROLLBACK").await.is_ok() {
            self.pooled.release();
        }
    }
}
