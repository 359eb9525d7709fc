//! The checkpoint writer: when checkpoints are written, and what happens if a write fails.
//!
//! A failed write stops neither tracking nor flushes, because a full disk may stay full for days. A commit is safe
//! despite an older checkpoint on disk if the commit's flush number exceeds all flush numbers in that file. The next
//! start then refuses the file.
//!
//! The commit's number can be lower, if an earlier attempt was not applied, or if the database was restored from a
//! backup. The next start would then restore the old file, and activity that is both in the file and in the commit
//! would count twice. Therefore the writer removes the file before such a commit. If the writer cannot remove the file,
//! it postpones the commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boundary_usage_tracker::{Snapshot, Unflushed};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::file::{StateFiles, WriteFailure};
use super::{Checkpoint, Fingerprint};
use crate::database::Database;
use crate::error::Error;
use crate::ledger::{Ledger, LedgerState};
use crate::options::Options;

/// The files of a replica and its checkpoint, as found at the start.
pub(crate) struct Found {
    pub(super) files: StateFiles,
    pub(super) fingerprint: Fingerprint,
    pub(super) checkpoint: Option<Checkpoint>,
}

impl Found {
    /// Returns the checkpoint's offline activity, with which the ledger begins.
    pub(crate) fn offline(&self) -> Option<Snapshot> {
        self.checkpoint.as_ref()?.offline.clone()
    }
}

/// Writes the checkpoints of one tracker.
pub(crate) struct CheckpointWriter {
    replica: Uuid,
    fingerprint: Fingerprint,
    ledger: Arc<Mutex<Ledger>>,
    runtime: Handle,
    /// Locked during a write, so that writes keep their order.
    disk: Mutex<Disk>,
    status: Mutex<CheckpointStatus>,
}

/// The state of the files on disk.
struct Disk {
    /// `None` after the writer is closed.
    files: Option<StateFiles>,
    /// The revision of the ledger state that is in the file.
    written_revision: u64,
    /// The highest flush number at which a start still restores a part of the file.
    restorable_up_to: u64,
    earlier: Earlier,
}

/// The checkpoint of an earlier process.
enum Earlier {
    /// The database's last flush is not available yet. Each write keeps the earlier ledger state.
    Unvalidated(Option<Box<Checkpoint>>),
    /// The ledger contains the valid part of the checkpoint.
    Validated,
}

/// The state of a tracker's checkpoints.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointStatus {
    /// The path of the file.
    pub path: String,
    /// Whether the tracker restored activity of an earlier process.
    pub restored: bool,
    /// The number of checkpoints written since the start.
    pub written: u64,
    /// The number of failed writes since the start.
    pub failed: u64,
    /// The last time at which the checkpoint was complete, by this machine's clock.
    ///
    /// A complete checkpoint contains all unflushed activity. The checkpoint stays complete until new activity arrives.
    pub complete_at: DateTime<Utc>,
    /// The error of the last write, or `None` if it succeeded.
    ///
    /// If there is an error, a crash loses the activity since the last successful write.
    pub last_error: Option<String>,
}

/// The reason for a write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteReason {
    /// The checkpoint interval has elapsed.
    Interval,
    /// A commit is about to be sent.
    Commit,
    /// The tracker stops.
    Close,
}

impl CheckpointWriter {
    /// Creates a writer for a ledger that contains [`Found::offline`].
    ///
    /// The caller must call [`Self::validate`] before the first flush.
    pub(crate) fn new(replica: Uuid, found: Found, ledger: Arc<Mutex<Ledger>>, runtime: Handle) -> Self {
        let Found { files, fingerprint, checkpoint } = found;
        let restored = checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.is_empty());
        let path = files.path().display().to_string();
        let status =
            CheckpointStatus { path, restored, written: 0, failed: 0, complete_at: Utc::now(), last_error: None };
        // The ledger contains nothing that the file lacks.
        let written_revision = lock(&ledger).revision();
        let restorable_up_to = checkpoint.as_ref().map_or(0, Checkpoint::restorable_up_to);
        let disk = Mutex::new(Disk {
            files: Some(files),
            written_revision,
            restorable_up_to,
            earlier: Earlier::Unvalidated(checkpoint.map(Box::new)),
        });
        Self { replica, fingerprint, ledger, runtime, disk, status: Mutex::new(status) }
    }

    pub(crate) fn status(&self) -> CheckpointStatus {
        lock(&self.status).clone()
    }

    /// Returns whether the checkpoint of an earlier process has not been validated yet.
    pub(crate) fn is_unvalidated(&self) -> bool {
        matches!(lock(&self.disk).earlier, Earlier::Unvalidated(_))
    }

    /// Returns whether an earlier process left activity that has not been validated yet.
    pub(crate) fn has_unvalidated_activity(&self) -> bool {
        match &lock(&self.disk).earlier {
            Earlier::Unvalidated(Some(checkpoint)) => !checkpoint.is_empty(),
            _ => false,
        }
    }

    /// Validates the checkpoint of an earlier process and adds its valid part to the ledger.
    ///
    /// The replica's last flush in the database determines that part.
    ///
    /// # Errors
    ///
    /// - [`Error::State`] if an invalid checkpoint cannot be set aside.
    /// - [`Error::Stopped`] if the writer is closed.
    /// - Any error of the database if the last flush cannot be read.
    pub(crate) async fn validate(&self, database: &Database) -> Result<(), Error> {
        let applied = super::last_flush(database, self.replica).await?;
        let mut disk = lock(&self.disk);
        let Disk { files: Some(files), written_revision, restorable_up_to, earlier } = &mut *disk else {
            return Err(Error::Stopped);
        };
        let Earlier::Unvalidated(found) = earlier else { return Ok(()) };
        let mut state = LedgerState { last_flush: applied, unflushed: Unflushed::default() };
        let mut restored = false;
        if let Some(checkpoint) = found.take() {
            restored = checkpoint.offline.is_some();
            match checkpoint.validate(applied) {
                Ok(()) => {
                    restored = !checkpoint.is_empty();
                    // If the database has lost confirmed flushes, the next flush reports them.
                    state.last_flush = applied.max(checkpoint.last_flush());
                    state.unflushed = checkpoint.ledger_state.unflushed;
                }
                // The earlier ledger state is empty, so there is nothing to set aside.
                Err(_) if checkpoint.is_only_offline() => {}
                Err(refusal) => {
                    // A file with offline activity must stay in place until the next write.
                    let has_offline = *restorable_up_to == u64::MAX;
                    let transfer = if has_offline { StateFiles::copy } else { StateFiles::rename };
                    if let Err(error) = super::set_aside_with(transfer, files, files.path(), &refusal, "refused") {
                        *found = Some(checkpoint);
                        return Err(error);
                    }
                    if !has_offline {
                        *restorable_up_to = 0;
                    }
                }
            }
        }
        *earlier = Earlier::Validated;
        lock(&self.ledger).add(state);
        if *restorable_up_to == u64::MAX {
            // The file stores offline activity separately from the ledger state. The next write must merge these two
            // parts.
            *written_revision = u64::MAX;
        }
        let mut status = lock(&self.status);
        status.restored = restored;
        if restored {
            tracing::info!(
                replica = %self.replica, checkpoint = status.path,
                "restored the unflushed activity of an earlier process"
            );
        }
        Ok(())
    }

    /// Starts a task that writes at every interval until the tracker stops.
    pub(crate) fn start(self: &Arc<Self>, options: &Options) {
        let (writer, clock, interval) = (Arc::downgrade(self), options.clock.clone(), options.checkpoint_interval);
        self.runtime.spawn(async move {
            loop {
                clock.sleep(interval).await;
                let Some(writer) = writer.upgrade() else { return };
                // `write` has logged a failure. The next interval tries again.
                let _ = writer.write(WriteReason::Interval).await;
            }
        });
    }

    /// Writes a checkpoint before a commit is sent.
    ///
    /// # Errors
    ///
    /// - [`Error::State`] if the commit must not be sent.
    pub(crate) async fn before_commit(self: &Arc<Self>) -> Result<(), Error> {
        self.write(WriteReason::Commit).await
    }

    /// Writes the last checkpoint and unlocks the files. Later commits fail.
    ///
    /// The wait for the disk ends after `limit`.
    pub(crate) async fn close(self: &Arc<Self>, limit: Duration) {
        // `write` has logged any other failure.
        if tokio::time::timeout(limit, self.write(WriteReason::Close)).await.is_err() {
            self.report(&std::io::Error::new(std::io::ErrorKind::TimedOut, format!("not written within {limit:?}")));
        }
    }

    /// Writes on a thread that may block. The write completes even if the caller stops waiting.
    async fn write(self: &Arc<Self>, reason: WriteReason) -> Result<(), Error> {
        let writer = self.clone();
        let written = self.runtime.spawn_blocking(move || writer.write_now(reason)).await;
        written.unwrap_or_else(|panic| Err(postponed("cannot write the checkpoint".into(), Some(panic.into()))))
    }

    fn write_now(&self, reason: WriteReason) -> Result<(), Error> {
        let mut disk = lock(&self.disk);
        let Disk { files: Some(files), written_revision, restorable_up_to, earlier } = &mut *disk else {
            return Err(postponed("the tracker is stopped and writes no checkpoint".into(), None));
        };
        let now = Utc::now();
        let changed = {
            let mut ledger = lock(&self.ledger);
            let revision = ledger.revision();
            (*written_revision != revision).then(|| (revision, ledger.state()))
        };
        let mut result = Ok(());
        if changed.is_none() {
            lock(&self.status).complete_at = now;
        }
        if let Some((revision, state)) = changed {
            let checkpoint = self.checkpoint(earlier, state);
            match files.write(&checkpoint.to_bytes()) {
                Ok(()) => {
                    *written_revision = revision;
                    *restorable_up_to = checkpoint.restorable_up_to();
                    self.succeeded(now);
                }
                Err(failure) => result = self.failed(files, restorable_up_to, &checkpoint, failure, reason),
            }
        }
        if reason == WriteReason::Close {
            disk.files = None;
        }
        result
    }

    /// Returns a checkpoint of the ledger's state and of an unvalidated earlier state.
    fn checkpoint(&self, earlier: &Earlier, state: LedgerState) -> Checkpoint {
        let (ledger_state, offline) = match earlier {
            Earlier::Validated => (state, None),
            Earlier::Unvalidated(found) => {
                let earlier = found.as_ref().map(|found| found.ledger_state.clone()).unwrap_or_default();
                (earlier, state.unflushed.delta)
            }
        };
        Checkpoint { replica: self.replica, fingerprint: self.fingerprint, ledger_state, offline }
    }

    fn succeeded(&self, now: DateTime<Utc>) {
        let mut status = lock(&self.status);
        status.complete_at = now;
        status.written += 1;
        if status.last_error.take().is_some() {
            tracing::info!(replica = %self.replica, checkpoint = status.path, "checkpoints are written again");
        }
    }

    /// Logs a failed write.
    ///
    /// If a commit follows, this function also ensures that no later start restores the old file.
    fn failed(
        &self,
        files: &StateFiles,
        restorable_up_to: &mut u64,
        checkpoint: &Checkpoint,
        WriteFailure { error, replaced }: WriteFailure,
        reason: WriteReason,
    ) -> Result<(), Error> {
        self.report(&error);
        let would_be_restored = checkpoint.flush_in_doubt().is_some_and(|number| number <= *restorable_up_to);
        if replaced {
            *restorable_up_to = checkpoint.restorable_up_to().max(*restorable_up_to);
        }
        if reason != WriteReason::Commit || !would_be_restored {
            return Ok(());
        }
        files.remove().map_err(|error| {
            let message = format!("cannot remove the stale checkpoint {}", files.path().display());
            postponed(message, Some(error.into()))
        })?;
        *restorable_up_to = 0;
        Ok(())
    }

    /// Counts a failed write, and logs it unless the write before it failed too.
    fn report(&self, error: &std::io::Error) {
        let mut status = lock(&self.status);
        status.failed += 1;
        if status.last_error.replace(error.to_string()).is_none() {
            let error = error as &dyn std::error::Error;
            tracing::warn!(
                replica = %self.replica, checkpoint = status.path, error,
                "cannot write the checkpoint; tracking continues, and a crash would lose unflushed activity"
            );
        }
    }
}

/// Returns the error of a commit that must not be sent without a checkpoint.
fn postponed(message: String, source: Option<crate::error::Cause>) -> Error {
    Error::State { message: format!("{message}; the commit is postponed so that nothing is counted twice"), source }
}

/// Locks a mutex whose content is valid even if a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
