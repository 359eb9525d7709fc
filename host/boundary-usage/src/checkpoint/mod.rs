//! What survives a crash of the host: the ledger's account, on disk.
//!
//! A checkpoint is written at every interval in which something changed, and always before a COMMIT is sent, with that
//! flush in doubt. So whenever the process dies, the file and the database's number of the replica's last flush say
//! together what was counted:
//!
//! ```text
//! last flush of the database  =  of the checkpoint         the flush in doubt was not applied: all of it goes out again
//!                             =  the flush in doubt        it was applied: the rest goes out
//!                             >  both                      an old file: refused, for later flushes carried what it holds
//!                             <  of the checkpoint         the database was put back: it holds nothing of this either
//! ```
//!
//! Each database has a file of its own. A file that cannot be read stops the start, because the fault may be over the next
//! time. Only a file whose content is damaged, old or of another replica is set aside.
//!
//! If the database is away at the start, the account cannot be judged yet. The file then holds it unchanged, and beside it what
//! is recorded since, which no flush has carried. The first connection judges the account, and what was recorded since counts
//! in any case.
//!
//! `format` is the file's bytes, `file` how they get onto the disk and who may use them, `writer` when. `key_file` keeps the
//! hashing key for a start without the database.

mod file;
mod format;
mod key_file;
mod writer;

use std::path::{Path, PathBuf};

use boundary_usage_tracker::HashingKey;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use self::file::StateFiles;
pub use self::format::{Checkpoint, CheckpointError};
pub use self::key_file::KeyFile;
pub use self::writer::CheckpointStatus;
pub(crate) use self::writer::{CheckpointWriter, Found};
use crate::database::{Database, Lock, LockMode, Purpose};
use crate::error::Error;

/// Names a database without telling its key: the hash of that, under a domain of our own.
type Fingerprint = [u8; 16];

fn fingerprint(key: HashingKey) -> Fingerprint {
    let mut hash = Sha256::new_with_prefix(b"boundary-usage: the database of a checkpoint\0");
    hash.update(key.0.to_be_bytes());
    hash.update(key.1.to_be_bytes());
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&hash.finalize()[..16]);
    fingerprint
}

/// Why a readable checkpoint is not restored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("it is of replica {0}")]
    OtherReplica(Uuid),
    #[error("it is of another database")]
    OtherDatabase,
    #[error("the newer checkpoint {0} has taken its place")]
    Replaced(String),
    #[error("it is old: it knows of flush {known} and the database has flush {applied} of this replica")]
    Old { known: u64, applied: u64 },
}

impl Checkpoint {
    /// Whether it is of this replica and this database.
    fn identify(&self, replica: Uuid, fingerprint: Fingerprint) -> Result<(), Refusal> {
        if self.replica != replica {
            return Err(Refusal::OtherReplica(self.replica));
        }
        if self.fingerprint != fingerprint {
            return Err(Refusal::OtherDatabase);
        }
        Ok(())
    }

    /// Whether its account goes on where the database stands. `applied` is the replica's last flush, read under its lock.
    fn validate(&self, applied: u64) -> Result<(), Refusal> {
        let known = self.last_flush().max(self.flush_in_doubt().unwrap_or_default());
        if applied > known {
            return Err(Refusal::Old { known, applied });
        }
        Ok(())
    }

    /// The highest flush number whose commit would not keep the next start from restoring a part of this file.
    fn known(&self) -> u64 {
        // What was recorded since a start without the database is restored whatever the database has.
        if self.since.is_some() {
            return u64::MAX;
        }
        self.last_flush().max(self.flush_in_doubt().unwrap_or_default())
    }
}

/// Takes the replica's lock and finds its checkpoint of this database, which is yet to be judged.
///
/// # Errors
///
/// [`Error::State`] if the directory or a file in it cannot be used.
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

/// Takes the replica's lock and reads its checkpoint of this database. All of it may wait for a disk.
fn open(directory: &Path, replica: Uuid, fingerprint: Fingerprint) -> Result<(StateFiles, Option<Checkpoint>), Error> {
    let files = StateFiles::open(directory, replica, fingerprint)?;
    name_after_its_database(&files)?;
    for path in files.others().map_err(|error| unusable(directory, error))? {
        // A file that cannot be read matters to a start on its own database, and not to this one.
        let Ok(Some(other)) = file::read(&path) else { continue };
        if !other.is_empty() {
            let (allowed, denied) = other.requests();
            tracing::warn!(
                checkpoint = %path.display(), allowed, denied,
                "a checkpoint holds activity for another database; it is kept, and the next start on that database writes it"
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

/// Renames a checkpoint of a release whose names lacked the database.
fn name_after_its_database(files: &StateFiles) -> Result<(), Error> {
    let path = files.unnamed_path();
    let Some(checkpoint) = read_or_set_aside(files, &path)? else { return Ok(()) };
    let named = files.path_for(checkpoint.fingerprint);
    if named.try_exists().map_err(|error| unreadable(&named, error))? {
        return set_aside(files, &path, &Refusal::Replaced(named.display().to_string()), "refused");
    }
    files.rename(&path, &named).map_err(|error| unusable(&path, error))
}

/// The checkpoint at a path. One that is damaged is set aside.
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
    why: &(dyn std::error::Error + 'static),
    suffix: &str,
) -> Result<(), Error> {
    set_aside_by(StateFiles::rename, files, path, why, suffix)
}

/// Sets a checkpoint aside by this way to get it to its new path.
fn set_aside_by(
    way: fn(&StateFiles, &Path, &Path) -> std::io::Result<()>,
    files: &StateFiles,
    path: &Path,
    why: &(dyn std::error::Error + 'static),
    suffix: &str,
) -> Result<(), Error> {
    let kept = files.free_path(path, suffix).and_then(|kept| way(files, path, &kept).map(|()| kept));
    let kept = kept.map_err(|error| Error::State {
        message: format!("cannot set aside the checkpoint {}, which is not usable ({why})", path.display()),
        source: Some(error.into()),
    })?;
    let (path, kept) = (path.display(), kept.display());
    tracing::warn!(checkpoint = %path, why, kept = %kept, "a checkpoint is set aside, and not restored");
    Ok(())
}

/// A checkpoint may be there and cannot be read: its activity must not be given up.
fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let message = format!(
        "cannot read the checkpoint {}; make it readable and start again, or delete it to start without what it holds",
        path.display()
    );
    Error::State { message, source: Some(error.into()) }
}

/// The replica's last flush. Under its lock: a commit that a dead process sent is over then.
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

/// The state directory cannot be used.
fn unusable(path: &Path, error: impl Into<crate::error::Cause>) -> Error {
    Error::State { message: format!("cannot keep a checkpoint in {}", path.display()), source: Some(error.into()) }
}
