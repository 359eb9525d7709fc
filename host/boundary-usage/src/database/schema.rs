//! The schema: which migrations there are, which are missing, and applying those.
//!
//! Every connect looks first and changes only what is missing, so that a role that may not create tables can connect to
//! a database that is up to date. Migrations are applied in one transaction, under a lock that the caller holds: of
//! several processes that find a new database at once, one makes the schema and the others find it made.

use sqlx::SqlSafeStr;
use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration, MigrationType};

use crate::database::HashingKey;
use crate::error::Error;

/// Where applied migrations are recorded; not the driver's default, which another application of the same database
/// may use.
const TABLE: &str = "boundary_usage_migrations";

/// Numbers scripts from 1.
pub(super) fn migrations<const N: usize>(scripts: [(&'static str, &'static str); N]) -> Vec<Migration> {
    let numbered = (1..).zip(scripts);
    let migration = |(version, (name, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    numbered.map(migration).collect()
}

/// The versions that a database lacks.
///
/// # Errors
///
/// When it has a version that is not known here, or one that was made by another text.
pub(super) fn missing(known: &[Migration], applied: &[AppliedMigration]) -> Result<Vec<i64>, Error> {
    let newest = known.last().map_or(0, |migration| migration.version);
    for AppliedMigration { version, checksum } in applied {
        match known.iter().find(|migration| migration.version == *version) {
            Some(migration) if migration.checksum == *checksum => {}
            Some(_) => {
                let what = format!("version {version} of the database's schema was made by a different release");
                return Err(Error::Refused { message: format!("{what}; use that release, or another database") });
            }
            None => {
                let what = format!("the database's schema has version {version}, and this release knows {newest}");
                return Err(Error::Refused { message: format!("{what}; use a newer release") });
            }
        }
    }
    let is_applied = |version| applied.iter().any(|applied| applied.version == version);
    Ok(known.iter().map(|migration| migration.version).filter(|version| !is_applied(*version)).collect())
}

/// What to do with a database that lacks the schema, or a part of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenMissing {
    Make,
    Refuse,
}

/// The refusal to do without these versions, or to make them.
pub(super) fn refused(missing: &[i64]) -> Error {
    let what = format!("the database lacks the versions {missing:?} of its schema");
    Error::Refused { message: format!("{what}; `serve` and `replay` create it") }
}

/// What a database has applied; `table_exists` says whether it has the table that records it.
pub(super) async fn applied(
    connection: &mut impl Migrate,
    table_exists: bool,
) -> Result<Vec<AppliedMigration>, sqlx::Error> {
    if !table_exists {
        return Ok(Vec::new());
    }
    connection.list_applied_migrations(TABLE).await.map_err(driver_error)
}

/// Applies what is missing. The connection must be in a transaction that holds off every other migration.
pub(super) async fn apply(
    connection: &mut impl Migrate,
    known: &[Migration],
) -> Result<Result<(), Error>, sqlx::Error> {
    connection.ensure_migrations_table(TABLE).await.map_err(driver_error)?;
    // Looked up again: another process may have migrated since.
    let missing = match missing(known, &applied(connection, true).await?) {
        Ok(missing) => missing,
        Err(error) => return Ok(Err(error)),
    };
    for migration in known.iter().filter(|migration| missing.contains(&migration.version)) {
        connection.apply(TABLE, migration).await.map_err(driver_error)?;
    }
    Ok(Ok(()))
}

fn driver_error(error: MigrateError) -> sqlx::Error {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error,
        other => sqlx::Error::Migrate(Box::new(other)),
    }
}

/// Keeps the key that is there already: migrations may run more than once.
pub(super) const INSERT_KEY: &str =
    "INSERT INTO boundary_usage_deployment (hashing_key) VALUES ($1) ON CONFLICT DO NOTHING";

/// A key for a new database.
pub(super) fn random_key() -> Vec<u8> {
    rand::random::<[u8; 16]>().to_vec()
}

/// Reads a stored key.
///
/// # Errors
///
/// When there is none of 16 bytes.
pub(super) fn hashing_key(stored: Option<&[u8]>) -> Result<HashingKey, Error> {
    match stored.map(<[u8]>::as_chunks::<8>) {
        Some(([high, low], [])) => Ok(HashingKey(u64::from_be_bytes(*high), u64::from_be_bytes(*low))),
        _ => {
            let what = "the table boundary_usage_deployment holds no key of 16 bytes; ids cannot be hashed without it";
            Err(Error::Refused { message: format!("{what}. Restore the row from a backup") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Migration> {
        migrations([("a", "SELECT 1"), ("b", "SELECT 2")])
    }

    fn applied_versions(versions: &[i64]) -> Vec<AppliedMigration> {
        let checksum = |version| known()[version as usize - 1].checksum.clone();
        versions.iter().map(|&version| AppliedMigration { version, checksum: checksum(version) }).collect()
    }

    #[test]
    fn only_what_is_not_applied_is_missing() {
        assert_eq!(missing(&known(), &[]).unwrap(), [1, 2]);
        assert_eq!(missing(&known(), &applied_versions(&[1])).unwrap(), [2]);
        assert!(missing(&known(), &applied_versions(&[1, 2])).unwrap().is_empty());
    }

    #[test]
    fn a_newer_or_different_schema_is_refused() {
        let unknown = AppliedMigration { version: 3, checksum: Vec::new().into() };
        let message = missing(&known(), &[unknown]).unwrap_err().to_string();
        assert!(message.contains("version 3") && message.contains("newer release"), "{message}");
        let changed = AppliedMigration { version: 1, checksum: Vec::new().into() };
        assert!(matches!(missing(&known(), &[changed]), Err(Error::Refused { .. })));
    }

    #[test]
    fn each_new_database_gets_a_key_of_its_own() {
        let key = random_key();
        assert!(hashing_key(Some(&key)).is_ok());
        assert_ne!(random_key(), key);
    }

    #[test]
    fn a_key_has_sixteen_bytes() {
        assert_eq!(hashing_key(Some(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2])).unwrap(), HashingKey(1, 2));
        assert!(hashing_key(Some(&[1; 17])).is_err());
        assert!(hashing_key(None).is_err());
    }
}
