//! The files of one replica in the state directory, and the lock that keeps other processes away from them.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use uuid::Uuid;

use super::format::{BYTES_MAX, Checkpoint, CheckpointError};
use super::unusable;
use crate::error::Error;

/// One replica's files. While this lives, no other process has them.
#[derive(Debug)]
pub(crate) struct StateFiles {
    directory: PathBuf,
    checkpoint: PathBuf,
    partial: PathBuf,
    _lock: File,
}

/// A write that failed.
#[derive(Debug)]
pub(super) struct WriteFailure {
    /// Why.
    pub(super) error: io::Error,
    /// Whether the new file may be in place all the same.
    pub(super) replaced: bool,
}

impl StateFiles {
    /// Makes the directory if it is missing, and takes the replica's lock.
    pub(super) fn open(directory: &Path, replica: Uuid) -> Result<Self, Error> {
        let unusable = |error: io::Error| unusable(directory, error);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        let path = directory.join(format!("{replica}.lock"));
        let lock = private().truncate(false).open(&path).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!(
                    "replica {replica} is in use: another process holds {}; every process needs a replica id of its own",
                    path.display()
                );
                return Err(Error::State { message, source: None });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        Ok(Self {
            directory: directory.to_owned(),
            checkpoint: directory.join(format!("{replica}.checkpoint")),
            partial: directory.join(format!("{replica}.checkpoint.partial")),
            _lock: lock,
        })
    }

    /// Where the checkpoint is.
    pub(super) fn path(&self) -> &Path {
        &self.checkpoint
    }

    /// The checkpoint that is there.
    pub(super) fn read(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        let file = match File::open(&self.checkpoint) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CheckpointError::Io(error)),
        };
        let mut bytes = Vec::new();
        // One byte more than the longest is enough to see that it is too long.
        file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(CheckpointError::Io)?;
        Checkpoint::from_bytes(&bytes).map(Some)
    }

    /// Replaces the checkpoint: whenever this is interrupted, the old one or the new one is there, whole.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), WriteFailure> {
        let before = |error| WriteFailure { error, replaced: false };
        let mut partial = private().truncate(true).open(&self.partial).map_err(before)?;
        partial.write_all(bytes).map_err(before)?;
        partial.sync_all().map_err(before)?;
        fs::rename(&self.partial, &self.checkpoint).map_err(before)?;
        self.sync_directory().map_err(|error| WriteFailure { error, replaced: true })
    }

    /// Removes the checkpoint for certain.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.checkpoint) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_directory(),
        }
    }

    /// Renames the checkpoint, for a person to look at. Answers its new name.
    pub(super) fn set_aside(&self, why: &str) -> io::Result<PathBuf> {
        let seconds = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let mut number = 0;
        let kept = loop {
            let kept = PathBuf::from(format!("{}.{why}-{seconds}-{number}", self.checkpoint.display()));
            if !kept.try_exists()? {
                break kept;
            }
            number += 1;
        };
        fs::rename(&self.checkpoint, &kept)?;
        self.sync_directory()?;
        Ok(kept)
    }

    /// Makes renames last.
    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

/// For writing, created when missing, for our own user only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}
