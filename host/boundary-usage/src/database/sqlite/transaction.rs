//! A transaction of SQLite, with its statements.

use std::mem;
use std::path::PathBuf;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Executor, SqliteConnection};
use uuid::Uuid;

use super::failure;
use crate::collection::{Summary, TakenRow};
use crate::database::connections::Lease;
use crate::database::failure::unfinished;
use crate::database::{Lock, LockMode, OpenPeriod, Stored, Transaction, Update, rows};
use crate::error::Error;

/// Answers no row when the flush is not newer than the last one.
const UPSERT_REPLICA: &str = "
    INSERT INTO boundary_usage_replicas AS r (replica_id, last_flush, flushed_at)
    VALUES ($1, $2, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))
    ON CONFLICT (replica_id) DO UPDATE SET last_flush = excluded.last_flush, flushed_at = excluded.flushed_at
        WHERE r.last_flush < excluded.last_flush
    RETURNING replica_id";

/// SQLite does not tell whether an upsert inserted; so the update comes first, and the insert if it found no row.
const UPDATE_STATS: &str = "
    UPDATE boundary_usage_stats SET
        unique_workspaces_count = $2,
        unique_users_count = $3,
        workspaces_sketch = $4,
        users_sketch = $5,
        allowed_requests = allowed_requests + min($6, 9223372036854775807 - allowed_requests),
        denied_requests = denied_requests + min($7, 9223372036854775807 - denied_requests),
        updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
    WHERE replica_id = $1
    RETURNING replica_id";

const INSERT_STATS: &str = "
    INSERT INTO boundary_usage_stats (
        replica_id, unique_workspaces_count, unique_users_count, workspaces_sketch, users_sketch,
        allowed_requests, denied_requests
    ) VALUES ($1, $2, $3, $4, $5, $6, $7)";

const OPEN_PERIOD: &str = "
    SELECT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') AS now, coalesce(
        (SELECT period_end FROM boundary_usage_periods ORDER BY period_id DESC LIMIT 1),
        (SELECT created_at FROM boundary_usage_deployment)
    ) AS period_start";

/// One row: SQLite gathers all that a statement returns before it hands out the first.
const TAKE_ROW: &str = "
    DELETE FROM boundary_usage_stats
    WHERE replica_id = (SELECT min(replica_id) FROM boundary_usage_stats)
    RETURNING *";

/// An open transaction, and the connection that it runs on.
pub(super) struct SqliteTransaction {
    lease: Lease<SqliteConnection>,
    path: PathBuf,
    /// A statement failed, or was abandoned: the connection can only be closed.
    unfinished: bool,
}

type Statement<'q> = Query<'q, sqlx::Sqlite, SqliteArguments>;

impl SqliteTransaction {
    pub(super) fn new(lease: Lease<SqliteConnection>, path: PathBuf) -> Self {
        Self { lease, path, unfinished: false }
    }

    /// Runs a statement that answers at most one row.
    pub(super) async fn fetch(
        &mut self,
        action: &'static str,
        statement: Statement<'_>,
    ) -> Result<Option<SqliteRow>, Error> {
        self.start()?;
        let row = statement.fetch_optional(&mut self.lease.connection).await;
        let row = row.map_err(|error| failure::of(action, &self.path, error))?;
        self.unfinished = false;
        Ok(row)
    }

    /// Runs a statement, and reads each row as it comes.
    pub(super) async fn fetch_all<T>(
        &mut self,
        action: &'static str,
        sql: &'static str,
        mut read: impl FnMut(&SqliteRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        self.start()?;
        let Self { lease, path, .. } = self;
        let rows = sqlx::query(sql).fetch(&mut lease.connection).map_err(|error| failure::of(action, path, error));
        let read = |row| std::future::ready(read(&row).map_err(|error| failure::of("reading a row", path, error)));
        let rows = rows.and_then(read).try_collect().await?;
        self.unfinished = false;
        Ok(rows)
    }

    /// A cell that cannot be read is refused.
    pub(super) fn decoded<T>(&self, result: Result<T, sqlx::Error>) -> Result<T, Error> {
        result.map_err(|error| failure::of("reading a row", &self.path, error))
    }

    fn start(&mut self) -> Result<(), Error> {
        if mem::replace(&mut self.unfinished, true) { Err(unfinished()) } else { Ok(()) }
    }

    async fn take_row(&mut self) -> Result<Option<TakenRow>, Error> {
        let row = self.fetch("deleting the period's rows", sqlx::query(TAKE_ROW)).await?;
        self.decoded(row.as_ref().map(rows::taken).transpose())
    }
}

#[async_trait]
impl Transaction for SqliteTransaction {
    /// The transaction holds everything since it began.
    async fn acquire(&mut self, _lock: Lock, _mode: LockMode) -> Result<(), Error> {
        if self.unfinished { Err(unfinished()) } else { Ok(()) }
    }

    async fn read(&mut self, replica: Uuid) -> Result<Stored, Error> {
        let statement = sqlx::query(rows::READ).bind(replica.hyphenated());
        let row = self.fetch("reading the stored usage", statement).await?;
        self.decoded(rows::stored(&row.expect("the statement always answers a row")))
    }

    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<bool, Error> {
        let action = "writing usage";
        let id = replica.hyphenated();
        let statement = sqlx::query(UPSERT_REPLICA).bind(id).bind(rows::bigint(update.flush));
        if self.fetch(action, statement).await?.is_none() {
            return Err(rows::old_flush(replica, update.flush));
        }
        let write = |sql, uniques| bind_usage(sqlx::query(sql).bind(id), update, uniques);
        if self.fetch(action, write(UPDATE_STATS, &update.cumulative)).await?.is_some() {
            return Ok(false);
        }
        self.fetch(action, write(INSERT_STATS, &update.delta)).await?;
        Ok(true)
    }

    async fn open_period(&mut self) -> Result<OpenPeriod, Error> {
        let row = self.fetch("reading the open period", sqlx::query(OPEN_PERIOD)).await?;
        self.decoded(rows::open_period(&row.expect("the statement always answers a row")))
    }

    fn take_rows(&mut self) -> BoxStream<'_, Result<TakenRow, Error>> {
        let taken = stream::unfold(Some(self), async |transaction| {
            let transaction = transaction?;
            match transaction.take_row().await {
                Ok(row) => row.map(|row| (Ok(row), Some(transaction))),
                Err(error) => Some((Err(error), None)),
            }
        });
        taken.boxed()
    }

    async fn insert_period(&mut self, summary: &Summary) -> Result<i64, Error> {
        let (start, end) = (rows::rfc3339(summary.period_start), rows::rfc3339(rows::period_end(summary)));
        let statement = sqlx::query(rows::INSERT_PERIOD).bind(start).bind(end);
        let statement = rows::summary_numbers(summary).into_iter().fold(statement, Query::bind);
        let row = self.fetch("writing the period's summary", statement).await?;
        self.decoded(rows::period_id(&row.expect("an insert returns its row")))
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Error> {
        self.start()?;
        match self.lease.connection.execute("COMMIT").await {
            Ok(_) => {
                self.lease.give_back();
                Ok(())
            }
            Err(error) => Err(failure::of_commit(&self.path, error)),
        }
    }

    async fn rollback(mut self: Box<Self>) {
        if self.start().is_ok() && self.lease.connection.execute("ROLLBACK").await.is_ok() {
            self.lease.give_back();
        }
    }
}

fn bind_usage<'q>(statement: Statement<'q>, update: &Update, uniques: &'q crate::database::Uniques) -> Statement<'q> {
    let (workspaces, users) = (&uniques.workspaces, &uniques.users);
    let statement = statement.bind(rows::bigint(workspaces.count)).bind(rows::bigint(users.count));
    let statement = statement.bind(&workspaces.sketch[..]).bind(&users.sketch[..]);
    statement.bind(rows::bigint(update.allowed)).bind(rows::bigint(update.denied))
}
