//! SQLite: the embedded default, one file that several processes of one machine can share.
//!
//! A transaction that writes is `BEGIN IMMEDIATE`: SQLite has one writer at a time, so it holds from its first moment
//! what both locks would give it, and never has to be upgraded from a reader, which could fail half way. The wait for
//! it is limited. The write-ahead log lets readers read meanwhile; `synchronous = FULL` makes a commit survive a power
//! failure.

mod deliveries;
mod failure;
mod files;
mod opening;
mod schema;
mod transaction;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Executor};
use uuid::Uuid;

use self::opening::Opener;
use self::transaction::SqliteTransaction;
use super::schema::WhenMissing;
use super::{
    Ages, Backend, DatabaseStatus, Delivery, DeliveryClaim, HashingKey, Purpose, Stored, Transaction, rows, url,
};
use crate::database::rows::OpenRows;
use crate::error::Error;

const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";

/// A reader: sees one state of the database, and waits for nobody.
const BEGIN_READ: &str = "BEGIN DEFERRED";

/// How often a file is read that a process opens and closes meanwhile.
const QUIET_READS: usize = 3;

/// A SQLite database.
pub(super) struct Sqlite {
    opener: Opener,
}

impl Sqlite {
    /// Opens the file or creates it, and brings the schema up to date; or opens it as it is, to read only.
    pub(super) async fn connect(url: &str, when_missing: WhenMissing) -> Result<Self, Error> {
        let opener = Opener::new(url::sqlite(url)?, when_missing);
        opener.connection().await?.give_back();
        Ok(Self { opener })
    }

    async fn open(&self, begin: &'static str) -> Result<SqliteTransaction, Error> {
        let mut lease = self.opener.connection().await?;
        let begun = lease.connection.execute(begin).await;
        begun.map_err(|error| failure::of("opening a transaction", self.opener.files.shown(), error))?;
        Ok(SqliteTransaction::new(lease, self.opener.files.clone()))
    }

    async fn read_status(&self) -> Result<DatabaseStatus, Error> {
        let mut transaction = self.open(BEGIN_READ).await?;
        let open = transaction.open_period().await?;
        let mut open_rows = OpenRows::new(open);
        let rows = transaction.fetch_all("reading the rows", rows::SELECT_ROWS, |row| open_rows.add(row)).await?;
        let replicas =
            transaction.fetch_all("reading the replicas", rows::SELECT_REPLICAS, rows::replica_status).await?;
        let periods = transaction.fetch_all("reading the periods", rows::SELECT_PERIODS, rows::period_status).await?;
        Box::new(transaction).rollback().await;
        Ok(open_rows.status(rows, replicas, periods))
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn hashing_key(&self) -> Result<HashingKey, Error> {
        let mut transaction = self.open(BEGIN_READ).await?;
        let row = transaction.fetch("reading the hashing key", sqlx::query(rows::SELECT_KEY)).await?;
        let key = transaction.decoded(row.as_ref().map(rows::key).transpose())?;
        Box::new(transaction).rollback().await;
        super::schema::hashing_key(key.as_deref())
    }

    async fn begin(&self, _purpose: Purpose) -> Result<Box<dyn Transaction>, Error> {
        Ok(Box::new(self.open(BEGIN_WRITE).await?))
    }

    /// In one go: for each, the driver's thread would have to be waited for once more.
    async fn begin_flush(&self, replica: Uuid) -> Result<(Box<dyn Transaction>, Stored), Error> {
        let mut lease = self.opener.connection().await?;
        let sql = AssertSqlSafe(format!("{BEGIN_WRITE}; {}", rows::READ));
        let begin = sqlx::query(sql).bind(replica.hyphenated()).fetch_one(&mut lease.connection);
        let row =
            begin.await.map_err(|error| failure::of("opening a transaction", self.opener.files.shown(), error))?;
        let transaction = SqliteTransaction::new(lease, self.opener.files.clone());
        let stored = transaction.decoded(rows::stored(&row))?;
        Ok((Box::new(transaction), stored))
    }

    async fn status(&self) -> Result<DatabaseStatus, Error> {
        let mut reads = 1;
        loop {
            let quiet = self.opener.files.quiet();
            let status = self.read_status().await;
            // A file that no process had open is read without locks. If one has opened it since, it may have changed
            // in between.
            let is_certain = !self.opener.reads_only() || quiet.is_none() || quiet == self.opener.files.quiet();
            if is_certain || reads == QUIET_READS {
                return status;
            }
            reads += 1;
        }
    }

    async fn ages(&self) -> Result<Ages, Error> {
        let mut transaction = self.open(BEGIN_READ).await?;
        let row = transaction.fetch("reading the ages", sqlx::query(AGES)).await?;
        let ages = transaction.decoded(rows::ages(&row.expect("the statement always returns a row")))?;
        Box::new(transaction).rollback().await;
        Ok(ages)
    }

    async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        let mut transaction = self.open(BEGIN_WRITE).await?;
        let acknowledge = sqlx::query(ACKNOWLEDGE).bind(period);
        let was_undelivered = transaction.fetch("acknowledging a period", acknowledge).await?.is_some();
        if !was_undelivered {
            let exists = sqlx::query(rows::PERIOD_EXISTS).bind(period);
            if transaction.fetch("looking up a period", exists).await?.is_none() {
                Box::new(transaction).rollback().await;
                return Err(rows::no_such_period(period));
            }
        }
        Box::new(transaction).commit().await?;
        Ok(was_undelivered)
    }

    async fn claim_delivery(&self, lease: Uuid, length: Duration) -> Result<DeliveryClaim, Error> {
        deliveries::claim(self.open(BEGIN_WRITE).await?, lease, length).await
    }

    async fn delivery_failed(&self, delivery: &Delivery, error: &str, retry_in: Duration) -> Result<bool, Error> {
        deliveries::failed(self.open(BEGIN_WRITE).await?, delivery, error, retry_in).await
    }

    async fn close(&self) {
        self.opener.close().await;
    }
}

const ACKNOWLEDGE: &str = "
    UPDATE boundary_usage_periods SET delivered_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
    WHERE period_id = $1 AND delivered_at IS NULL RETURNING period_id";

const AGES: &str = "
    SELECT CAST(1000 * (unixepoch('now', 'subsec') - unixepoch(coalesce(
        (SELECT period_end FROM boundary_usage_periods ORDER BY period_id DESC LIMIT 1),
        (SELECT created_at FROM boundary_usage_deployment)
    ), 'subsec')) AS INTEGER) AS open_period_ms, (
        SELECT CAST(1000 * (unixepoch('now', 'subsec') - unixepoch(min(period_end), 'subsec')) AS INTEGER)
        FROM boundary_usage_periods WHERE delivered_at IS NULL
    ) AS oldest_undelivered_ms";
