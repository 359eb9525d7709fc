//! Slots: state directories for processes that have no identity of their own, such as the workers of a server.
//!
//! A slot is a directory `slot-N` in the shared state directory. It is an ordinary state directory with its own replica
//! id and checkpoint. A process locks its slot as long as it runs. The kernel unlocks it however the process ends.
//!
//! A process that ends without a last flush leaves unflushed activity in its slot. So a starting process prefers such a
//! slot, and running processes flush the others.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use boundary_usage::Checkpoint;

/// A state directory that is locked for this process.
#[derive(Debug)]
pub(crate) struct Slot {
    directory: PathBuf,
    _lock: File,
}

impl Slot {
    /// Locks a free slot, one with unflushed activity if there is one, or creates another one.
    pub(crate) fn claim(state_directory: &Path) -> io::Result<Self> {
        if let Some(slot) = Self::claim_unflushed(state_directory)? {
            return Ok(slot);
        }
        // Every failed attempt is a slot that another process uses, so the loop ends.
        let mut number = 0;
        loop {
            if let Some(slot) = Self::lock(state_directory.join(format!("slot-{number}")))? {
                return Ok(slot);
            }
            number += 1;
        }
    }

    /// Locks a free slot with unflushed activity, if there is one.
    pub(crate) fn claim_unflushed(state_directory: &Path) -> io::Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(state_directory)?;
        for entry in fs::read_dir(state_directory)? {
            let entry = entry?;
            let is_slot = entry.file_name().to_str().is_some_and(|name| name.starts_with("slot-"));
            // The slot may be taken and flushed between these steps. A slot without activity does no harm.
            if is_slot
                && has_unflushed_activity(&entry.path())?
                && let Some(slot) = Self::lock(entry.path())?
            {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Returns the state directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn lock(directory: PathBuf) -> io::Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(directory.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { directory, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn has_unflushed_activity(slot: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(slot)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "checkpoint") {
            // A checkpoint that another process has just removed or replaced is in use. A start on the slot sets a
            // damaged one aside.
            let Ok(bytes) = fs::read(&path) else { continue };
            if Checkpoint::from_bytes(&bytes).is_ok_and(|checkpoint| !checkpoint.is_empty()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_gets_a_slot_and_freed_slots_are_used_again() {
        let state = tempfile::tempdir().unwrap();
        let claim = || Slot::claim(&state.path().join("missing")).unwrap();
        let name = |slot: &Slot| slot.directory().file_name().unwrap().to_owned();
        let (first, second) = (claim(), claim());
        assert_eq!([name(&first), name(&second)], ["slot-0", "slot-1"]);
        drop(first);
        assert_eq!(name(&claim()), "slot-0");
    }

    #[test]
    fn slots_without_a_checkpoint_have_no_unflushed_activity() {
        let state = tempfile::tempdir().unwrap();
        let slot = Slot::claim(state.path()).unwrap();
        fs::write(slot.directory().join("a.checkpoint"), "damaged").unwrap();
        drop(slot);
        assert!(Slot::claim_unflushed(state.path()).unwrap().is_none());
    }
}
