//! PostgreSQL, for several replicas on any number of machines.
//!
//! A flush holds the cutover lock in shared mode, and its replica's lock. A collection holds the cutover lock in
//! exclusive mode (D6). Both are advisory locks of the transaction and end with it, even if this process crashes.
//!
//! All times are the server's time at the start of a statement. The time at the start of the transaction would be too
//! early. The transaction may have waited for a lock since then, and a cutover may have happened during that wait.

mod deliveries;
mod errors;
mod literals;
mod schema;
mod sql;
pub(in crate::database) mod tls;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::query::Query;
use sqlx::{ConnectOptions, Executor, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use self::transaction::{Limits, PostgresTransaction, query};
use super::driver_errors::refused;
use super::migration::MigrationMode;
use super::pool::{IdleMode, Pool, PooledConnection, timed_out};
use super::{
    Ages, Backend, DatabaseStatus, Delivery, DeliveryClaim, HashingKey, KeyFingerprint, LiveReplicas, Purpose,
    StatusScope, Transaction, period_rows, rows,
};
use crate::database::rows::OpenRows;
use crate::database::url::{self, PostgresUrl};
use crate::error::Error;

/// The time after which an idle connection is closed.
///
/// Flushes are a minute apart, so most of them need a new connection. The time is short because of poolers in session
/// mode, where other replicas wait until this connection is closed. Such a wait fails after [`BEGIN_LIMIT`].
const IDLE_LIMIT: Duration = Duration::from_secs(1);

/// A PostgreSQL database.
pub(super) struct Postgres {
    pool: Arc<Pool<PgConnection, ()>>,
    /// The quoted name of the schema of the tables.
    schema: String,
    /// The server's address, for messages.
    address: String,
}

type PooledPostgres = PooledConnection<PgConnection, ()>;

impl Postgres {
    /// Connects, and migrates or checks the schema.
    pub(super) async fn connect(
        url: &str,
        migration_mode: MigrationMode,
        new_key: Option<HashingKey>,
    ) -> Result<Self, Error> {
        let PostgresUrl { options, connect_limit, address, .. } = url::postgres(url)?;
        // sqlx would log a flush that waits for a lock as a slow statement.
        let pool = Pool::new(options.disable_statement_logging(), connect_limit, IdleMode::CloseAfter(IDLE_LIMIT));
        let mut pooled = pool.acquire().await.map_err(|error| not_connected(&address, error))?;
        let schema = schema::migrate(&mut pooled.connection, migration_mode, new_key, &address).await?;
        pooled.release();
        Ok(Self { pool, schema, address })
    }

    /// Begins a transaction in one round trip.
    ///
    /// If an idle connection turns out to be closed, the next idle one is tried, and finally a new one.
    async fn open(&self, limits: &'static Limits) -> Result<PostgresTransaction, Error> {
        loop {
            let mut pooled = self.pool.acquire().await.map_err(|error| not_connected(&self.address, error))?;
            match begin(&mut pooled, limits, &self.schema).await {
                Ok(()) => return Ok(PostgresTransaction::new(pooled, limits)),
                Err(_) if pooled.reused => {}
                Err(error) => return Err(errors::classify("beginning a transaction", error)),
            }
        }
    }
}

/// Returns the error of a failed connection, with the server's address.
fn not_connected(address: &str, error: sqlx::Error) -> Error {
    if let Some(reason) = tls::refusal(&error) {
        return refused("connecting", format!("{address}: {reason}"));
    }
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => errors::classify("connecting", error),
        _ => errors::at(address, errors::classify("connecting", error)),
    }
}

/// The time limit for beginning a transaction, which waits for no lock.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);

async fn begin(pooled: &mut PooledPostgres, limits: &Limits, schema: &str) -> Result<(), sqlx::Error> {
    let begun = timeout(BEGIN_LIMIT, pooled.connection.execute(sql::begin_on(schema, limits.begin))).await;
    begun.map_err(|_| timed_out(BEGIN_LIMIT))?.map(drop)
}

#[async_trait]
impl Backend for Postgres {
    async fn hashing_key(&self) -> Result<HashingKey, Error> {
        let mut transaction = self.open(&transaction::READ).await?;
        let row = transaction.fetch("reading the hashing key", query(sql::READ_HASHING_KEY)).await?;
        let key = errors::decoded(row.as_ref().map(rows::key).transpose())?;
        Box::new(transaction).rollback().await;
        super::migration::hashing_key(key.as_deref())
    }

    async fn key_fingerprint(&self) -> Result<KeyFingerprint, Error> {
        let mut transaction = self.open(&transaction::READ).await?;
        let row = transaction.fetch("reading the key's fingerprint", query(sql::READ_FINGERPRINT)).await?;
        let fingerprint = errors::decoded(row.as_ref().map(rows::fingerprint).transpose())?;
        Box::new(transaction).rollback().await;
        fingerprint.ok_or_else(super::migration::no_key)
    }

    async fn begin(&self, purpose: Purpose) -> Result<Box<dyn Transaction>, Error> {
        let limits = match purpose {
            Purpose::Flush => &transaction::FLUSH,
            Purpose::Collection => &transaction::COLLECTION,
            Purpose::Report => &transaction::READ,
        };
        Ok(Box::new(self.open(limits).await?))
    }

    async fn status(&self, scope: StatusScope) -> Result<DatabaseStatus, Error> {
        let mut transaction = self.open(&transaction::READ).await?;
        let open = transaction.open_period().await?;
        let mut open_rows = OpenRows::new(scope, open);
        let newest = query(sql::READ_ROWS).bind(scope.recent());
        let rows = transaction.fetch_all("reading the rows", newest, |row| open_rows.add(row)).await?;
        let counts = transaction.fetch("counting", query(sql::READ_COUNTS).bind(scope.count())).await?;
        let counts = errors::decoded(rows::counts(&counts.expect("an aggregate returns a row")))?;
        let newest = query(sql::READ_REPLICAS).bind(scope.recent());
        let replicas = transaction.fetch_all("reading the replicas", newest, rows::replica_status).await?;
        let newest = scope.periods().into_iter().fold(query(sql::READ_PERIODS), Query::bind);
        let periods = transaction.fetch_all("reading the periods", newest, period_rows::period_status).await?;
        let key = transaction.fetch("reading the key's fingerprint", query(sql::READ_FINGERPRINT)).await?;
        let key = errors::decoded(key.as_ref().map(rows::fingerprint).transpose())?;
        Box::new(transaction).rollback().await;
        Ok(open_rows.status(&counts, rows, replicas, periods, key))
    }

    async fn ages(&self) -> Result<Ages, Error> {
        let mut transaction = self.open(&transaction::READ).await?;
        let row = transaction.fetch("reading the ages", query(sql::READ_AGES)).await?;
        let ages = errors::decoded(rows::ages(&row.expect("the statement always returns a row")))?;
        Box::new(transaction).rollback().await;
        Ok(ages)
    }

    async fn live_replicas(&self, within: Duration) -> Result<LiveReplicas, Error> {
        let mut transaction = self.open(&transaction::READ).await?;
        let read = query(sql::READ_LIVE_REPLICAS).bind(within.as_secs_f64());
        let row = transaction.fetch("reading the live replicas", read).await?;
        let live = errors::decoded(rows::live_replicas(&row.expect("an aggregate returns a row")))?;
        Box::new(transaction).rollback().await;
        Ok(live)
    }

    async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        let mut transaction = self.open(&transaction::FLUSH).await?;
        let acknowledge = query(sql::ACKNOWLEDGE_PERIOD).bind(period);
        let was_undelivered = transaction.fetch("acknowledging a period", acknowledge).await?.is_some();
        if !was_undelivered {
            let exists = query(sql::FIND_PERIOD).bind(period);
            if transaction.fetch("looking up a period", exists).await?.is_none() {
                Box::new(transaction).rollback().await;
                return Err(rows::no_such_period(period));
            }
        }
        Box::new(transaction).commit().await?;
        Ok(was_undelivered)
    }

    async fn claim_delivery(&self, lease: Uuid, length: Duration) -> Result<DeliveryClaim, Error> {
        deliveries::claim(self.open(&transaction::FLUSH).await?, lease, length).await
    }

    async fn delivery_failed(&self, delivery: &Delivery, error: &str, retry_in: Duration) -> Result<bool, Error> {
        deliveries::failed(self.open(&transaction::FLUSH).await?, delivery, error, retry_in).await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
