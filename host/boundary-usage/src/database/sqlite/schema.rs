//! The schema in SQLite: looked at first, and changed only where something is missing.

use std::path::Path;

use sqlx::migrate::Migration;
use sqlx::{Connection, SqliteConnection};

use super::failure;
use crate::database::rows;
use crate::database::schema::{self, WhenMissing};
use crate::error::Error;

const SCRIPTS: [(&str, &str); 3] = [
    ("usage", include_str!("../../../sql/sqlite/migrations/0001_usage.sql")),
    ("periods", include_str!("../../../sql/sqlite/migrations/0002_periods.sql")),
    ("deliveries", include_str!("../../../sql/sqlite/migrations/0003_deliveries.sql")),
];

const TABLE_EXISTS: &str = "SELECT name FROM sqlite_master WHERE name = 'boundary_usage_migrations'";

/// Applies the migrations that are missing, if it may; a new database gets this key, or a random one. Returns the key
/// that it has.
pub(super) async fn bring_up_to_date(
    connection: &mut SqliteConnection,
    path: &Path,
    when_missing: WhenMissing,
    key: Option<&[u8]>,
) -> Result<Option<Vec<u8>>, Error> {
    let known = schema::migrations(SCRIPTS);
    let looked_up = async {
        let table_exists = sqlx::query(TABLE_EXISTS).fetch_optional(&mut *connection).await?.is_some();
        schema::applied(connection, table_exists).await
    };
    let applied = looked_up.await.map_err(|error| failure::of("reading the schema's version", path, error))?;
    let missing = schema::missing(&known, &applied)?;
    if !missing.is_empty() {
        if when_missing == WhenMissing::Refuse {
            return Err(schema::refused(&missing));
        }
        let key = key.map_or_else(schema::random_key, <[u8]>::to_vec);
        let migrated = migrate(connection, &known, key).await;
        migrated.map_err(|error| failure::of("bringing the schema up to date", path, error))??;
    }
    let stored = sqlx::query(rows::SELECT_KEY).fetch_optional(&mut *connection).await;
    let stored = stored.and_then(|row| row.as_ref().map(rows::key).transpose());
    stored.map_err(|error| failure::of("reading the hashing key", path, error))
}

/// The driver's migrator takes no lock in SQLite; the transaction around it does, and its own become savepoints.
async fn migrate(
    connection: &mut SqliteConnection,
    known: &[Migration],
    key: Vec<u8>,
) -> Result<Result<(), Error>, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    if let Err(error) = schema::apply(&mut *transaction, known).await? {
        return Ok(Err(error));
    }
    sqlx::query(schema::INSERT_KEY).bind(key).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Ok(()))
}
