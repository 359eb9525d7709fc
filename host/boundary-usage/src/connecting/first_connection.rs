//! A connection attempt in the background, and the start of a tracker without a connection.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::Connecting;
use crate::checkpoint::KeyFile;
use crate::database::Database;
use crate::error::{Error, chain};

/// The first connection to a database, which runs in the background. Dropping it ends the attempts.
///
/// If the state directory has the database's hashing key from an earlier start, a tracker can start without a
/// connection. It then records into memory and its checkpoint.
///
/// ```
/// use std::sync::Arc;
/// use boundary_usage::{Connecting, FirstConnection};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), boundary_usage::Error> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let (url, state) = (format!("sqlite:{}", directory.path().join("usage.db").display()), directory.path());
/// let first = FirstConnection::start(&url, Some(state), Arc::new(Connecting::default()), || {})?;
/// let (database, pending) = first.database().await?;
/// // Start a tracker with `database` here. If the database is down, `pending` connects it later.
/// if let Some(pending) = pending {
///     pending.connect_to(&database).await?;
/// }
/// assert!(database.is_connected());
/// # Ok(())
/// # }
/// ```
pub struct FirstConnection {
    attempts: Attempts,
    key_file: Option<KeyFile>,
    connecting: Arc<Connecting>,
}

/// The task of the attempts, which ends when this is dropped.
struct Attempts(JoinHandle<Result<Database, Error>>);

impl Attempts {
    async fn connected(&mut self) -> Result<Database, Error> {
        (&mut self.0).await.expect("the attempts neither panic nor are aborted while their owner exists")
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FirstConnection {
    /// Begins to connect, on the current Tokio runtime.
    ///
    /// Records the progress in `connecting`. Calls `when_waiting` after 2 s without a connection.
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if the URL is invalid.
    pub fn start(
        url: &str,
        state_directory: Option<&Path>,
        connecting: Arc<Connecting>,
        when_waiting: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let key_file = state_directory.map(|directory| KeyFile::new(directory, url)).transpose()?.flatten();
        let connect = {
            let (url, connecting) = (url.to_owned(), connecting.clone());
            async move { connecting.connect(&url, when_waiting).await }
        };
        Ok(Self { attempts: Attempts(tokio::spawn(connect)), key_file, connecting })
    }

    /// Returns the database.
    ///
    /// If the database is down and its hashing key is known, the result is an unconnected database and this connection
    /// attempt.
    ///
    /// # Errors
    ///
    /// - [`Error::State`] if the file of the hashing key cannot be read.
    /// - Those of [`Database::connect`], except that it waits while the database is unavailable.
    pub async fn database(mut self) -> Result<(Database, Option<Self>), Error> {
        let key = self.key_file.as_ref().map(KeyFile::read).transpose()?.flatten();
        let connected = match key {
            None => self.attempts.connected().await,
            Some(key) => tokio::select! {
                biased;
                connected = self.attempts.connected() => connected,
                () = self.connecting.down() => return Ok((Database::unconnected(key), Some(self))),
            },
        };
        let database = connected?;
        self.remember(&database).await;
        Ok((database, None))
    }

    /// Waits for the connection, and passes it to the unconnected database.
    ///
    /// # Errors
    ///
    /// - Those of [`Database::connect`] and [`Database::connect_to`].
    pub async fn connect_to(mut self, database: &Database) -> Result<(), Error> {
        let connected = self.attempts.connected().await?;
        if let Err(error) = database.connect_to(&connected).await {
            // The key belongs to another database. The next start uses the database that exists now.
            self.remember(&connected).await;
            connected.close().await;
            return Err(error);
        }
        Ok(())
    }

    /// Writes the hashing key to the state directory, for a start during an outage.
    async fn remember(&self, database: &Database) {
        let Some(key_file) = &self.key_file else { return };
        if let Err(error) = key_file.remember(database).await {
            let error = chain(&error);
            tracing::warn!(
                error,
                "cannot write the hashing key to the state directory; the next start must wait for the database"
            );
        }
    }
}
