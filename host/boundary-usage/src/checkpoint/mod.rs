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
        let known = self.account.last_flush.max(self.flush_in_doubt().unwrap_or_default());
        if applied > known {
            return Err(Refusal::Old { known, applied });
        }
        Ok(())
    }
}

/// Takes the replica's checkpoint into use: answers what it holds, if it is ours to go on from.
pub(crate) async fn restore(
    directory: PathBuf,
    replica: Uuid,
    key: HashingKey,
    database: &Database,
) -> Result<Restored, Error> {
    let opening = directory.clone();
    let opened = database.runtime().spawn_blocking(move || {
        let files = StateFiles::open(&opening, replica)?;
        let found = files.read();
        Ok::<_, Error>((files, found))
    });
    let (files, found) = opened.await.map_err(|error| unusable(&directory, error))??;
    let last_flush = last_flush(database, replica).await?;
    let fingerprint = fingerprint(key);
    let mut account = Account { last_flush, left_over: LeftOver::default() };
    let mut restored = false;
    match found {
        Ok(None) => {}
        Err(error) => set_aside(&files, &error, "damaged"),
        Ok(Some(checkpoint)) => match checkpoint.judge(replica, fingerprint, last_flush) {
            Ok(()) => {
                restored = !checkpoint.is_empty();
                account.left_over = checkpoint.account.left_over;
            }
            Err(refusal) => set_aside(&files, &refusal, "refused"),
        },
    }
    if restored {
        tracing::info!(%replica, checkpoint = %files.path().display(), "restored what an earlier process left");
    }
    Ok(Restored { files, fingerprint, account, restored })
}

fn set_aside(files: &StateFiles, why: &(dyn std::error::Error + 'static), suffix: &str) {
    let path = files.path().display();
    match files.set_aside(suffix) {
        Ok(kept) => {
            let kept = kept.display();
            tracing::warn!(checkpoint = %path, why, kept = %kept, "a checkpoint is set aside, and not restored");
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(checkpoint = %path, why, error, "a checkpoint is not restored, and cannot be set aside");
        }
    }
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
