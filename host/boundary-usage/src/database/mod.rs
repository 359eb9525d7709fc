//! The database. A flush reads and upserts one row; a collection deletes all rows.
//!
//! This is the end of the flow *proxy → intake → component → transaction → **database***. All SQL is in `sqlite` and
//! `postgres`. Both modules make the same promises, and the same tests check both.

mod ages;
mod backend;
mod client_drops;
mod database_status;
mod delivery;
mod driver_errors;
mod fingerprint;
mod live_replicas;
mod migration;
mod period_rows;
mod pool;
mod postgres;
mod prune_limits;
mod rows;
mod sqlite;
mod unconnected;
mod url;

use std::sync::Arc;

pub use boundary_usage_tracker::HashingKey;

pub use self::ages::Ages;
pub use self::backend::{Backend, Lock, LockMode, Purpose, Transaction};
pub use self::database_status::{DatabaseStatus, Number, PeriodStatus, ReplicaStatus, RowStatus, StatusScope};
pub use self::delivery::{DELIVERY_WAIT_MAX, Delivery, DeliveryClaim, DeliveryStatus};
pub use self::fingerprint::KeyFingerprint;
pub use self::live_replicas::LiveReplicas;
pub use self::prune_limits::{PruneLimits, Pruned};

use crate::error::Error;

/// A database of usage: SQLite or PostgreSQL.
///
/// Clones are cheap and share connections.
///
/// A database works on the Tokio runtime on which it was connected. That runtime must outlive the database.
#[derive(Clone)]
pub struct Database {
    backend: Arc<dyn Backend>,
    /// The same backend, if the database was created without a connection.
    unconnected: Option<Arc<unconnected::Unconnected>>,
    runtime: tokio::runtime::Handle,
}

impl Database {
    /// Connects to a database and migrates its schema.
    ///
    /// - `sqlite:PATH`: a file, which is created if it is missing. Several processes of one machine can share it.
    /// - `postgres://USER:PASSWORD@HOST:PORT/DATABASE`: a server, for any number of machines.
    ///
    /// Several processes can connect to a new database simultaneously. No error contains the URL's password.
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if the URL is invalid.
    /// - [`Error::Unavailable`] if the database cannot be reached. A later call may succeed.
    /// - [`Error::Refused`] if the login fails, the server is not trusted, or the schema cannot be used.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, migration::MigrationMode::Apply, None).await
    }

    /// Creates the schema with a given hashing key, and connects.
    ///
    /// Databases with the same key can be merged in a report. An existing schema must have the same key.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if the database has another hashing key.
    /// - Those of [`Database::connect`].
    pub async fn create(url: &str, key: HashingKey) -> Result<Self, Error> {
        let database = Self::connect_with(url, migration::MigrationMode::Apply, Some(key)).await?;
        let stored = database.backend.hashing_key().await?;
        if stored != key {
            let (stored, given) = (KeyFingerprint::of(stored), KeyFingerprint::of(key));
            let what = format!("the database has the hashing key with fingerprint {stored}, and not {given}");
            let hint = "use the key of the database, or create another database";
            return Err(Error::Refused { message: format!("{what}; {hint}") });
        }
        Ok(database)
    }

    /// Connects to a database to read it, and changes nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if the schema is missing or out of date.
    /// - Those of [`Database::connect`].
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, migration::MigrationMode::Refuse, None).await
    }

    /// Checks that a database has the schema of this release or of an earlier one, and changes nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if the schema is missing.
    /// - Those of [`Database::connect`].
    pub async fn check_exists(url: &str) -> Result<(), Error> {
        Self::connect_with(url, migration::MigrationMode::Accept, None).await?.close().await;
        Ok(())
    }

    /// Connects. A new schema gets `new_key`, or a random key.
    async fn connect_with(
        url: &str,
        migration_mode: migration::MigrationMode,
        new_key: Option<HashingKey>,
    ) -> Result<Self, Error> {
        let backend: Arc<dyn Backend> = match url::Scheme::of(url)? {
            url::Scheme::Sqlite => Arc::new(sqlite::Sqlite::connect(url, migration_mode, new_key).await?),
            url::Scheme::Postgres => Arc::new(postgres::Postgres::connect(url, migration_mode, new_key).await?),
        };
        Ok(Self::with_backend(backend))
    }

    /// Checks a URL without connecting.
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if the URL is invalid. The message does not contain its password.
    pub fn check_url(url: &str) -> Result<(), Error> {
        match url::Scheme::of(url)? {
            url::Scheme::Sqlite => url::sqlite(url).map(drop),
            url::Scheme::Postgres => url::postgres(url).map(drop),
        }
    }

    /// Returns the name of a URL's database: the file, or the server and the database.
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if the URL is invalid.
    pub fn name(url: &str) -> Result<String, Error> {
        match url::Scheme::of(url)? {
            url::Scheme::Sqlite => url::sqlite(url).map(|url| url.path.display().to_string()),
            url::Scheme::Postgres => url::postgres(url).map(|url| format!("{} at {}", url.database, url.address)),
        }
    }

    /// Returns the target of a PostgreSQL URL: server, database, role and session options.
    pub(crate) fn target(url: &str) -> Result<Option<String>, Error> {
        match url::Scheme::of(url)? {
            url::Scheme::Sqlite => Ok(None),
            url::Scheme::Postgres => url::postgres(url).map(|url| Some(url.target)),
        }
    }

    /// Creates a database from a custom backend. The caller must be on a Tokio runtime.
    pub fn with_backend(backend: Arc<dyn Backend>) -> Self {
        Self { backend, unconnected: None, runtime: tokio::runtime::Handle::current() }
    }

    /// Reads the open period, the replicas and the closed periods.
    ///
    /// The status has the scope [`StatusScope::Recent`].
    ///
    /// # Errors
    ///
    /// - Any error of the backend if the database cannot be read.
    pub async fn status(&self) -> Result<DatabaseStatus, Error> {
        self.backend.status(StatusScope::Recent).await
    }

    /// Reads the status, and lists everything.
    ///
    /// # Errors
    ///
    /// - Any error of the backend if the database cannot be read.
    pub async fn full_status(&self) -> Result<DatabaseStatus, Error> {
        self.backend.status(StatusScope::All).await
    }

    /// Records the delivery of a period's summary. Returns whether it was undelivered.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if there is no closed period with this id.
    /// - Any error of the backend if the database cannot be changed.
    pub async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        self.backend.acknowledge(period).await
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.backend.close().await;
    }

    /// Returns the backend, for a backend that wraps it.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }
}
