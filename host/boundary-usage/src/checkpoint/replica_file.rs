//! The file with the replica's id in its state directory.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use uuid::Uuid;

use crate::error::Error;

const REPLICA_FILE: &str = "replica";

/// Returns the replica id in a state directory, and creates both at the first start.
///
/// A restarted process needs the same id to restore its checkpoint.
///
/// # Errors
///
/// - [`Error::State`] if the file cannot be read or written, or if it does not contain an id.
pub fn stored_replica(directory: &Path) -> Result<Uuid, Error> {
    let path = directory.join(REPLICA_FILE);
    let read = || -> io::Result<String> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        if !path.try_exists()? {
            write_once(directory, &path)?;
        }
        fs::read_to_string(&path)
    };
    let text = read().map_err(|error| Error::State {
        message: format!("cannot access the replica id in {}", path.display()),
        source: Some(error.into()),
    })?;
    match text.trim().parse::<Uuid>() {
        Ok(replica) if !replica.is_nil() => Ok(replica),
        _ => {
            let what = "does not contain a replica id (a UUID); fix or delete the file, or set the replica's id";
            Err(Error::State { message: format!("{} {what}", path.display()), source: None })
        }
    }
}

/// Creates the file atomically.
///
/// If several processes do so simultaneously, the first one wins.
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
    fn the_replica_id_is_created_once() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("deep/state");
        let first = stored_replica(&state).unwrap();
        assert_eq!(stored_replica(&state).unwrap(), first);
        for damaged in ["", "nonsense", "00000000-0000-0000-0000-000000000000"] {
            fs::write(state.join(REPLICA_FILE), damaged).unwrap();
            let error = stored_replica(&state).unwrap_err();
            assert!(error.to_string().contains("fix or delete the file"), "{error}");
        }
    }
}
