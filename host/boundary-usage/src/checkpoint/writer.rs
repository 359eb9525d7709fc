//! When a checkpoint is written, and what becomes of a flush whose checkpoint cannot be.
//!
//! A write that fails never stops tracking, and it must not stop usage from reaching the database either: a full disk
//! may stay full for days. To commit with an older checkpoint on disk is safe if the number of the commit is beyond all numbers
//! that the old file knows: after the commit, the next start refuses that file. A number that is not beyond them comes from an
//! attempt that was not applied, or from a database that was put back to an earlier state. The old file would then be restored
//! after the commit, and what both hold would count twice. So it is removed before the commit, and if it cannot be removed
//! either, the commit is put off.

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

/// What was found at the start.
pub(crate) struct Found {
    pub(super) files: StateFiles,
    pub(super) fingerprint: Fingerprint,
    pub(super) checkpoint: Option<Checkpoint>,
}

impl Found {
    /// Activity recorded since a start without the database. The ledger holds it from the beginning.
    pub(crate) fn since(&self) -> Option<Snapshot> {
        self.checkpoint.as_ref()?.since.clone()
    }
}

/// Writes the checkpoints of one tracker.
pub(crate) struct CheckpointWriter {
    replica: Uuid,
    fingerprint: Fingerprint,
    ledger: Arc<Mutex<Ledger>>,
    runtime: Handle,
    /// Held while writing, so that a later write has later content.
    disk: Mutex<Disk>,
    status: Mutex<CheckpointStatus>,
}

/// What is on disk.
struct Disk {
    /// `None` once closed.
    files: Option<StateFiles>,
    /// The account's revision that was written.
    written: u64,
    /// The highest flush number that a file on disk may know.
    known: u64,
    earlier: Earlier,
}

/// The checkpoint of an earlier process.
enum Earlier {
    /// What it counts for is not known until the database's last flush is. Each write keeps its account.
    Unvalidated(Option<Box<Checkpoint>>),
    /// The ledger holds what of it counts.
    Validated,
}

/// How the checkpoints of a tracker fare.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointStatus {
    /// The file.
    pub path: String,
    /// Whether the tracker went on from what an earlier process had left.
    pub restored: bool,
    /// Checkpoints written since the start.
    pub written: u64,
    /// Writes that failed since the start.
    pub failed: u64,
    /// When the checkpoint last held all that is not in the database, by this machine's clock: it need not be written
    /// again while nothing new comes in.
    pub complete_at: DateTime<Utc>,
    /// Why the last write failed; `None` after one that did not. While it is set, a crash loses what came in since the
    /// last write that succeeded.
    pub last_error: Option<String>,
}

/// Why a checkpoint is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteReason {
    /// It is time.
    Interval,
    /// A commit is about to be sent.
    Commit,
    /// The tracker ends.
    Close,
}

impl CheckpointWriter {
    /// The writer of a ledger that holds [`Found::since`]. What was found has to be validated before the first flush.
    pub(crate) fn new(replica: Uuid, found: Found, ledger: Arc<Mutex<Ledger>>, runtime: Handle) -> Self {
        let Found { files, fingerprint, checkpoint } = found;
        let restored = checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.is_empty());
        let path = files.path().display().to_string();
        let status =
            CheckpointStatus { path, restored, written: 0, failed: 0, complete_at: Utc::now(), last_error: None };
        // What is on disk is what was found, or nothing when there was nothing.
        let written = lock(&ledger).revision();
        let known = checkpoint.as_ref().map_or(0, Checkpoint::known);
        let disk = Mutex::new(Disk {
            files: Some(files),
            written,
            known,
            earlier: Earlier::Unvalidated(checkpoint.map(Box::new)),
        });
        Self { replica, fingerprint, ledger, runtime, disk, status: Mutex::new(status) }
    }

    pub(crate) fn status(&self) -> CheckpointStatus {
        lock(&self.status).clone()
    }

    /// Whether the checkpoint of an earlier process is yet to be validated.
    pub(crate) fn is_unvalidated(&self) -> bool {
        matches!(lock(&self.disk).earlier, Earlier::Unvalidated(_))
    }

    /// Whether an earlier process left activity, or a flush in doubt, that is yet to be validated.
    pub(crate) fn has_unvalidated_activity(&self) -> bool {
        match &lock(&self.disk).earlier {
            Earlier::Unvalidated(Some(checkpoint)) => !checkpoint.is_empty(),
            _ => false,
        }
    }

    /// Validates the checkpoint of an earlier process by the replica's last flush. The ledger goes on from what of it counts.
    ///
    /// # Errors
    ///
    /// Errors of the database, and [`Error::State`] if a checkpoint that does not count cannot be set aside.
    pub(crate) async fn validate(&self, database: &Database) -> Result<(), Error> {
        let applied = super::last_flush(database, self.replica).await?;
        let mut disk = lock(&self.disk);
        let Disk { files: Some(files), written, known, earlier } = &mut *disk else { return Err(Error::Stopped) };
        let Earlier::Unvalidated(found) = earlier else { return Ok(()) };
        let mut account = LedgerState { last_flush: applied, unflushed: Unflushed::default() };
        let mut restored = false;
        if let Some(checkpoint) = found.take() {
            restored = checkpoint.since.is_some();
            match checkpoint.validate(applied) {
                Ok(()) => {
                    restored = !checkpoint.is_empty();
                    // What it knows to be confirmed may be more than the database still has: the next flush reports it.
                    account.last_flush = applied.max(checkpoint.last_flush());
                    account.unflushed = checkpoint.account.unflushed;
                }
                // Its account was empty already before the database went away.
                Err(_) if checkpoint.is_only_since() => {}
                Err(refusal) => {
                    // The file may also hold what was recorded since, until the next write.
                    let keep = if *known == u64::MAX { StateFiles::copy } else { StateFiles::rename };
                    if let Err(error) = super::set_aside_by(keep, files, files.path(), &refusal, "refused") {
                        *found = Some(checkpoint);
                        return Err(error);
                    }
                    if *known != u64::MAX {
                        *known = 0;
                    }
                }
            }
        }
        *earlier = Earlier::Validated;
        lock(&self.ledger).add(account);
        if *known == u64::MAX {
            // The next write replaces the file by one with a single account.
            *written = u64::MAX;
        }
        let mut status = lock(&self.status);
        status.restored = restored;
        if restored {
            tracing::info!(replica = %self.replica, checkpoint = status.path, "restored what an earlier process left");
        }
        Ok(())
    }

    /// Writes at every interval, until the tracker ends.
    pub(crate) fn start(self: &Arc<Self>, options: &Options) {
        let (writer, clock, interval) = (Arc::downgrade(self), options.clock.clone(), options.checkpoint_interval);
        self.runtime.spawn(async move {
            loop {
                clock.sleep(interval).await;
                let Some(writer) = writer.upgrade() else { return };
                // A failure has been said, and is tried again.
                let _ = writer.write(WriteReason::Interval).await;
            }
        });
    }

    /// Writes that a commit is about to be sent. An error says that it must not be.
    pub(crate) async fn before_commit(self: &Arc<Self>) -> Result<(), Error> {
        self.write(WriteReason::Commit).await
    }

    /// Writes for the last time, and lets others have the files. A commit is refused from then on. A disk that does not
    /// answer within the limit is not waited for.
    pub(crate) async fn close(self: &Arc<Self>, limit: Duration) {
        // A failure has been said.
        if tokio::time::timeout(limit, self.write(WriteReason::Close)).await.is_err() {
            self.say(&std::io::Error::new(std::io::ErrorKind::TimedOut, format!("not written within {limit:?}")));
        }
    }

    /// On a thread where waiting for a disk delays nobody. A write that was begun ends, whether or not it is waited for.
    async fn write(self: &Arc<Self>, reason: WriteReason) -> Result<(), Error> {
        let writer = self.clone();
        let written = self.runtime.spawn_blocking(move || writer.write_now(reason)).await;
        written.unwrap_or_else(|panic| Err(postponed("cannot write the checkpoint".into(), Some(panic.into()))))
    }

    fn write_now(&self, reason: WriteReason) -> Result<(), Error> {
        let mut disk = lock(&self.disk);
        let Disk { files: Some(files), written, known, earlier } = &mut *disk else {
            return Err(postponed("the tracker is stopped and writes no more checkpoints".into(), None));
        };
        let now = Utc::now();
        let changed = {
            let mut ledger = lock(&self.ledger);
            let revision = ledger.revision();
            (*written != revision).then(|| (revision, ledger.account()))
        };
        let mut result = Ok(());
        if changed.is_none() {
            lock(&self.status).complete_at = now;
        }
        if let Some((revision, account)) = changed {
            let checkpoint = self.checkpoint(earlier, account);
            match files.write(&checkpoint.to_bytes()) {
                Ok(()) => {
                    *written = revision;
                    *known = checkpoint.known();
                    self.succeeded(now);
                }
                Err(failure) => result = self.failed(files, known, &checkpoint, failure, reason),
            }
        }
        if reason == WriteReason::Close {
            disk.files = None;
        }
        result
    }

    /// The checkpoint of the ledger's account, together with that of an earlier process.
    fn checkpoint(&self, earlier: &Earlier, account: LedgerState) -> Checkpoint {
        let (account, since) = match earlier {
            Earlier::Validated => (account, None),
            Earlier::Unvalidated(found) => {
                let earlier = found.as_ref().map(|found| found.account.clone()).unwrap_or_default();
                (earlier, account.unflushed.delta)
            }
        };
        Checkpoint { replica: self.replica, fingerprint: self.fingerprint, account, since }
    }

    fn succeeded(&self, now: DateTime<Utc>) {
        let mut status = lock(&self.status);
        status.complete_at = now;
        status.written += 1;
        if status.last_error.take().is_some() {
            tracing::info!(replica = %self.replica, checkpoint = status.path, "checkpoints are written again");
        }
    }

    fn failed(
        &self,
        files: &StateFiles,
        known: &mut u64,
        checkpoint: &Checkpoint,
        WriteFailure { error, replaced }: WriteFailure,
        reason: WriteReason,
    ) -> Result<(), Error> {
        self.say(&error);
        let is_dangerous = checkpoint.flush_in_doubt().is_some_and(|number| number <= *known);
        if replaced {
            *known = checkpoint.known().max(*known);
        }
        if reason != WriteReason::Commit || !is_dangerous {
            return Ok(());
        }
        files.remove().map_err(|error| {
            let message = format!("cannot remove the stale checkpoint {}", files.path().display());
            postponed(message, Some(error.into()))
        })?;
        *known = 0;
        Ok(())
    }

    /// Once a fault begins, and not at every write that it hits.
    fn say(&self, error: &std::io::Error) {
        let mut status = lock(&self.status);
        status.failed += 1;
        if status.last_error.replace(error.to_string()).is_none() {
            let error = error as &dyn std::error::Error;
            tracing::warn!(
                replica = %self.replica, checkpoint = status.path, error,
                "cannot write the checkpoint; tracking goes on, and a crash now loses what is not in the database"
            );
        }
    }
}

/// The error of a commit that must wait for the disk.
fn postponed(message: String, source: Option<crate::error::Cause>) -> Error {
    Error::State { message: format!("{message}; the commit is postponed so that nothing is counted twice"), source }
}

/// No holder of these locks leaves anything half done, so that a panic of one matters to no other.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
