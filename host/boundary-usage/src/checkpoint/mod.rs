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
//! `format` is the file's bytes, `file` how they get onto the disk and who may use them, `keeper` when.

mod file;
mod format;
mod keeper;

use std::path::{Path, PathBuf};

use boundary_usage_tracker::{HashingKey, LeftOver};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use self::file::StateFiles;
pub use self::format::{Checkpoint, CheckpointError};
pub use self::keeper::CheckpointStatus;
pub(crate) use self::keeper::{Keeper, Restored};
use crate::database::{Database, Lock, LockMode, Purpose};
use crate::error::Error;
use crate::ledger::Account;

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
    /// Whether it goes on where the database stands. `applied` is the replica's last flush, read under its lock.
    fn judge(&self, replica: Uuid, fingerprint: Fingerprint, applied: u64) -> Result<(), Refusal> {
        if self.replica != replica {
            return Err(Refusal::OtherReplica(self.replica));
        }
        if self.fingerprint != fingerprint {
            return Err(Refusal::OtherDatabase);
        }
        let known = self.known();
        if applied > known {
            return Err(Refusal::Old { known, applied });
        }
        Ok(())
    }

    /// The highest flush number that it knows. It is restored only where the database has none beyond.
    fn known(&self) -> u64 {
        self.last_flush().max(self.flush_in_doubt().unwrap_or_default())
    }
}

/// Takes the replica's checkpoint into use. Returns what the tracker starts from.
///
/// # Errors
///
/// [`Error::State`] if the directory or a file in it cannot be used, and errors of the database.
pub(crate) async fn restore(
    directory: PathBuf,
    replica: Uuid,
    key: HashingKey,
    database: &Database,
) -> Result<Restored, Error> {
    let (fingerprint, opening) = (fingerprint(key), directory.clone());
    let opened = database.runtime().spawn_blocking(move || open(&opening, replica, fingerprint));
    let (files, found) = opened.await.map_err(|error| unusable(&directory, error))??;
    let last_flush = last_flush(database, replica).await?;
    let mut restored = Restored {
        files,
        fingerprint,
        account: Account { last_flush, left_over: LeftOver::default() },
        known: 0,
        restored: false,
    };
    let Some(checkpoint) = found else { return Ok(restored) };
    if let Err(refusal) = checkpoint.judge(replica, fingerprint, last_flush) {
        set_aside(&restored.files, restored.files.path(), &refusal, "refused")?;
        return Ok(restored);
    }
    restored.known = checkpoint.known();
    restored.restored = !checkpoint.is_empty();
    if restored.restored {
        let path = restored.files.path().display();
        tracing::info!(%replica, checkpoint = %path, "restored what an earlier process left");
    }
    // What the checkpoint knows to be confirmed may be more than the database still has: the next flush reports it.
    restored.account.last_flush = last_flush.max(checkpoint.last_flush());
    restored.account.left_over = checkpoint.account.left_over;
    Ok(restored)
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
    let found = read_or_set_aside(&files, files.path())?;
    Ok((files, found))
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
    let kept = files.set_aside(path, suffix).map_err(|error| Error::State {
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
