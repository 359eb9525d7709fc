//! The migrations of the schema: which ones a database lacks, and which databases are refused.
//!
//! Every connection reads the schema first and changes it only if a migration is missing. A role that may not create
//! tables can therefore connect to a database that is up to date. One transaction under a lock applies the migrations.
//! If several processes find a new database at the same time, one of them creates the schema.

use sha2::{Digest, Sha384};

use crate::database::HashingKey;
use crate::error::Error;

/// A script that changes the schema.
pub(super) struct Migration {
    pub(super) version: i64,
    pub(super) name: &'static str,
    pub(super) script: &'static str,
}

impl Migration {
    /// Returns the SHA-384 of the script, as the migrator of sqlx records it.
    pub(super) fn checksum(&self) -> Vec<u8> {
        Sha384::digest(self.script).to_vec()
    }
}

/// A migration in the table `boundary_usage_migrations`.
pub(super) struct AppliedMigration {
    pub(super) version: i64,
    pub(super) checksum: Vec<u8>,
}

/// Numbers scripts from 1.
pub(super) fn migrations<const N: usize>(scripts: [(&'static str, &'static str); N]) -> Vec<Migration> {
    let numbered = (1..).zip(scripts);
    numbered.map(|(version, (name, script))| Migration { version, name, script }).collect()
}

/// Returns the migrations that a database lacks.
///
/// # Errors
///
/// Returns [`Error::Refused`] if the database has an unknown migration, or one with another script.
pub(super) fn missing<'a>(known: &'a [Migration], applied: &[AppliedMigration]) -> Result<Vec<&'a Migration>, Error> {
    let newest = known.last().map_or(0, |migration| migration.version);
    for AppliedMigration { version, checksum } in applied {
        match known.iter().find(|migration| migration.version == *version) {
            Some(migration) if migration.checksum() == *checksum => {}
            Some(_) => {
                let what = format!("version {version} of the database's schema was made by a different release");
                return Err(Error::Refused { message: format!("{what}; use that release, or another database") });
            }
            None => {
                let what = format!("the database's schema has version {version}, and this release supports {newest}");
                return Err(Error::Refused { message: format!("{what}; use a newer release") });
            }
        }
    }
    let is_applied = |version| applied.iter().any(|applied| applied.version == version);
    Ok(known.iter().filter(|migration| !is_applied(migration.version)).collect())
}

/// Returns the versions of migrations, for messages.
pub(super) fn versions(migrations: &[&Migration]) -> Vec<i64> {
    migrations.iter().map(|migration| migration.version).collect()
}

/// The reaction of a connection to missing migrations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MigrationMode {
    /// Apply them.
    Apply,
    /// Fail.
    Refuse,
    /// Accept an earlier schema as it is, and fail if there is none.
    Accept,
}

impl MigrationMode {
    /// Returns whether a connection fails because of missing migrations.
    pub(super) fn refuses(self, missing: &[&Migration], known: &[Migration]) -> bool {
        match self {
            Self::Apply => false,
            Self::Refuse => !missing.is_empty(),
            Self::Accept => missing.len() == known.len(),
        }
    }
}

/// Returns the error of a connection that may not apply missing migrations.
pub(super) fn refused(missing: &[&Migration]) -> Error {
    let what = format!("the database lacks the versions {:?} of its schema", versions(missing));
    Error::Refused { message: format!("{what}; start `serve` or `replay`, which migrate it") }
}

/// The failure of a step of a migration: an error of the driver, which the caller classifies, or a refusal.
pub(super) enum Failure {
    Driver(sqlx::Error),
    Refused(Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Returns the key for a new database: the given one, or a random one.
pub(super) fn new_key(given: Option<HashingKey>) -> Vec<u8> {
    match given {
        Some(HashingKey(high, low)) => [high.to_be_bytes(), low.to_be_bytes()].concat(),
        None => rand::random::<[u8; 16]>().to_vec(),
    }
}

/// Reads a stored key.
///
/// # Errors
///
/// Returns [`Error::Refused`] if the key is missing or does not have 16 bytes.
pub(super) fn hashing_key(stored: Option<&[u8]>) -> Result<HashingKey, Error> {
    match stored.map(<[u8]>::as_chunks::<8>) {
        Some(([high, low], [])) => Ok(HashingKey(u64::from_be_bytes(*high), u64::from_be_bytes(*low))),
        _ => Err(no_key()),
    }
}

/// Returns the error of a database that has lost its hashing key.
pub(super) fn no_key() -> Error {
    let what = "the table boundary_usage_deployment contains no hashing key of 16 bytes";
    Error::Refused { message: format!("{what}; restore its row from a backup") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Migration> {
        migrations([("a", "SELECT 1"), ("b", "SELECT 2")])
    }

    fn missing_versions(applied: &[i64]) -> Vec<i64> {
        let checksum = |version| known()[version as usize - 1].checksum();
        let applied: Vec<_> =
            applied.iter().map(|&version| AppliedMigration { version, checksum: checksum(version) }).collect();
        versions(&missing(&known(), &applied).unwrap())
    }

    #[test]
    fn migrations_that_are_not_applied_are_missing() {
        assert_eq!(missing_versions(&[]), [1, 2]);
        assert_eq!(missing_versions(&[1]), [2]);
        assert!(missing_versions(&[1, 2]).is_empty());
    }

    #[test]
    fn a_newer_or_different_schema_is_refused() {
        let message = |version| {
            let applied = [AppliedMigration { version, checksum: Vec::new() }];
            missing(&known(), &applied).map(|_| ()).unwrap_err().to_string()
        };
        assert!(message(3).contains("version 3") && message(3).contains("newer release"), "{}", message(3));
        assert!(message(1).contains("different release"), "{}", message(1));
    }

    /// Databases record these checksums. With another digest, this program would refuse every existing database.
    #[test]
    fn the_checksum_of_a_migration_is_the_sha_384_of_its_script() {
        let checksum: String = known()[0].checksum().iter().map(|byte| format!("{byte:02x}")).collect();
        let (first, second) =
            ("a87be5ea59a50f1537b8361d62582b67f0f8665b89a1afa8", "f5f5ccc3ec84e9b8c62649fb92c16783942166f392ecc20e");
        assert_eq!(checksum, format!("{first}{second}"));
    }

    #[test]
    fn each_new_database_gets_a_different_key() {
        let key = new_key(None);
        assert!(hashing_key(Some(&key)).is_ok());
        assert_ne!(new_key(None), key);
    }

    #[test]
    fn a_given_key_is_stored_as_it_is() {
        assert_eq!(hashing_key(Some(&new_key(Some(HashingKey(1, 2))))).unwrap(), HashingKey(1, 2));
    }

    #[test]
    fn a_key_has_sixteen_bytes() {
        assert_eq!(hashing_key(Some(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2])).unwrap(), HashingKey(1, 2));
        assert!(hashing_key(Some(&[1; 17])).is_err());
        assert!(hashing_key(None).is_err());
    }
}
