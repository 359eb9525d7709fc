//! SQLite, a file that several processes of one machine can share.
//!
//! A writing transaction begins with `BEGIN IMMEDIATE`. SQLite allows one writer at a time, so the transaction has the
//! effect of both locks from its start. A later upgrade from reader to writer could fail halfway. The wait for the
//! writer lock is limited. Readers do not wait, because they use the write-ahead log. With `synchronous = FULL`, a
//! commit survives a power failure.

mod deliveries;
mod errors;
mod files;
mod opening;
mod schema;
mod sql;
mod transaction;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Executor;
use sqlx::query::Query;
use uuid::Uuid;

use self::opening::Opener;
use self::transaction::SqliteTransaction;
use super::migration::MigrationMode;
use super::{
    Ages, Backend, DatabaseStatus, Delivery, DeliveryClaim, HashingKey, KeyFingerprint, LiveReplicas, Purpose,
    StatusScope, Transaction, period_rows, rows, url,
};
use crate::database::rows::OpenRows;
use crate::error::Error;

/// A SQLite database.
pub(super) struct Sqlite {
    opener: Opener,
}

impl Sqlite {
    /// Opens or creates the file and migrates the schema, or opens the file read-only.
    pub(super) async fn connect(
        url: &str,
        migration_mode: MigrationMode,
        new_key: Option<HashingKey>,
    ) -> Result<Self, Error> {
        let opener = Opener::new(url::sqlite(url)?, migration_mode, new_key);
        opener.connection().await?.release();
        Ok(Self { opener })
    }

    async fn open(&self, begin: &'static str) -> Result<SqliteTransaction, Error> {
        let mut pooled = self.opener.connection().await?;
        let begun = pooled.connection.execute(begin).await;
        begun.map_err(|error| errors::classify("opening a transaction", self.opener.files.shown(), error))?;
        Ok(SqliteTransaction::new(pooled, self.opener.files.clone()))
    }

    async fn read_status(&self, scope: StatusScope) -> Result<DatabaseStatus, Error> {
        let mut transaction = self.open(sql::BEGIN_READ).await?;
        let open = transaction.open_period().await?;
        let mut open_rows = OpenRows::new(scope, open);
        let newest = sqlx::query(sql::READ_ROWS).bind(scope.recent());
        let rows = transaction.fetch_all("reading the rows", newest, |row| open_rows.add(row)).await?;
        let counts = transaction.fetch("counting", sqlx::query(sql::READ_COUNTS).bind(scope.count())).await?;
        let counts = transaction.decoded(rows::counts(&counts.expect("an aggregate returns a row")))?;
        let newest = sqlx::query(sql::READ_REPLICAS).bind(scope.recent());
        let replicas = transaction.fetch_all("reading the replicas", newest, rows::replica_status).await?;
        let newest = scope.periods().into_iter().fold(sqlx::query(sql::READ_PERIODS), Query::bind);
        let periods = transaction.fetch_all("reading the periods", newest, period_rows::period_status).await?;
        let key = transaction.fetch("reading the hashing key", sqlx::query(sql::READ_HASHING_KEY)).await?;
        let key = transaction.decoded(key.as_ref().map(rows::key).transpose())?;
        Box::new(transaction).rollback().await;
        let key = super::migration::hashing_key(key.as_deref()).ok();
        Ok(open_rows.status(&counts, rows, replicas, periods, key.map(KeyFingerprint::of)))
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn hashing_key(&self) -> Result<HashingKey, Error> {
        let mut transaction = self.open(sql::BEGIN_READ).await?;
        let row = transaction.fetch("reading the hashing key", sqlx::query(sql::READ_HASHING_KEY)).await?;
        let key = transaction.decoded(row.as_ref().map(rows::key).transpose())?;
        Box::new(transaction).rollback().await;
        super::migration::hashing_key(key.as_deref())
    }

    async fn begin(&self, purpose: Purpose) -> Result<Box<dyn Transaction>, Error> {
        let begin = match purpose {
            Purpose::Flush => sql::BEGIN_FLUSH,
            Purpose::Collection => sql::BEGIN_COLLECTION,
            Purpose::Report => sql::BEGIN_READ,
        };
        let quiet = self.opener.files.quiet().filter(|_| self.opener.reads_only());
        let mut transaction = self.open(begin).await?;
        transaction.quiet = quiet;
        Ok(Box::new(transaction))
    }

    async fn status(&self, scope: StatusScope) -> Result<DatabaseStatus, Error> {
        self.opener.read_undisturbed(|| self.read_status(scope)).await
    }

    async fn ages(&self) -> Result<Ages, Error> {
        let mut transaction = self.open(sql::BEGIN_READ).await?;
        let row = transaction.fetch("reading the ages", sqlx::query(sql::READ_AGES)).await?;
        let ages = transaction.decoded(rows::ages(&row.expect("the statement always returns a row")))?;
        Box::new(transaction).rollback().await;
        Ok(ages)
    }

    async fn live_replicas(&self, within: Duration) -> Result<LiveReplicas, Error> {
        let mut transaction = self.open(sql::BEGIN_READ).await?;
        let read = sqlx::query(sql::READ_LIVE_REPLICAS).bind(within.as_secs_f64());
        let row = transaction.fetch("reading the live replicas", read).await?;
        let live = transaction.decoded(rows::live_replicas(&row.expect("an aggregate returns a row")))?;
        Box::new(transaction).rollback().await;
        Ok(live)
    }

    async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        let mut transaction = self.open(sql::BEGIN_FLUSH).await?;
        let acknowledge = sqlx::query(sql::ACKNOWLEDGE_PERIOD).bind(period);
        let was_undelivered = transaction.fetch("acknowledging a period", acknowledge).await?.is_some();
        if !was_undelivered {
            let exists = sqlx::query(sql::FIND_PERIOD).bind(period);
            if transaction.fetch("looking up a period", exists).await?.is_none() {
                Box::new(transaction).rollback().await;
                return Err(rows::no_such_period(period));
            }
        }
        Box::new(transaction).commit().await?;
        Ok(was_undelivered)
    }

    async fn claim_delivery(&self, lease: Uuid, length: Duration) -> Result<DeliveryClaim, Error> {
        deliveries::claim(self.open(sql::BEGIN_FLUSH).await?, lease, length).await
    }

    async fn delivery_failed(&self, delivery: &Delivery, error: &str, retry_in: Duration) -> Result<bool, Error> {
        deliveries::failed(self.open(sql::BEGIN_FLUSH).await?, delivery, error, retry_in).await
    }

    async fn close(&self) {
        self.opener.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transaction_returns_its_connection_when_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("usage.db").display());
        let sqlite = Sqlite::connect(&url, MigrationMode::Apply, None).await.unwrap();
        for is_committed in [true, false] {
            let transaction = sqlite.begin(Purpose::Flush).await.unwrap();
            if is_committed {
                transaction.commit().await.unwrap()
            } else {
                transaction.rollback().await
            }
            let connection = sqlite.opener.connection().await.unwrap();
            assert!(connection.reused, "committed: {is_committed}");
            connection.release();
        }
    }
}
