//! The files of one replica in the state directory, and the lock that reserves them for one process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use uuid::Uuid;

use super::format::{BYTES_MAX, Checkpoint, CheckpointError};
use super::{Fingerprint, unusable};
use crate::error::Error;

/// The files of one replica, reserved for this process.
///
/// Each database has its own checkpoint, because a replica may switch to another database and back. The name of the
/// file contains the database's fingerprint.
#[derive(Debug)]
pub(crate) struct StateFiles {
    directory: PathBuf,
    replica: Uuid,
    checkpoint: PathBuf,
    partial: PathBuf,
    _lock: File,
}

/// A failed write of a checkpoint.
#[derive(Debug)]
pub(super) struct WriteFailure {
    /// The error of the operating system.
    pub(super) error: io::Error,
    /// Whether the new file may have replaced the old one despite the error.
    pub(super) replaced: bool,
}

impl StateFiles {
    /// Creates the directory if it is missing, and acquires the replica's lock.
    pub(super) fn open(directory: &Path, replica: Uuid, fingerprint: Fingerprint) -> Result<Self, Error> {
        let unusable = |error: io::Error| unusable(directory, error);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        let path = directory.join(format!("{replica}.lock"));
        let lock = private().truncate(false).open(&path).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!(
                    "replica {replica} is in use: another process has locked {}; give each process its own replica id",
                    path.display()
                );
                return Err(Error::State { message, source: None });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        Ok(Self {
            directory: directory.to_owned(),
            replica,
            checkpoint: directory.join(name(replica, fingerprint)),
            partial: directory.join(format!("{replica}.checkpoint.partial")),
            _lock: lock,
        })
    }

    /// Returns the path of this database's checkpoint.
    pub(super) fn path(&self) -> &Path {
        &self.checkpoint
    }

    /// Returns the path of a database's checkpoint.
    pub(super) fn path_for(&self, fingerprint: Fingerprint) -> PathBuf {
        self.directory.join(name(self.replica, fingerprint))
    }

    /// Returns the path of a checkpoint of an earlier release, whose name lacks the fingerprint.
    pub(super) fn unnamed_path(&self) -> PathBuf {
        self.directory.join(format!("{}.checkpoint", self.replica))
    }

    /// Returns the paths of this replica's checkpoints of other databases.
    pub(super) fn others(&self) -> io::Result<Vec<PathBuf>> {
        let prefix = format!("{}.", self.replica);
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_checkpoint = |name: &str| name.starts_with(&prefix) && name.ends_with(".checkpoint");
            if entry.file_name().to_str().is_some_and(is_checkpoint) && entry.path() != self.checkpoint {
                others.push(entry.path());
            }
        }
        Ok(others)
    }

    /// Moves a checkpoint to another path, durably.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        self.sync_directory()
    }

    /// Replaces the checkpoint atomically. After a crash, the old file or the new one is complete.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), WriteFailure> {
        let before = |error| WriteFailure { error, replaced: false };
        let mut partial = private().truncate(true).open(&self.partial).map_err(before)?;
        partial.write_all(bytes).map_err(before)?;
        partial.sync_all().map_err(before)?;
        fs::rename(&self.partial, &self.checkpoint).map_err(before)?;
        self.sync_directory().map_err(|error| WriteFailure { error, replaced: true })
    }

    /// Removes the checkpoint, durably.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.checkpoint) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_directory(),
        }
    }

    /// Copies a checkpoint to another path, durably.
    pub(super) fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::copy(from, to)?;
        File::open(to)?.sync_all()?;
        self.sync_directory()
    }

    /// Returns an unused path at which a checkpoint can be set aside for inspection.
    pub(super) fn free_path(&self, path: &Path, suffix: &str) -> io::Result<PathBuf> {
        let seconds = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let mut number = 0;
        loop {
            let kept = PathBuf::from(format!("{}.{suffix}-{seconds}-{number}", path.display()));
            if !kept.try_exists()? {
                return Ok(kept);
            }
            number += 1;
        }
    }

    /// Makes renames and removals durable.
    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

/// Reads the checkpoint at a path. Returns `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CheckpointError::Io(error)),
    };
    let mut bytes = Vec::new();
    // The limit is one byte more than the longest checkpoint, so that a file that is too long is detected.
    file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(CheckpointError::Io)?;
    Checkpoint::from_bytes(&bytes).map(Some)
}

/// Returns the name of a checkpoint. Half of the fingerprint suffices, because the file contains all of it.
fn name(replica: Uuid, fingerprint: Fingerprint) -> String {
    let half: String = fingerprint[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{replica}.{half}.checkpoint")
}

/// Returns options that open a file for writing and create it for this user only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: Uuid = Uuid::from_u128(7);

    fn files(directory: &Path) -> StateFiles {
        StateFiles::open(directory, REPLICA, [1; 16]).expect("the directory is writable")
    }

    #[test]
    fn other_checkpoints_are_those_of_the_same_replica_on_other_databases() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let other = files.path_for([2; 16]);
        let foreign = directory.path().join(name(Uuid::from_u128(8), [2; 16]));
        let set_aside = directory.path().join(format!("{REPLICA}.0000000000000000.checkpoint.damaged-0-0"));
        for path in [files.path(), &other, &foreign, &set_aside] {
            fs::write(path, "").unwrap();
        }
        assert_eq!(files.others().unwrap(), [other]);
    }

    #[test]
    fn removing_a_missing_checkpoint_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        files.remove().unwrap();
        fs::write(files.path(), "").unwrap();
        files.remove().unwrap();
        assert!(!files.path().exists());
    }

    #[test]
    fn a_removal_fails_if_the_directory_cannot_be_synchronized() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        directory.close().unwrap();
        assert_eq!(files.remove().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_checkpoint_that_cannot_be_removed_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        fs::create_dir(files.path()).unwrap();
        assert!(files.remove().is_err());
    }

    #[test]
    fn checkpoints_are_written_renamed_and_copied() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let (renamed, copied) = (directory.path().join("renamed"), directory.path().join("copied"));
        files.write(b"first").map_err(|failure| failure.error).unwrap();
        files.write(b"second").map_err(|failure| failure.error).unwrap();
        files.copy(files.path(), &copied).unwrap();
        files.rename(files.path(), &renamed).unwrap();
        assert_eq!((fs::read(&copied).unwrap(), fs::read(&renamed).unwrap()), (b"second".into(), b"second".into()));
        assert!(!files.path().exists());
        assert_eq!(files.unnamed_path(), directory.path().join(format!("{REPLICA}.checkpoint")));
    }

    #[test]
    fn a_missing_checkpoint_is_none_and_an_unreadable_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(&directory.path().join("missing")).unwrap().is_none());
        let through_a_file = directory.path().join("file");
        fs::write(&through_a_file, "").unwrap();
        assert!(matches!(read(&through_a_file.join("checkpoint")), Err(CheckpointError::Io(_))));
    }

    #[test]
    fn files_set_aside_in_the_same_second_have_different_paths() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let paths: Vec<_> = (0..20)
            .map(|_| {
                let path = files.free_path(files.path(), "damaged").unwrap();
                fs::write(&path, "").unwrap();
                path
            })
            .collect();
        assert!(paths.iter().all(|path| path.to_str().unwrap().contains(".checkpoint.damaged-")));
        assert!(paths.iter().enumerate().all(|(place, path)| !paths[..place].contains(path)));
    }
}
