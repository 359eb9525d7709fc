//! The file that keeps a database's hashing key, so that tracking can begin while the database is away.
//!
//! A key is kept for what a URL leads to: the server, the database, the role and the session's options, because a role's
//! search path decides which tables it finds. The password is no part of that. The name of the file is a hash of these.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use boundary_usage_tracker::HashingKey;
use sha2::{Digest, Sha256};

use super::{Fingerprint, fingerprint};
use crate::database::Database;
use crate::error::Error;

/// The place of one database's hashing key in a state directory.
///
/// The file is readable by our own user only. It is as secret as the key in the database itself: with it, a known id can be
/// looked for in the sketches.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The file for the database that a URL leads to. `None` for SQLite, which is never away.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] if the URL is not valid.
    pub fn new(state_directory: &Path, url: &str) -> Result<Option<Self>, Error> {
        let Some(target) = Database::target(url)? else { return Ok(None) };
        let hash = Sha256::new_with_prefix(b"boundary-usage: the database of a key file\0").chain_update(target);
        let name = format!("database.{}.key", hex(&hash.finalize()[..8]));
        Ok(Some(Self { path: state_directory.join(name) }))
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the key. `None` if there is none yet, or if the file is damaged, which is logged.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the file cannot be read.
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
                "the file of the database's hashing key is damaged; it is ignored, and replaced at the next connection"
            );
        }
        Ok(key)
    }

    /// Keeps the key of a connected database, if the file does not have it yet.
    ///
    /// # Errors
    ///
    /// Errors of the database, and [`Error::State`] if the file cannot be written.
    pub async fn remember(&self, database: &Database) -> Result<(), Error> {
        let key = database.backend().hashing_key().await?;
        let file = self.clone();
        let kept = database.runtime().spawn_blocking(move || match file.read() {
            Ok(Some(kept)) if kept == key => Ok(()),
            _ => file.write(key).map_err(|error| file.unusable("write", error)),
        });
        kept.await.unwrap_or_else(|error| Err(self.unusable("write", io::Error::other(error))))
    }

    /// Replaces the file: whenever this is interrupted, the old one or the new one is there, whole.
    fn write(&self, key: HashingKey) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // Several processes may share the directory.
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

/// The key of a file's text, if its fingerprint is right.
fn parse(text: &[u8]) -> Option<HashingKey> {
    let (key, kept) = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.split_once(' ')?;
    let (first, second) = key.split_at_checked(16)?;
    let half = |text: &str| u64::from_str_radix(text, 16).ok();
    let key = HashingKey(half(first)?, half(second)?);
    let expected: Fingerprint = fingerprint(key);
    (kept == hex(&expected)).then_some(key)
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
        KeyFile::new(directory, url).unwrap().expect("PostgreSQL can be away")
    }

    #[test]
    fn a_key_is_kept_for_its_database_by_our_user_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = of(directory.path(), URL);
        assert!(file.read().unwrap().is_none());
        file.write(HashingKey(1, u64::MAX)).unwrap();
        assert!(file.read().unwrap() == Some(HashingKey(1, u64::MAX)));
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        // Another password leads to the same database; another host, port, name, role or schema may not.
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
    async fn the_key_of_a_database_is_written_only_if_it_differs() {
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
    fn a_damaged_key_file_counts_as_none() {
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
