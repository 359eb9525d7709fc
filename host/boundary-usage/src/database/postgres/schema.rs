//! The schema in PostgreSQL. A connection reads it first and changes it only if a migration is missing.
//!
//! All tables are in one PostgreSQL schema, which this module calls a *namespace*. This is the namespace on the search
//! path that contains the tables. If no namespace contains them, it is the first one on the search path. Each
//! transaction uses only this namespace, so a changed search path or a new namespace cannot redirect a part of the
//! statements.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::time::timeout;

use super::transaction::query;
use super::{errors, sql};
use crate::database::HashingKey;
use crate::database::migration::{self, AppliedMigration, Failure, Migration, MigrationMode};
use crate::database::pool::timed_out;
use crate::database::rows;
use crate::error::Error;

/// The time limit for reading the schema, which waits for no long-held lock.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// The time limit of the migrations, which is longer than the server's own limits.
const MIGRATE_LIMIT: Duration = Duration::from_secs(400);

const SCRIPTS: [(&str, &str); 5] = [
    ("usage", include_str!("../../../sql/postgres/migrations/0001_usage.sql")),
    ("periods", include_str!("../../../sql/postgres/migrations/0002_periods.sql")),
    ("deliveries", include_str!("../../../sql/postgres/migrations/0003_deliveries.sql")),
    ("days", include_str!("../../../sql/postgres/migrations/0004_days.sql")),
    ("pruning", include_str!("../../../sql/postgres/migrations/0005_pruning.sql")),
];

/// The result of `find_schema.sql`.
struct Found {
    on_path: Vec<String>,
    elsewhere: Vec<String>,
    first: Option<String>,
    search_path: String,
    is_chosen: bool,
}

/// Applies the missing migrations if the mode allows it.
///
/// Returns the quoted name of the schema of the tables.
pub(super) async fn migrate(
    connection: &mut PgConnection,
    migration_mode: MigrationMode,
    new_key: Option<HashingKey>,
    address: &str,
) -> Result<String, Error> {
    let known = migration::migrations(SCRIPTS);
    let found = timeout(READ_LIMIT, find(connection)).await.unwrap_or_else(|_| Err(timed_out(READ_LIMIT).into()));
    let (schema, applied) = found.map_err(|error| match error {
        Failure::Refused(error) => error,
        Failure::Driver(error) => errors::at(address, errors::classify("reading the schema's version", error)),
    })?;
    let missing = migration::missing(&known, &applied)?;
    if migration_mode.refuses(&missing, &known) {
        return Err(migration::refused(&missing));
    }
    if missing.is_empty() || migration_mode == MigrationMode::Accept {
        return Ok(schema);
    }
    let migrated = timeout(MIGRATE_LIMIT, apply(connection, &schema, &known, new_key)).await;
    match migrated.unwrap_or_else(|_| Err(timed_out(MIGRATE_LIMIT).into())) {
        Ok(()) => Ok(schema),
        Err(Failure::Refused(error)) => Err(error),
        Err(Failure::Driver(error)) if errors::is_privilege(&error) => {
            let versions = migration::versions(&missing);
            let what =
                format!("the database's schema lacks the versions {versions:?}, and this role may not create them");
            let hint = "connect once as the owner of the database, then run roles.sql";
            Err(Error::Refused { message: format!("{what}; {hint}") })
        }
        Err(Failure::Driver(error)) => Err(errors::classify("migrating the schema", error)),
    }
}

/// Finds the tables and reads the applied migrations.
async fn find(connection: &mut PgConnection) -> Result<(String, Vec<AppliedMigration>), Failure> {
    connection.execute(sql::BEGIN_LOOKUP).await?;
    let row = query(sql::FIND_SCHEMA).fetch_one(&mut *connection).await?;
    let found = Found {
        on_path: row.try_get("on_path")?,
        elsewhere: row.try_get("elsewhere")?,
        first: row.try_get("first")?,
        search_path: row.try_get("search_path")?,
        is_chosen: row.try_get("is_chosen")?,
    };
    connection.execute("ROLLBACK").await?;
    let schema = quoted(&namespace(&found)?);
    if found.on_path.is_empty() {
        return Ok((schema, Vec::new()));
    }
    connection.execute(sql::begin_on(&schema, sql::BEGIN_READ)).await?;
    let applied = read_applied(connection).await?;
    connection.execute("ROLLBACK").await?;
    Ok((schema, applied))
}

async fn read_applied(connection: &mut PgConnection) -> Result<Vec<AppliedMigration>, sqlx::Error> {
    let applied = query(sql::READ_MIGRATIONS).fetch_all(connection).await?;
    applied.iter().map(rows::applied_migration).collect()
}

/// Returns the namespace of the tables.
fn namespace(found: &Found) -> Result<String, Error> {
    let refused = |message| Err(Error::Refused { message });
    match (&found.on_path[..], &found.elsewhere[..], &found.first) {
        ([one], _, _) => Ok(one.clone()),
        ([], [], Some(first)) => Ok(first.clone()),
        // A second set of tables must be requested explicitly. Otherwise each set could contain a part of the usage.
        ([], [_, ..], Some(first)) if found.is_chosen => Ok(first.clone()),
        ([], [], None) => refused(format!(
            "no schema on the search path ({}) can hold the tables; create one, and set this role's search_path to it",
            found.search_path
        )),
        ([], elsewhere, _) => refused(format!(
            "the tables are in the schema {}, which is not on the search path of this role ({}); set search_path to \
             it (ALTER ROLE … SET search_path = …, or options=-csearch_path%3D… in the URL), and grant the role its \
             rights with roles.sql; to create a second set of tables, set search_path to another schema",
            elsewhere.join(" and in "),
            found.search_path
        )),
        (several, _, _) => refused(format!(
            "the search path ({}) leads to several sets of tables, in the schemas {}, and each may contain a part of \
             the usage; set search_path to the right one (ALTER ROLE … SET search_path = …, or \
             options=-csearch_path%3D… in the URL)",
            found.search_path,
            several.join(" and ")
        )),
    }
}

fn quoted(namespace: &str) -> String {
    format!("\"{}\"", namespace.replace('"', "\"\""))
}

/// Applies the missing migrations. The exclusive cutover lock excludes other migrations and all flushes.
async fn apply(
    connection: &mut PgConnection,
    schema: &str,
    known: &[Migration],
    new_key: Option<HashingKey>,
) -> Result<(), Failure> {
    let mut transaction = connection.begin_with(sql::begin_on(schema, sql::BEGIN_MIGRATION)).await?;
    transaction.execute(sql::ACQUIRE_EXCLUSIVE_CUTOVER_LOCK).await?;
    transaction.execute(sql::CREATE_MIGRATIONS_TABLE).await?;
    // Another process may have migrated since the first read.
    for migration in migration::missing(known, &read_applied(&mut transaction).await?)? {
        transaction.execute(sqlx::raw_sql(migration.script)).await?;
        let record = query(sql::RECORD_MIGRATION).bind(migration.version).bind(migration.name);
        record.bind(migration.checksum()).execute(&mut *transaction).await?;
    }
    query(sql::INSERT_HASHING_KEY).bind(migration::new_key(new_key)).execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(on_path: &[&str], elsewhere: &[&str], first: Option<&str>, is_chosen: bool) -> Result<String, String> {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let found = Found {
            on_path: names(on_path),
            elsewhere: names(elsewhere),
            first: first.map(ToOwned::to_owned),
            search_path: "\"$user\", public".to_owned(),
            is_chosen,
        };
        namespace(&found).map_err(|error| error.to_string())
    }

    #[test]
    fn existing_tables_are_used_and_a_second_set_must_be_requested() {
        assert_eq!(found(&["public"], &["other"], Some("alice"), false).unwrap(), "public");
        assert_eq!(found(&[], &[], Some("alice"), false).unwrap(), "alice");
        assert!(found(&[], &["alice"], Some("public"), false).unwrap_err().contains("in the schema alice"));
        assert_eq!(found(&[], &["alice"], Some("public"), true).unwrap(), "public");
        assert!(found(&["alice", "public"], &[], Some("alice"), true).unwrap_err().contains("alice and public"));
        assert!(found(&[], &[], None, true).unwrap_err().contains("no schema"));
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
