//! PostgreSQL: for several replicas, on any number of machines.
//!
//! A flush shares the cutover lock with other flushes and holds a lock of its replica's own; a collection holds the
//! cutover lock alone (D6). Both are advisory locks of the transaction, so they end with it, whatever happens to us.
//! All times are the server's, taken at the start of a statement: a transaction may have begun before it waited for a
//! lock, and before a cutover that it waited for.

mod deliveries;
mod failure;
mod flush;
mod schema;
pub(in crate::database) mod tls;
mod transaction;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use self::transaction::{Limits, PostgresTransaction};
use super::connections::{Connections, Lease, timed_out};
use super::failure::refused;
use super::schema::WhenMissing;
use super::{Ages, Backend, DatabaseStatus, Delivery, DeliveryClaim, HashingKey, Purpose, Stored, Transaction, rows};
use crate::database::rows::OpenRows;
use crate::database::url::{self, PostgresUrl};
use crate::error::Error;

/// A PostgreSQL database.
pub(super) struct Postgres {
    connections: Arc<Connections<PgConnection, Session>>,
    /// Settings of each transaction, as statements; made when the database is connected.
    settings: Vec<String>,
    /// Where the server is, for messages.
    address: String,
}

/// What is known of a connection's session.
#[derive(Default)]
struct Session {
    /// Whether the statements of a flush are prepared in it.
    has_prepared_flushes: bool,
}

type PostgresLease = Lease<PgConnection, Session>;

impl Postgres {
    /// Connects, and brings the schema up to date; or takes it as it is.
    pub(super) async fn connect(url: &str, when_missing: WhenMissing) -> Result<Self, Error> {
        let PostgresUrl { options, connect_limit, address, .. } = url::postgres(url)?;
        // Statements are not for the log: a flush that waits for a lock is no slow query.
        let connections = Connections::new(options.disable_statement_logging(), connect_limit);
        let mut lease = connections.take().await.map_err(|error| not_connected(&address, error))?;
        let settings = schema::bring_up_to_date(&mut lease.connection, when_missing, &address).await?;
        lease.give_back();
        Ok(Self { connections, settings, address })
    }

    /// Opens a transaction in one round trip.
    async fn open(&self, limits: &'static Limits) -> Result<PostgresTransaction, Error> {
        let open = move |mut lease| async move {
            begin(&mut lease, limits, &self.settings).await.map_err(Failure::Connection)?;
            Ok(PostgresTransaction::new(lease, limits))
        };
        self.on_a_connection(open).await
    }

    /// An idle connection may have died without our knowing: the next is tried then, and at last a new one.
    async fn on_a_connection<T, F>(&self, begin: impl Fn(PostgresLease) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        loop {
            let lease = self.connections.take().await.map_err(|error| not_connected(&self.address, error))?;
            let reused = lease.reused;
            match begin(lease).await {
                Ok(begun) => return Ok(begun),
                Err(Failure::Connection(_)) if reused => {}
                Err(Failure::Connection(error)) => return Err(failure::of("opening a transaction", error)),
                Err(Failure::Answer(error)) => return Err(error),
            }
        }
    }
}

/// Why a transaction could not begin.
enum Failure {
    /// The connection may have been dead before.
    Connection(sqlx::Error),
    /// Another connection would have the same answer.
    Answer(Error),
}

/// The error of a connection that could not be made; it names the address that was tried.
fn not_connected(address: &str, error: sqlx::Error) -> Error {
    if let Some(reason) = tls::refusal(&error) {
        return refused("connecting", format!("{address}: {reason}"));
    }
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => failure::of("connecting", error),
        _ => failure::at(address, failure::of("connecting", error)),
    }
}

/// How long the server may take to begin a transaction, which it does without waiting for anyone.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);

async fn begin(lease: &mut PostgresLease, limits: &Limits, settings: &[String]) -> Result<(), sqlx::Error> {
    // What varies is the quoted name of a schema.
    let begin = AssertSqlSafe(format!("{}; {}", limits.begin, settings.join("; ")));
    let begun = timeout(BEGIN_LIMIT, lease.connection.execute(begin)).await;
    begun.map_err(|_| timed_out(BEGIN_LIMIT))?.map(drop)
}

#[async_trait]
impl Backend for Postgres {
    async fn hashing_key(&self) -> Result<HashingKey, Error> {
        let mut transaction = self.open(&transaction::READ).await?;
        let row = transaction.fetch("reading the hashing key", sqlx::query(rows::SELECT_KEY)).await?;
        let key = failure::decoded(row.as_ref().map(rows::key).transpose())?;
        Box::new(transaction).rollback().await;
        super::schema::hashing_key(key.as_deref())
    }

    async fn begin(&self, purpose: Purpose) -> Result<Box<dyn Transaction>, Error> {
        let limits = match purpose {
            Purpose::Flush => &transaction::FLUSH,
            Purpose::Collection => &transaction::COLLECTION,
        };
        Ok(Box::new(self.open(limits).await?))
    }

    /// In one round trip, too. That a connection has died shows later than without the locks: the server may be silent
    /// because it waits for one.
    async fn begin_flush(&self, replica: Uuid) -> Result<(Box<dyn Transaction>, Stored), Error> {
        let (transaction, stored) = self.on_a_connection(|lease| flush::open(lease, &self.settings, replica)).await?;
        Ok((Box::new(transaction), stored))
    }

    async fn status(&self) -> Result<DatabaseStatus, Error> {
        let mut transaction = self.open(&transaction::READ).await?;
        let open = transaction.open_period().await?;
        let mut open_rows = OpenRows::new(open);
        let rows = transaction.fetch_all("reading the rows", rows::SELECT_ROWS, |row| open_rows.add(row)).await?;
        let replicas =
            transaction.fetch_all("reading the replicas", rows::SELECT_REPLICAS, rows::replica_status).await?;
        let periods = transaction.fetch_all("reading the periods", rows::SELECT_PERIODS, rows::period_status).await?;
        Box::new(transaction).rollback().await;
        Ok(open_rows.status(rows, replicas, periods))
    }

    async fn ages(&self) -> Result<Ages, Error> {
        let mut transaction = self.open(&transaction::READ).await?;
        let row = transaction.fetch("reading the ages", sqlx::query(AGES)).await?;
        let ages = failure::decoded(rows::ages(&row.expect("the statement always returns a row")))?;
        Box::new(transaction).rollback().await;
        Ok(ages)
    }

    async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        let mut transaction = self.open(&transaction::FLUSH).await?;
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
        deliveries::claim(self.open(&transaction::FLUSH).await?, lease, length).await
    }

    async fn delivery_failed(&self, delivery: &Delivery, error: &str, retry_in: Duration) -> Result<bool, Error> {
        deliveries::failed(self.open(&transaction::FLUSH).await?, delivery, error, retry_in).await
    }

    async fn close(&self) {
        self.connections.close().await;
    }
}

const ACKNOWLEDGE: &str = "
    UPDATE boundary_usage_periods SET delivered_at = statement_timestamp()
    WHERE period_id = $1 AND delivered_at IS NULL RETURNING period_id";

const AGES: &str = "
    SELECT (1000 * extract(epoch FROM statement_timestamp() - coalesce(
        (SELECT period_end FROM boundary_usage_periods ORDER BY period_id DESC LIMIT 1),
        (SELECT created_at FROM boundary_usage_deployment)
    )))::bigint AS open_period_ms, (
        SELECT (1000 * extract(epoch FROM statement_timestamp() - min(period_end)))::bigint
        FROM boundary_usage_periods WHERE delivered_at IS NULL
    ) AS oldest_undelivered_ms";
