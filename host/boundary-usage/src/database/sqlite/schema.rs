//! The schema in SQLite.

use std::path::Path;

use sqlx::{Connection, Executor, SqliteConnection};

use super::{errors, sql};
use crate::database::migration::{self, AppliedMigration, Failure, Migration, MigrationMode};
use crate::database::rows;
use crate::error::Error;

const SCRIPTS: [(&str, &str); 5] = [
    ("usage", include_str!("../../../sql/sqlite/migrations/0001_usage.sql")),
    ("periods", include_str!("../../../sql/sqlite/migrations/0002_periods.sql")),
    ("deliveries", include_str!("../../../sql/sqlite/migrations/0003_deliveries.sql")),
    ("days", include_str!("../../../sql/sqlite/migrations/0004_days.sql")),
    ("pruning", include_str!("../../../sql/sqlite/migrations/0005_pruning.sql")),
];

/// Applies missing migrations if the mode allows it, and returns the database's hashing key.
///
/// A new database gets `key`.
pub(super) async fn migrate(
    connection: &mut SqliteConnection,
    path: &Path,
    migration_mode: MigrationMode,
    key: Vec<u8>,
) -> Result<Option<Vec<u8>>, Error> {
    let known = migration::migrations(SCRIPTS);
    let applied = read_applied(connection).await;
    let applied = applied.map_err(|error| errors::classify("reading the schema's version", path, error))?;
    let missing = migration::missing(&known, &applied)?;
    if migration_mode.refuses(&missing, &known) {
        return Err(migration::refused(&missing));
    }
    if !missing.is_empty() && migration_mode == MigrationMode::Apply {
        apply(connection, &known, key).await.map_err(|failure| match failure {
            Failure::Driver(error) => errors::classify("migrating the schema", path, error),
            Failure::Refused(error) => error,
        })?;
    }
    let stored = sqlx::query(sql::READ_HASHING_KEY).fetch_optional(&mut *connection).await;
    let stored = stored.and_then(|row| row.as_ref().map(rows::key).transpose());
    stored.map_err(|error| errors::classify("reading the hashing key", path, error))
}

async fn read_applied(connection: &mut SqliteConnection) -> Result<Vec<AppliedMigration>, sqlx::Error> {
    if sqlx::query(sql::FIND_MIGRATIONS_TABLE).fetch_optional(&mut *connection).await?.is_none() {
        return Ok(Vec::new());
    }
    let applied = sqlx::query(sql::READ_MIGRATIONS).fetch_all(connection).await?;
    applied.iter().map(rows::applied_migration).collect()
}

/// Applies the missing migrations. The transaction holds SQLite's write lock, so no other process migrates meanwhile.
async fn apply(connection: &mut SqliteConnection, known: &[Migration], key: Vec<u8>) -> Result<(), Failure> {
    let mut transaction = connection.begin_with(sql::BEGIN_MIGRATION).await?;
    transaction.execute(sql::CREATE_MIGRATIONS_TABLE).await?;
    // Another process may have migrated since the first read.
    for migration in migration::missing(known, &read_applied(&mut transaction).await?)? {
        transaction.execute(sqlx::raw_sql(migration.script)).await?;
        let record = sqlx::query(sql::RECORD_MIGRATION).bind(migration.version).bind(migration.name);
        record.bind(migration.checksum()).execute(&mut *transaction).await?;
    }
    sqlx::query(sql::INSERT_HASHING_KEY).bind(key).execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}
