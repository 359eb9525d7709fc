//! The file that stores a database's hashing key. With this file, tracking can begin while the database is unavailable.
//!
//! The name of the file is a hash of the URL's target: server, database, role and session options. The role and the
//! options are part of the target, because they determine the search path and thus the tables. The password is not part
//! of the target.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use boundary_usage_tracker::HashingKey;
use sha2::{Digest, Sha256};

use super::{Fingerprint, fingerprint};
use crate::database::Database;
use crate::error::Error;

/// The file with one database's hashing key in a state directory.
///
/// Only this user can read the file. The file is as secret as the key in the database: with the key, an attacker can
/// test whether a sketch contains a given id.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// Returns the file for the database at a URL, or `None` for SQLite.
    ///
    /// SQLite needs no such file, because it is a local file itself.
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if the URL is invalid.
    pub fn new(state_directory: &Path, url: &str) -> Result<Option<Self>, Error> {
        let Some(target) = Database::target(url)? else { return Ok(None) };
        let hash = Sha256::new_with_prefix(b"boundary-usage: the database of a key file\0").chain_update(target);
        let name = format!("database.{}.key", hex(&hash.finalize()[..8]));
        Ok(Some(Self { path: state_directory.join(name) }))
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the key. Returns `None` if the file is missing or damaged.
    ///
    /// A damaged file is logged.
    ///
    /// # Errors
    ///
    /// - [`Error::State`] if the file exists and cannot be read.
    pub fn read(&self) -> Result<Option<HashingKey>, Error> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable("read", error)),
        };
        let key = parse(&text);
        if key.is_none() {
            tracing::warn!(
                file = %self.path.display(),
                "ignoring the damaged file of the database's hashing key; the next connection replaces it"
            );
        }
        Ok(key)
    }

    /// Stores the key of a connected database, unless the file contains it already.
    ///
    /// # Errors
    ///
    /// - [`Error::State`] if the file cannot be written.
    /// - Any error of the database if the key cannot be read there.
    pub async fn remember(&self, database: &Database) -> Result<(), Error> {
        let key = database.backend().hashing_key().await?;
        let file = self.clone();
        let stored = database.runtime().spawn_blocking(move || match file.read() {
            Ok(Some(stored)) if stored == key => Ok(()),
            _ => file.write(key).map_err(|error| file.unusable("write", error)),
        });
        stored.await.unwrap_or_else(|error| Err(self.unusable("write", io::Error::other(error))))
    }

    /// Replaces the file atomically. A crash leaves either the complete old file or the complete new file.
    fn write(&self, key: HashingKey) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // Several processes may share the directory, so the name of the partial file is unique to this process.
        let partial = self.path.with_extension(format!("key.{}.partial", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        let HashingKey(first, second) = key;
        writeln!(file, "{first:016x}{second:016x} {}", hex(&fingerprint(key)))?;
        file.sync_all()?;
        fs::rename(&partial, &self.path)?;
        fs::File::open(directory)?.sync_all()
    }

    fn unusable(&self, action: &str, error: io::Error) -> Error {
        let message = format!("cannot {action} the database's hashing key in {}", self.path.display());
        Error::State { message, source: Some(error.into()) }
    }
}

/// Parses a key file. Returns `None` unless the key matches its fingerprint.
fn parse(text: &[u8]) -> Option<HashingKey> {
    let (key, stored) = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.split_once(' ')?;
    let (first, second) = key.split_at_checked(16)?;
    let half = |text: &str| u64::from_str_radix(text, 16).ok();
    let key = HashingKey(half(first)?, half(second)?);
    let expected: Fingerprint = fingerprint(key);
    (stored == hex(&expected)).then_some(key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    const URL: &str = "postgres://role:secret@host:5432/usage";

    fn of(directory: &Path, url: &str) -> KeyFile {
        KeyFile::new(directory, url).unwrap().expect("PostgreSQL has a key file")
    }

    #[test]
    fn a_key_is_stored_per_database_and_readable_by_this_user_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = of(directory.path(), URL);
        assert!(file.read().unwrap().is_none());
        file.write(HashingKey(1, u64::MAX)).unwrap();
        assert!(file.read().unwrap() == Some(HashingKey(1, u64::MAX)));
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        // The password is the only part of a URL that does not determine the file.
        assert_eq!(of(directory.path(), &URL.replace("secret", "changed")).path(), file.path());
        for (part, other) in [("host", "guest"), ("5432", "5433"), ("usage", "other"), ("role", "sole")] {
            assert_ne!(of(directory.path(), &URL.replace(part, other)).path(), file.path(), "{part}");
        }
        let schema = format!("{URL}?options=-csearch_path%3Dother");
        assert_ne!(of(directory.path(), &schema).path(), file.path());
        assert!(KeyFile::new(directory.path(), "sqlite:usage.db").unwrap().is_none());
    }

    #[test]
    fn a_key_file_that_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = of(directory.path(), URL);
        fs::create_dir(file.path()).unwrap();
        assert!(matches!(file.read(), Err(Error::State { .. })));
    }

    #[tokio::test]
    async fn a_key_is_written_only_if_it_differs_from_the_stored_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = of(directory.path(), URL);
        for key in [HashingKey(1, 2), HashingKey(3, 4)] {
            file.remember(&Database::unconnected(key)).await.unwrap();
            assert!(file.read().unwrap() == Some(key));
        }
        let written = fs::metadata(file.path()).unwrap().ino();
        file.remember(&Database::unconnected(HashingKey(3, 4))).await.unwrap();
        assert_eq!(fs::metadata(file.path()).unwrap().ino(), written, "an unchanged key was written again");
    }

    #[test]
    fn a_damaged_key_file_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let file = of(directory.path(), URL);
        file.write(HashingKey(1, 2)).unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        for damaged in ["", "\n", "nonsense", &text[1..], text.trim_end(), &text.replacen('1', "3", 1)] {
            fs::write(file.path(), damaged).unwrap();
            assert!(file.read().unwrap().is_none(), "{damaged:?}");
        }
    }
}
