//! The schema in PostgreSQL: looked at first, and changed only where something is missing.

use sqlx::{Connection, Executor, PgConnection, Row};

use super::failure;
use crate::database::schema::{self, WhenMissing};
use crate::error::Error;

/// To create a type and a table of the same name at once fails in the catalog; so one at a time, and no flush meanwhile:
/// this is the cutover lock.
const LOCK: &str =
    "SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = '300s'; SELECT pg_advisory_xact_lock(9)";

const SCRIPTS: [(&str, &str); 3] = [
    ("usage", include_str!("../../../migrations/postgres/0001_usage.sql")),
    ("periods", include_str!("../../../migrations/postgres/0002_periods.sql")),
    ("deliveries", include_str!("../../../migrations/postgres/0003_deliveries.sql")),
];

const TABLE_EXISTS: &str = "SELECT to_regclass('boundary_usage_migrations') IS NOT NULL AS present";

/// Applies the migrations that are missing, if it may.
pub(super) async fn bring_up_to_date(connection: &mut PgConnection, when_missing: WhenMissing) -> Result<(), Error> {
    let known = schema::migrations(SCRIPTS);
    let missing = schema::missing(&known, &applied(connection).await?)?;
    if missing.is_empty() {
        return Ok(());
    }
    if when_missing == WhenMissing::Refuse {
        return Err(schema::refused(&missing));
    }
    migrate(connection, &known).await.map_err(|error| {
        if !failure::is_privilege(&error) {
            return failure::of("bringing the database's schema up to date", error);
        }
        let what = format!("the database's schema lacks the versions {missing:?}, and this role may not create them");
        Error::Refused { message: format!("{what}; connect once as the owner of the database, then run roles.sql") }
    })?
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<sqlx::migrate::AppliedMigration>, Error> {
    let looked_up = async {
        let table_exists = connection.fetch_one(TABLE_EXISTS).await?.try_get("present")?;
        schema::applied(connection, table_exists).await
    };
    looked_up.await.map_err(|error| failure::of("reading the version of the database's schema", error))
}

async fn migrate(
    connection: &mut PgConnection,
    known: &[sqlx::migrate::Migration],
) -> Result<Result<(), Error>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    transaction.execute(LOCK).await?;
    if let Err(error) = schema::apply(&mut *transaction, known).await? {
        return Ok(Err(error));
    }
    sqlx::query(schema::INSERT_KEY).bind(schema::random_key()).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Ok(()))
}
