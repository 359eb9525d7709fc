//! How a connection to the file is made, and what is wrong when it cannot be, or when the file is not the one it was.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Executor, SqliteConnection};
use tokio::time::Instant;

use super::files::{Files, OpenFiles};
use super::{errors, schema};
use crate::database::migration::MigrationMode;
use crate::database::pool::{Pool, PooledConnection};
use crate::database::url::SqliteUrl;
use crate::error::Error;

/// How long to wait for another writer.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// How long the file may take to open: the wait for another writer, and some more for a slow disk.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait before a new file is tried again that another process is just setting up.
const SET_UP_RETRY: Duration = Duration::from_millis(20);

const OPENING: &str = "opening the database file";

/// A connection on loan, with the files that it has open.
pub(super) type SqliteLease = PooledConnection<SqliteConnection, OpenFiles>;

/// Opens connections to one file.
pub(super) struct Opener {
    connections: Arc<Pool<SqliteConnection, OpenFiles>>,
    /// For a file that no process has open. They take it for one that never changes, so each is used once.
    quiet_connections: Arc<Pool<SqliteConnection, OpenFiles>>,
    pub(super) files: Arc<Files>,
    migration_mode: MigrationMode,
    /// Whether a missing file is created.
    create: bool,
    /// The key under which ids are hashed. A file with another key is another database.
    key: OnceLock<Vec<u8>>,
}

impl Opener {
    pub(super) fn new(url: SqliteUrl, migration_mode: MigrationMode) -> Self {
        let files = Arc::new(Files::new(url.path));
        let create = url.create && migration_mode == MigrationMode::Apply;
        let options = SqliteConnectOptions::new().filename(files.path());
        let options = options.busy_timeout(BUSY_LIMIT).disable_statement_logging();
        let options = match migration_mode {
            MigrationMode::Apply => {
                let options = options.create_if_missing(create).journal_mode(SqliteJournalMode::Wal);
                options.synchronous(SqliteSynchronous::Full)
            }
            MigrationMode::Refuse => options.read_only(true),
        };
        Self {
            quiet_connections: Pool::new(options.clone().immutable(true), OPEN_LIMIT),
            connections: Pool::new(options, OPEN_LIMIT),
            files,
            migration_mode,
            create,
            key: OnceLock::new(),
        }
    }

    /// A connection to the file that is at the path.
    pub(super) async fn connection(&self) -> Result<SqliteLease, Error> {
        if let Some(what) = self.files.moved() {
            return Err(self.abandon(&what).await);
        }
        self.refuse_what_cannot_be_opened()?;
        if self.reads_only() && self.files.quiet().is_some() {
            // To read beside writers takes files that a reader may not be allowed to create. Without a writer, the
            // file alone is the database.
            let mut lease = self.quiet_connections.take().await.map_err(|error| self.not_opened(error))?;
            lease.is_reusable = false;
            return self.check(lease).await;
        }
        let before = self.files.now().database;
        let lease = self.take().await?;
        if lease.reused {
            let Some(what) = self.files.log_moved(&lease.notes) else { return Ok(lease) };
            lease.give_back();
            return Err(self.abandon(&what).await);
        }
        let lease = self.check(lease).await?;
        match before.and_then(|before| self.files.what_happened_to(before)) {
            Some(what) => Err(self.abandon(&what).await),
            None => Ok(lease),
        }
    }

    /// Whether the file is opened to read only.
    pub(super) fn reads_only(&self) -> bool {
        self.migration_mode == MigrationMode::Refuse
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        self.connections.close().await;
        self.quiet_connections.close().await;
    }

    /// Brings the schema of a newly opened file up to date, and makes sure that it is the same database as before.
    async fn check(&self, mut lease: SqliteLease) -> Result<SqliteLease, Error> {
        let shown = self.files.shown();
        let key = self.key.get().map(Vec::as_slice);
        let stored = schema::migrate(&mut lease.connection, shown, self.migration_mode, key).await?;
        if let Some(stored) = stored
            && self.key.get_or_init(|| stored.clone()) != &stored
        {
            let what = format!("`{}` is another database now: it has another hashing key", shown.display());
            return Err(unavailable(format!("{what}; put the right file back, or restart to use this one")));
        }
        lease.notes = self.files.now();
        self.files.opened(lease.notes.database);
        Ok(lease)
    }

    /// Stops using files that are no longer in their places, and returns the error that says so. What the log holds
    /// goes into the database that it belongs to; the next connection opens the file at the path.
    async fn abandon(&self, what: &str) -> Error {
        let mut open = OpenFiles::default();
        while let Some(mut lease) = self.connections.take_idle() {
            // If another process reads the log, this fails, and the log is set aside.
            let emptied = lease.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
            tracing::debug!(?emptied, "wrote the log into the database");
            open = std::mem::take(&mut lease.notes);
            // Its last user closes a log, which must not happen after this.
            let _ = lease.close().await;
        }
        self.connections.renew().await;
        let aside = self.files.abandoned(&open);
        let aside = aside.map(|aside| format!("; its write-ahead log is now {}", aside.display())).unwrap_or_default();
        tracing::warn!("{what} while the database was open{aside}");
        let or_create = if self.create { ", or creates it" } else { "" };
        let next = format!("the next attempt opens the file that is there then{or_create}");
        unavailable(format!(
            "{what} while the database was open{aside}; {next}, and usage that only the old one holds is missing"
        ))
    }

    /// To turn the write-ahead log on takes the file for oneself, and SQLite does not wait for that by itself.
    async fn take(&self) -> Result<SqliteLease, Error> {
        let deadline = Instant::now() + BUSY_LIMIT;
        loop {
            match self.connections.take().await {
                Ok(lease) => return Ok(lease),
                Err(error) if errors::is_busy(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(SET_UP_RETRY).await;
                }
                Err(error) => return Err(self.not_opened(error)),
            }
        }
    }

    fn not_opened(&self, error: sqlx::Error) -> Error {
        errors::classify(OPENING, self.files.shown(), error)
    }

    fn refuse_what_cannot_be_opened(&self) -> Result<(), Error> {
        let shown = self.files.shown().display();
        if !self.create && self.files.path().try_exists().is_ok_and(|exists| !exists) {
            let hint = match self.migration_mode {
                MigrationMode::Apply => "correct the path, or leave `mode=rw` out to create it",
                MigrationMode::Refuse => "`serve` or `replay` creates it",
            };
            return Err(unavailable(format!("there is no database file {shown}; {hint}")));
        }
        if self.files.has_stale_log() {
            let what = format!("`{shown}-wal` belongs to the file that was there before");
            let hint = format!("stop every process that uses `{shown}`, and delete `{shown}-wal` and `{shown}-shm`");
            return Err(unavailable(format!("{what}; {hint}")));
        }
        Ok(())
    }
}

fn unavailable(reason: String) -> Error {
    Error::Unavailable { action: OPENING, source: reason.into() }
}
