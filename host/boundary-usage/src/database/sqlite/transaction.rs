//! A transaction of SQLite, with its statements.

use std::mem;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::Executor;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use uuid::Uuid;

use super::failure;
use super::files::Files;
use super::opening::SqliteLease;
use crate::collection::{Summary, TakenRow};
use crate::database::failure::unfinished;
use crate::database::{Lock, LockMode, OpenPeriod, Stored, Transaction, UniquesUpdate, Update, rows};
use crate::error::Error;

/// The statements that write a flush.
struct Write {
    alone: &'static str,
    and_commit: &'static str,
}

/// Writes the row, and then, if that has changed one, records the flush; answers a row if it has. So a flush that is not newer
/// than the last one, or finds a row where there should be none, or none where there should be one, writes nothing.
macro_rules! write_statements {
    ($($stats:literal),+) => {
        write_statements!(@ [$($stats,)+
            "; INSERT INTO boundary_usage_replicas (replica_id, last_flush, flushed_at)
            SELECT $1, $2, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE changes() > 0
            ON CONFLICT (replica_id) DO UPDATE SET last_flush = excluded.last_flush, flushed_at = excluded.flushed_at
            RETURNING replica_id"
        ])
    };
    (@ [$($part:literal),+]) => {
        Write { alone: concat!($($part),+), and_commit: concat!($($part,)+ "; COMMIT") }
    };
}

macro_rules! update_statements {
    ($sets:literal) => {
        write_statements!(
            "UPDATE boundary_usage_stats SET
        allowed_requests = allowed_requests + min($3, 9223372036854775807 - allowed_requests),
        denied_requests = denied_requests + min($4, 9223372036854775807 - denied_requests),",
            $sets,
            "
        updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
    WHERE replica_id = $1 AND (SELECT last_flush FROM boundary_usage_replicas WHERE replica_id = $1) < $2"
        )
    };
}

const INSERT: Write = write_statements!(
    "INSERT INTO boundary_usage_stats (
        replica_id, allowed_requests, denied_requests, unique_workspaces_count, unique_users_count,
        workspaces_sketch, users_sketch
    )
    SELECT $1, $3, $4, $5, $6, $7, $8
    WHERE NOT EXISTS (SELECT 1 FROM boundary_usage_replicas WHERE replica_id = $1 AND last_flush >= $2)
    ON CONFLICT (replica_id) DO NOTHING"
);

const UPDATE: Write = update_statements!(
    "
        unique_workspaces_count = $5,
        unique_users_count = $6,
        workspaces_sketch = $7,
        users_sketch = $8,"
);

const UPDATE_REQUESTS: Write = update_statements!("");

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
    lease: SqliteLease,
    files: Arc<Files>,
    /// A statement failed, or was abandoned: the connection can only be closed.
    unfinished: bool,
}

type Statement<'q> = Query<'q, sqlx::Sqlite, SqliteArguments>;

impl SqliteTransaction {
    pub(super) fn new(lease: SqliteLease, files: Arc<Files>) -> Self {
        Self { lease, files, unfinished: false }
    }

    fn path(&self) -> &Path {
        self.files.shown()
    }

    /// Ends a transaction that was committed. If the file was replaced meanwhile, the commit is in one that no other
    /// process sees: whether it counts is to be looked up in the file that is at the path.
    fn committed(self) -> Result<(), Error> {
        let Self { lease, files, .. } = self;
        let moved = lease.notes.database.and_then(|database| files.what_happened_to(database));
        lease.give_back();
        match moved {
            None => Ok(()),
            Some(what) => Err(Error::CommitUnknown { source: format!("{what} while it was written").into() }),
        }
    }

    /// Runs a statement that answers at most one row.
    pub(super) async fn fetch(
        &mut self,
        action: &'static str,
        statement: Statement<'_>,
    ) -> Result<Option<SqliteRow>, Error> {
        self.start()?;
        let row = statement.fetch_optional(&mut self.lease.connection).await;
        let row = row.map_err(|error| failure::of(action, self.path(), error))?;
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
        let Self { lease, files, .. } = self;
        let path = files.shown();
        let rows = sqlx::query(sql).fetch(&mut lease.connection).map_err(|error| failure::of(action, path, error));
        let read = |row| std::future::ready(read(&row).map_err(|error| failure::of("reading a row", path, error)));
        let rows = rows.and_then(read).try_collect().await?;
        self.unfinished = false;
        Ok(rows)
    }

    /// A cell that cannot be read is refused.
    pub(super) fn decoded<T>(&self, result: Result<T, sqlx::Error>) -> Result<T, Error> {
        result.map_err(|error| failure::of("reading a row", self.path(), error))
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

    async fn upsert(&mut self, replica: Uuid, update: &Update) -> Result<(), Error> {
        let statement = bind(write_of(update).alone, replica, update);
        match self.fetch("writing usage", statement).await? {
            Some(_) => Ok(()),
            None => Err(rows::old_flush(replica, update.flush)),
        }
    }

    /// In one go: for each, the driver's thread would have to be waited for once more.
    async fn upsert_and_commit(mut self: Box<Self>, replica: Uuid, update: &Update) -> Result<(), Error> {
        self.start()?;
        let statement = bind(write_of(update).and_commit, replica, update);
        match statement.fetch_all(&mut self.lease.connection).await {
            Ok(written) => {
                self.committed()?;
                if written.is_empty() { Err(rows::old_flush(replica, update.flush)) } else { Ok(()) }
            }
            Err(error) => Err(failure::of_commit(self.path(), error)),
        }
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
            Ok(_) => self.committed(),
            Err(error) => Err(failure::of_commit(self.path(), error)),
        }
    }

    async fn rollback(mut self: Box<Self>) {
        if self.start().is_ok() && self.lease.connection.execute("ROLLBACK").await.is_ok() {
            self.lease.give_back();
        }
    }
}

fn write_of(update: &Update) -> Write {
    match update.uniques {
        UniquesUpdate::Delta(_) => INSERT,
        UniquesUpdate::Cumulative(_) => UPDATE,
        UniquesUpdate::Unchanged => UPDATE_REQUESTS,
    }
}

fn bind<'q>(statement: &'static str, replica: Uuid, update: &'q Update) -> Statement<'q> {
    rows::bind_update(sqlx::query(statement).bind(replica.hyphenated()), update)
}
