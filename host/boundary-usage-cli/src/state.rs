//! The default path of the state directory of `serve`.

use std::env;
use std::path::PathBuf;

use anyhow::Result;

use crate::failure::UsageError;

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
}
