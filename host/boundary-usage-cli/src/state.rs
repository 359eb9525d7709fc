//! The state directory of `serve`: its default path, and the replica id in it.
//!
//! The library writes the checkpoint to this directory. The replica id is stored beside it, because a restarted process
//! needs the same id to restore the checkpoint.

use std::env;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use uuid::Uuid;

use crate::failure::UsageError;

const REPLICA_FILE: &str = "replica";

/// Returns systemd's `StateDirectory=`, or else the user's state directory.
///
/// # Errors
///
/// Returns a [`UsageError`] if the environment names no directory.
pub fn default_directory() -> Result<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    let directory = choose(variable("STATE_DIRECTORY"), variable("XDG_STATE_HOME"), variable("HOME"));
    let message = "no directory for the checkpoint: none of STATE_DIRECTORY, XDG_STATE_HOME and HOME is set to an \
                   absolute path; set --state-dir, or run without a checkpoint with --no-state";
    directory.ok_or_else(|| UsageError(message.into()).into())
}

/// Chooses a directory.
///
/// Relative paths are ignored. systemd separates several directories with colons.
fn choose(systemd: Option<PathBuf>, state_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let first = |paths: PathBuf| env::split_paths(&paths).next();
    let state_home = state_home.filter(|path| path.is_absolute());
    systemd.and_then(first).filter(|path| path.is_absolute()).or_else(|| {
        let home = home.filter(|path| path.is_absolute()).map(|home| home.join(".local/state"));
        Some(state_home.or(home)?.join("boundary-usage"))
    })
}

/// Returns the replica id in the directory, or creates one at the first start.
///
/// # Errors
///
/// Returns an error if the file cannot be read or written, or if it does not contain an id.
pub fn replica(directory: &Path) -> Result<Uuid> {
    let path = directory.join(REPLICA_FILE);
    let context = || format!("cannot access the replica id in {}; see --state-dir and --no-state", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(context)?;
    if !path.try_exists().with_context(context)? {
        write_once(directory, &path).with_context(context)?;
    }
    let text = fs::read_to_string(&path).with_context(context)?;
    match text.trim().parse::<Uuid>() {
        Ok(replica) if !replica.is_nil() => Ok(replica),
        _ => {
            bail!(
                "{} does not contain a replica id (a UUID); fix or delete the file, or pass --replica",
                path.display()
            )
        }
    }
}

/// Creates the file atomically.
///
/// If several processes create the file simultaneously, the first one wins.
fn write_once(directory: &Path, path: &Path) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    writeln!(file, "{}", Uuid::new_v4())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => fs::File::open(directory)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_takes_precedence_and_relative_paths_are_ignored() {
        let path = |text: &str| Some(PathBuf::from(text));
        let state = |systemd, state_home, home| choose(systemd, state_home, home);
        assert_eq!(state(path("/var/lib/a:/var/lib/b"), path("/x"), path("/h")), path("/var/lib/a"));
        assert_eq!(state(None, path("/x"), path("/h")), path("/x/boundary-usage"));
        assert_eq!(state(path("relative"), path("relative"), path("/h")), path("/h/.local/state/boundary-usage"));
        assert_eq!(state(None, None, path("")), None);
        assert_eq!(state(path(""), None, None), None);
    }

    #[test]
    fn the_replica_id_is_created_once() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("deep/state");
        let first = replica(&state).unwrap();
        assert_eq!(replica(&state).unwrap(), first);
        for damaged in ["", "nonsense", "00000000-0000-0000-0000-000000000000"] {
            fs::write(state.join(REPLICA_FILE), damaged).unwrap();
            let error = replica(&state).unwrap_err();
            assert!(error.to_string().contains("--replica"), "{error}");
        }
    }
}
