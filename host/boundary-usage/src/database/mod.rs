//! The database, in the words of the domain: flushes read and upsert, a collection takes all rows.
//!
//! This is the end of the flow *proxy → intake → component → transaction → **database***. The SQL is in `sqlite` and
//! `postgres` and nowhere else; the two keep the same promises, and one test suite holds both to them.

mod ages;
mod backend;
mod delivery;
mod driver_errors;
mod migration;
mod pool;
mod postgres;
mod rows;
mod sqlite;
mod status;
mod unconnected;
mod url;

use std::sync::Arc;

pub use boundary_usage_tracker::HashingKey;

pub use self::ages::Ages;
pub use self::backend::{Backend, Lock, LockMode, Purpose, Transaction};
pub use self::delivery::{DELIVERY_WAIT_MAX, Delivery, DeliveryClaim, DeliveryStatus};
pub use self::status::{DatabaseStatus, PeriodStatus, ReplicaStatus, RowStatus};

use crate::error::Error;

/// A database that holds usage: SQLite or PostgreSQL. Cheap to clone; clones share connections.
///
/// Its work runs on the Tokio runtime on which it was connected; that runtime must outlive it.
#[derive(Clone)]
pub struct Database {
    backend: Arc<dyn Backend>,
    /// The backend again, if it was made without a connection.
    unconnected: Option<Arc<unconnected::Unconnected>>,
    runtime: tokio::runtime::Handle,
}

impl Database {
    /// Connects, and brings the schema up to date; safe when several processes do so at once.
    ///
    /// - `sqlite:PATH`: a file, created when missing; several processes of one machine can share it.
    /// - `postgres://USER:PASSWORD@HOST:PORT/DATABASE`: for several replicas.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] for a URL that is neither; [`Error::Unavailable`] if the database cannot be reached, so
    /// that trying again can help; [`Error::Refused`] if the login fails, the server is not trusted, or the schema cannot
    /// be used. None shows the URL's password.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, migration::MigrationMode::Apply).await
    }

    /// Connects to a database that has its schema, and changes nothing: for those who only look.
    ///
    /// # Errors
    ///
    /// As [`Database::connect`], and [`Error::Refused`] when the schema is missing or not up to date.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, migration::MigrationMode::Refuse).await
    }

    async fn connect_with(url: &str, migration_mode: migration::MigrationMode) -> Result<Self, Error> {
        let backend: Arc<dyn Backend> = match url::Scheme::of(url)? {
            url::Scheme::Sqlite => Arc::new(sqlite::Sqlite::connect(url, migration_mode).await?),
            url::Scheme::Postgres => Arc::new(postgres::Postgres::connect(url, migration_mode).await?),
        };
        Ok(Self::with_backend(backend))
    }

    /// Whether [`Database::connect`] would take this URL; opens nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] with what is wrong, and without the URL's password.
    pub fn check_url(url: &str) -> Result<(), Error> {
        match url::Scheme::of(url)? {
            url::Scheme::Sqlite => url::sqlite(url).map(drop),
            url::Scheme::Postgres => url::postgres(url).map(drop),
        }
    }

    /// What a PostgreSQL URL leads to, without its password: the server, the database, the role, and the session's options.
    pub(crate) fn target(url: &str) -> Result<Option<String>, Error> {
        match url::Scheme::of(url)? {
            url::Scheme::Sqlite => Ok(None),
            url::Scheme::Postgres => url::postgres(url).map(|url| Some(url.target)),
        }
    }

    /// A database of one's own making. Must be called on a Tokio runtime.
    pub fn with_backend(backend: Arc<dyn Backend>) -> Self {
        Self { backend, unconnected: None, runtime: tokio::runtime::Handle::current() }
    }

    /// What the database holds now; changes nothing.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn status(&self) -> Result<DatabaseStatus, Error> {
        self.backend.status().await
    }

    /// Records that a period's summary has been delivered. Answers whether it was undelivered until now.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when there is no such period.
    pub async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        self.backend.acknowledge(period).await
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.backend.close().await;
    }

    /// What does the work; for those who wrap it in a backend of their own.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }
}
