//! Checkpoints: the state of the ledger on disk, which survives a crash of the host.
//!
//! A checkpoint is written at every interval in which the ledger has changed. A checkpoint is also written before every
//! COMMIT, and then records the flush as in doubt. After a crash, the next start compares the checkpoint with the
//! replica's last flush in the database:
//!
//! | last flush of the database | conclusion | unflushed activity |
//! | --- | --- | --- |
//! | the checkpoint's last flush | the flush in doubt was not applied | all of the checkpoint |
//! | the flush in doubt | the flush in doubt was applied | the rest of the checkpoint |
//! | later than both | the file is old, and later flushes carried its activity | none; the file is set aside |
//! | earlier than both | the database was restored from a backup | all of the checkpoint |
//!
//! Each database has its own file. If a file cannot be read, the start fails, because the fault may be temporary. A
//! file is set aside only if its content is damaged, is old, or belongs to another replica.
//!
//! If the database is unavailable at the start, the checkpoint cannot be validated yet. The tracker then keeps that
//! checkpoint unchanged in the file. The tracker adds the *offline activity*, which is all activity before the first
//! connection. After the first connection, the tracker validates the checkpoint. Offline activity needs no validation,
//! because no flush has carried it.
//!
//! - `format` converts checkpoints to bytes.
//! - `file` stores the files and locks them.
//! - `writer` decides when to write.
//! - `key_file` stores the hashing key for a start without the database.
//! - `replica_file` stores the replica's id.

mod file;
mod format;
mod key_file;
mod replica_file;
mod writer;

use std::path::{Path, PathBuf};

use boundary_usage_tracker::HashingKey;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use self::file::StateFiles;
pub use self::format::{Checkpoint, CheckpointError};
pub use self::key_file::KeyFile;
pub use self::replica_file::stored_replica;
pub use self::writer::CheckpointStatus;
pub(crate) use self::writer::{CheckpointWriter, Found};
use crate::database::{Database, Lock, LockMode, Purpose};
use crate::error::Error;

/// An identifier of a database.
///
/// The identifier is a hash of the database's hashing key, which does not reveal the key.
type Fingerprint = [u8; 16];

fn fingerprint(key: HashingKey) -> Fingerprint {
    let mut hash = Sha256::new_with_prefix(b"boundary-usage: the database of a checkpoint\0");
    hash.update(key.0.to_be_bytes());
    hash.update(key.1.to_be_bytes());
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&hash.finalize()[..16]);
    fingerprint
}

/// The reason why a readable checkpoint is not restored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("it belongs to replica {0}")]
    OtherReplica(Uuid),
    #[error("it belongs to another database")]
    OtherDatabase,
    #[error("the newer checkpoint {0} replaces it")]
    Replaced(String),
    #[error("it is old: it ends at flush {newest}, and the database has flush {applied} of this replica")]
    Old { newest: u64, applied: u64 },
}

impl Checkpoint {
    /// Checks that the checkpoint belongs to this replica and this database.
    fn identify(&self, replica: Uuid, fingerprint: Fingerprint) -> Result<(), Refusal> {
        if self.replica != replica {
            return Err(Refusal::OtherReplica(self.replica));
        }
        if self.fingerprint != fingerprint {
            return Err(Refusal::OtherDatabase);
        }
        Ok(())
    }

    /// Checks that the ledger state is not older than the database.
    ///
    /// `applied` is the replica's last flush, read under its lock.
    fn validate(&self, applied: u64) -> Result<(), Refusal> {
        let newest = self.newest_flush();
        if applied > newest {
            return Err(Refusal::Old { newest, applied });
        }
        Ok(())
    }

    fn newest_flush(&self) -> u64 {
        self.last_flush().max(self.flush_in_doubt().unwrap_or_default())
    }

    /// Returns the highest flush number at which a start still restores something.
    ///
    /// If the replica's last flush in the database is newer, a start restores no part of this checkpoint.
    fn restorable_up_to(&self) -> u64 {
        // Offline activity is always restored.
        if self.offline.is_some() { u64::MAX } else { self.newest_flush() }
    }
}

/// Acquires the replica's lock and finds its checkpoint of this database, without validating it.
///
/// # Errors
///
/// - [`Error::State`] if the directory or a file in it cannot be used.
pub(crate) async fn find(
    directory: PathBuf,
    replica: Uuid,
    key: HashingKey,
    database: &Database,
) -> Result<Found, Error> {
    let (fingerprint, opening) = (fingerprint(key), directory.clone());
    let opened = database.runtime().spawn_blocking(move || open(&opening, replica, fingerprint));
    let (files, checkpoint) = opened.await.map_err(|error| unusable(&directory, error))??;
    Ok(Found { files, fingerprint, checkpoint })
}

/// Acquires the replica's lock and reads its checkpoint of this database. Blocks on the disk.
fn open(directory: &Path, replica: Uuid, fingerprint: Fingerprint) -> Result<(StateFiles, Option<Checkpoint>), Error> {
    let files = StateFiles::open(directory, replica, fingerprint)?;
    name_after_its_database(&files)?;
    for path in files.others().map_err(|error| unusable(directory, error))? {
        // An unreadable checkpoint of another database does not matter here.
        let Ok(Some(other)) = file::read(&path) else { continue };
        if !other.is_empty() {
            let (allowed, denied) = other.requests();
            tracing::warn!(
                checkpoint = %path.display(), allowed, denied,
                "a checkpoint holds activity for another database; the next start on that database writes it"
            );
        }
    }
    let Some(found) = read_or_set_aside(&files, files.path())? else { return Ok((files, None)) };
    if let Err(refusal) = found.identify(replica, fingerprint) {
        set_aside(&files, files.path(), &refusal, "refused")?;
        return Ok((files, None));
    }
    Ok((files, Some(found)))
}

/// Renames a checkpoint of an earlier release, whose name lacks the database's fingerprint.
fn name_after_its_database(files: &StateFiles) -> Result<(), Error> {
    let path = files.unnamed_path();
    let Some(checkpoint) = read_or_set_aside(files, &path)? else { return Ok(()) };
    let named = files.path_for(checkpoint.fingerprint);
    if named.try_exists().map_err(|error| unreadable(&named, error))? {
        return set_aside(files, &path, &Refusal::Replaced(named.display().to_string()), "refused");
    }
    files.rename(&path, &named).map_err(|error| unusable(&path, error))
}

/// Reads the checkpoint at a path, and sets it aside if it is damaged.
fn read_or_set_aside(files: &StateFiles, path: &Path) -> Result<Option<Checkpoint>, Error> {
    match file::read(path) {
        Err(CheckpointError::Io(error)) => Err(unreadable(path, error)),
        Err(error) => set_aside(files, path, &error, "damaged").map(|()| None),
        Ok(found) => Ok(found),
    }
}

fn set_aside(
    files: &StateFiles,
    path: &Path,
    reason: &(dyn std::error::Error + 'static),
    suffix: &str,
) -> Result<(), Error> {
    set_aside_with(StateFiles::rename, files, path, reason, suffix)
}

/// Sets a checkpoint aside with `StateFiles::rename` or `StateFiles::copy`.
fn set_aside_with(
    transfer: fn(&StateFiles, &Path, &Path) -> std::io::Result<()>,
    files: &StateFiles,
    path: &Path,
    reason: &(dyn std::error::Error + 'static),
    suffix: &str,
) -> Result<(), Error> {
    let kept = files.free_path(path, suffix).and_then(|kept| transfer(files, path, &kept).map(|()| kept));
    let kept = kept.map_err(|error| Error::State {
        message: format!("cannot set aside the unusable checkpoint {} ({reason})", path.display()),
        source: Some(error.into()),
    })?;
    let (path, kept) = (path.display(), kept.display());
    tracing::warn!(checkpoint = %path, why = reason, kept = %kept, "a checkpoint is set aside, and not restored");
    Ok(())
}

/// Returns the error for a checkpoint that exists but cannot be read. The start fails with this error, so that the
/// activity is not lost.
fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let message = format!(
        "cannot read the checkpoint {}; make it readable, or delete it to start without its activity",
        path.display()
    );
    Error::State { message, source: Some(error.into()) }
}

/// Returns the replica's last flush.
///
/// The replica's lock excludes running commits, including those of a crashed process, so the result is final.
async fn last_flush(database: &Database, replica: Uuid) -> Result<u64, Error> {
    let mut transaction = database.backend().begin(Purpose::Flush).await?;
    let read = async {
        transaction.acquire(Lock::Replica(replica), LockMode::Exclusive).await?;
        Ok(transaction.read(replica).await?.last_flush)
    };
    let last_flush = read.await;
    transaction.rollback().await;
    last_flush
}

/// Returns the error for a state directory that cannot be used.
fn unusable(path: &Path, error: impl Into<crate::error::Cause>) -> Error {
    Error::State { message: format!("cannot use {} for checkpoints", path.display()), source: Some(error.into()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use boundary_usage_tracker::{CompactThetaSketch, Snapshot, Unflushed, Uniques};

    use super::*;
    use crate::ledger::LedgerState;

    const REPLICA: Uuid = Uuid::from_u128(7);
    const DATABASE: Fingerprint = [1; 16];

    fn checkpoint(replica: Uuid, fingerprint: Fingerprint, allowed: Option<u64>) -> Checkpoint {
        let uniques = || Uniques { workspaces: CompactThetaSketch::empty(), users: CompactThetaSketch::empty() };
        let delta = allowed.map(|allowed| Snapshot { uniques: uniques(), allowed, denied: 0 });
        let ledger_state = LedgerState { last_flush: 3, unflushed: Unflushed { delta, in_doubt: None } };
        Checkpoint { replica, fingerprint, ledger_state, offline: None }
    }

    #[test]
    fn a_file_that_holds_another_replica_or_database_is_set_aside() {
        for (replica, fingerprint, is_restored) in
            [(REPLICA, DATABASE, true), (Uuid::from_u128(8), DATABASE, false), (REPLICA, [2; 16], false)]
        {
            let directory = tempfile::tempdir().unwrap();
            let path = open(directory.path(), REPLICA, DATABASE).unwrap().0.path().to_owned();
            fs::write(&path, checkpoint(replica, fingerprint, Some(5)).to_bytes()).unwrap();
            let (_files, found) = open(directory.path(), REPLICA, DATABASE).unwrap();
            assert_eq!((found.is_some(), path.exists()), (is_restored, is_restored));
            let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let refused = names.filter(|name| name.to_str().unwrap().contains(".checkpoint.refused-")).count();
            assert_eq!(refused, usize::from(!is_restored));
        }
    }

    #[test]
    fn only_activity_for_another_database_is_announced() {
        for (allowed, is_announced) in [(Some(5), true), (None, false)] {
            let directory = tempfile::tempdir().unwrap();
            let other = open(directory.path(), REPLICA, [2; 16]).unwrap().0.path().to_owned();
            fs::write(other, checkpoint(REPLICA, [2; 16], allowed).to_bytes()).unwrap();
            let log = directory.path().join("log");
            let writer = Arc::new(fs::File::create(&log).unwrap());
            let subscriber = tracing_subscriber::fmt().with_writer(writer).finish();
            tracing::subscriber::with_default(subscriber, || drop(open(directory.path(), REPLICA, DATABASE).unwrap()));
            let log = fs::read_to_string(log).unwrap();
            assert_eq!(log.contains("holds activity for another database"), is_announced, "{log}");
        }
    }
}
