//! Opens connections to the file, and detects a file that was replaced or deleted.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Executor, SqliteConnection};
use tokio::time::Instant;

use super::files::{Files, OpenFiles};
use super::{errors, schema};
use crate::database::HashingKey;
use crate::database::migration::{self, MigrationMode};
use crate::database::pool::{IdleMode, Pool, PooledConnection};
use crate::database::url::SqliteUrl;
use crate::error::Error;

/// The longest wait for another writer.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// The time limit for opening the file: the wait for another writer, and a reserve for a slow disk.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// The maximum number of reads of a file that other processes open and close meanwhile.
const QUIET_READS: usize = 3;

/// The wait between attempts to open a new file that another process is setting up.
const SET_UP_RETRY: Duration = Duration::from_millis(20);

const OPENING: &str = "opening the database file";

/// A connection in use, with the files that it has open.
pub(super) type PooledSqlite = PooledConnection<SqliteConnection, OpenFiles>;

/// Opens connections to one file.
pub(super) struct Opener {
    pool: Arc<Pool<SqliteConnection, OpenFiles>>,
    /// Connections to a file that no process has open. Such a connection assumes an immutable file, so it is used only
    /// once.
    quiet_pool: Arc<Pool<SqliteConnection, OpenFiles>>,
    pub(super) files: Arc<Files>,
    migration_mode: MigrationMode,
    /// Whether a missing file is created.
    create: bool,
    /// The key of the id hashes. A file with another key is another database.
    key: OnceLock<Vec<u8>>,
    /// The key for a new database. `None` for a random key.
    new_key: Option<HashingKey>,
}

impl Opener {
    pub(super) fn new(url: SqliteUrl, migration_mode: MigrationMode, new_key: Option<HashingKey>) -> Self {
        let files = Arc::new(Files::new(url.path));
        let create = url.create && migration_mode == MigrationMode::Apply;
        let options = SqliteConnectOptions::new().filename(files.path());
        let options = options.busy_timeout(BUSY_LIMIT).disable_statement_logging();
        let options = match migration_mode {
            MigrationMode::Apply => {
                let options = options.create_if_missing(create).journal_mode(SqliteJournalMode::Wal);
                options.synchronous(SqliteSynchronous::Full)
            }
            MigrationMode::Refuse | MigrationMode::Accept => options.read_only(true),
        };
        Self {
            quiet_pool: Pool::new(options.clone().immutable(true), OPEN_LIMIT, IdleMode::Keep),
            pool: Pool::new(options, OPEN_LIMIT, IdleMode::Keep),
            files,
            migration_mode,
            create,
            key: OnceLock::new(),
            new_key,
        }
    }

    /// Returns a connection to the file at the path.
    pub(super) async fn connection(&self) -> Result<PooledSqlite, Error> {
        if let Some(what) = self.files.moved() {
            return Err(self.abandon(&what).await);
        }
        self.check_files()?;
        if self.reads_only() && self.files.quiet().is_some() {
            // Beside writers, a reader needs the log's files, which it may not be allowed to create. If no process has
            // the database open, its file alone is enough.
            let mut pooled = self.quiet_pool.acquire().await.map_err(|error| self.not_opened(error))?;
            pooled.is_reusable = false;
            return self.check(pooled).await;
        }
        let before = self.files.now().database;
        let pooled = self.acquire().await?;
        if pooled.reused {
            let Some(what) = self.files.log_moved(&pooled.metadata) else { return Ok(pooled) };
            pooled.release();
            return Err(self.abandon(&what).await);
        }
        let pooled = self.check(pooled).await?;
        match before.and_then(|before| self.files.what_happened_to(before)) {
            Some(what) => Err(self.abandon(&what).await),
            None => Ok(pooled),
        }
    }

    /// Returns whether the file is opened read-only.
    pub(super) fn reads_only(&self) -> bool {
        self.migration_mode != MigrationMode::Apply
    }

    /// Reads the database. A read without locks is repeated if the file changed during the read.
    pub(super) async fn read_undisturbed<T, F: Future<Output = T>>(&self, read: impl Fn() -> F) -> T {
        for _ in 1..QUIET_READS {
            // A file that no process has open is read without locks. If a process opens it during the read, the file
            // may change.
            let quiet = self.files.quiet();
            let result = read().await;
            if !self.reads_only() || quiet.is_none() || quiet == self.files.quiet() {
                return result;
            }
        }
        read().await
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        self.pool.close().await;
        self.quiet_pool.close().await;
    }

    /// Migrates the schema of a newly opened file, and checks that it is the same database as before.
    async fn check(&self, mut pooled: PooledSqlite) -> Result<PooledSqlite, Error> {
        let shown = self.files.shown();
        let key = self.key.get().cloned().unwrap_or_else(|| migration::new_key(self.new_key));
        let stored = schema::migrate(&mut pooled.connection, shown, self.migration_mode, key).await?;
        if let Some(stored) = stored
            && self.key.get_or_init(|| stored.clone()) != &stored
        {
            let what = format!("`{}` is another database now: it has another hashing key", shown.display());
            return Err(unavailable(format!("{what}; restore the right file, or restart to use this one")));
        }
        pooled.metadata = self.files.now();
        self.files.opened(pooled.metadata.database);
        Ok(pooled)
    }

    /// Closes a database whose files were moved or deleted, and returns the error for the caller.
    ///
    /// The content of the log is written to the database to which it belongs. The next connection opens the file that
    /// is then at the path.
    async fn abandon(&self, what: &str) -> Error {
        let mut open = OpenFiles::default();
        while let Some(mut pooled) = self.pool.acquire_idle() {
            // This statement fails if another process reads the log. The log is then set aside.
            let emptied = pooled.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
            tracing::debug!(?emptied, "wrote the log into the database");
            open = std::mem::take(&mut pooled.metadata);
            // Closing the last connection removes the log, so it must happen before the log is set aside.
            let _ = pooled.close().await;
        }
        self.pool.renew().await;
        let aside = self.files.abandoned(&open);
        let aside = aside.map(|aside| format!("; its write-ahead log is now {}", aside.display())).unwrap_or_default();
        tracing::warn!("{what} while the database was open{aside}");
        let or_create = if self.create { ", or creates it" } else { "" };
        let next = format!("the next attempt opens the file that is then at the path{or_create}");
        unavailable(format!(
            "{what} while the database was open{aside}; {next}; usage that only the old file contains is missing"
        ))
    }

    /// Acquires a connection, and waits while another process sets up the file.
    ///
    /// Enabling the write-ahead log needs exclusive access to the file, and SQLite does not wait for it.
    async fn acquire(&self) -> Result<PooledSqlite, Error> {
        let deadline = Instant::now() + BUSY_LIMIT;
        loop {
            match self.pool.acquire().await {
                Ok(pooled) => return Ok(pooled),
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

    /// Returns an error if the file is missing and must not be created, or if its log belongs to another file.
    fn check_files(&self) -> Result<(), Error> {
        let shown = self.files.shown().display();
        if !self.create && self.files.path().try_exists().is_ok_and(|exists| !exists) {
            let hint = match self.migration_mode {
                MigrationMode::Apply => "correct the path, or omit `mode=rw` to create it",
                MigrationMode::Refuse | MigrationMode::Accept => "`serve` or `replay` creates it",
            };
            return Err(unavailable(format!("there is no database file {shown}; {hint}")));
        }
        if self.files.has_stale_log() {
            let what = format!("`{shown}-wal` belongs to the previous file at this path");
            let hint = format!("stop every process that uses `{shown}`, and delete `{shown}-wal` and `{shown}-shm`");
            return Err(unavailable(format!("{what}; {hint}")));
        }
        Ok(())
    }
}

fn unavailable(reason: String) -> Error {
    Error::Unavailable { action: OPENING, source: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// Returns the number of reads of a file that changes during the first `changes` reads.
    async fn reads(migration_mode: MigrationMode, has_log: bool, changes: usize) -> usize {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("usage.db");
        fs::write(&path, "").unwrap();
        if has_log {
            fs::write(directory.path().join("usage.db-wal"), "").unwrap();
        }
        let opener = Opener::new(SqliteUrl { path: path.clone(), create: true }, migration_mode, None);
        let reads = Cell::new(0);
        let read = async || {
            reads.set(reads.get() + 1);
            if reads.get() <= changes {
                fs::write(&path, vec![0; reads.get()]).unwrap();
            }
            reads.get()
        };
        opener.read_undisturbed(read).await
    }

    #[tokio::test]
    async fn a_file_that_changes_during_a_read_without_locks_is_read_again() {
        for (changes, expected) in [(0, 1), (1, 2), (2, 3), (3, 3)] {
            assert_eq!(reads(MigrationMode::Refuse, false, changes).await, expected, "{changes} changes");
        }
    }

    #[tokio::test]
    async fn a_read_with_locks_is_not_repeated() {
        assert_eq!(reads(MigrationMode::Apply, false, 3).await, 1);
        assert_eq!(reads(MigrationMode::Refuse, true, 3).await, 1);
    }

    fn opener(directory: &TempDir, create: bool) -> Opener {
        Opener::new(SqliteUrl { path: directory.path().join("usage.db"), create }, MigrationMode::Apply, None)
    }

    #[tokio::test]
    async fn a_file_that_another_process_sets_up_is_opened_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(directory.path().join("usage.db")).create_if_missing(true);
        let mut other = options.connect().await.unwrap();
        other.execute("BEGIN IMMEDIATE; CREATE TABLE other (id)").await.unwrap();
        let opener = opener(&directory, true);
        let end = async {
            tokio::time::sleep(10 * SET_UP_RETRY).await;
            other.execute("COMMIT").await.unwrap();
        };
        let (opened, ()) = tokio::join!(opener.acquire(), end);
        assert!(opened.is_ok(), "{:?}", opened.map(drop));
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused_without_a_wait() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("usage.db"), "no database".repeat(100)).unwrap();
        let opener = opener(&directory, true);
        let opened = tokio::time::timeout(BUSY_LIMIT / 2, opener.acquire()).await.expect("it is not tried again");
        assert!(matches!(opened.map(drop), Err(Error::Refused { .. })));
    }

    #[tokio::test]
    async fn a_missing_file_that_is_not_to_be_created_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = opener(&directory, false).connection().await.map(drop).unwrap_err();
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.contains("there is no database file") && text.contains("usage.db"), "{text}");
    }
}
