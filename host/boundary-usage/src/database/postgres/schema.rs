//! The schema in PostgreSQL: looked at first, and changed only where something is missing.
//!
//! All tables are in one schema of PostgreSQL's (a *namespace* here, to tell the two apart). It is the one on the
//! search path that has them, or the first one on it where there are none. Each transaction is pinned to it, so that
//! neither the search path nor a namespace that is made later can lead a part of the statements elsewhere.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::time::timeout;

use super::{failure, transaction};
use crate::database::connections::timed_out;
use crate::database::schema::{self, WhenMissing};
use crate::error::Error;

/// To create a type and a table of the same name at once fails in the catalog; so one at a time, and no flush meanwhile:
/// this is the cutover lock.
const LOCK: &str =
    "SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = '300s'; SELECT pg_advisory_xact_lock(9)";

/// A session may have a time limit of its own for idle transactions; so it is set along with the beginning.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// How long the look at the schema may take, which waits for no lock that is held for long.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// How long the migrations may take: longer than the server's own limits.
const MIGRATE_LIMIT: Duration = Duration::from_secs(400);

const SCRIPTS: [(&str, &str); 3] = [
    ("usage", include_str!("../../../sql/postgres/migrations/0001_usage.sql")),
    ("periods", include_str!("../../../sql/postgres/migrations/0002_periods.sql")),
    ("deliveries", include_str!("../../../sql/postgres/migrations/0003_deliveries.sql")),
];

/// Where the tables are, or would be created; one row. A search path that is set for the role, the database or the
/// connection was chosen on purpose.
const LOOK: &str = "
    WITH found AS (
        SELECT n.nspname, n.nspname = ANY (current_schemas(false)) AS is_on_path
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relname = 'boundary_usage_migrations' AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    ), path AS (
        SELECT nspname, place FROM unnest(current_schemas(false)) WITH ORDINALITY AS p (nspname, place)
        WHERE left(nspname::text, 3) <> 'pg_' AND nspname <> 'information_schema'
    )
    SELECT current_setting('server_version_num')::int AS version,
        ARRAY(SELECT nspname::text FROM found WHERE is_on_path ORDER BY 1) AS on_path,
        ARRAY(SELECT nspname::text FROM found WHERE NOT is_on_path ORDER BY 1) AS elsewhere,
        (SELECT nspname::text FROM path ORDER BY place LIMIT 1) AS first,
        current_setting('search_path') AS search_path,
        (SELECT source NOT IN ('default', 'configuration file', 'command line', 'environment variable', 'global')
            FROM pg_catalog.pg_settings WHERE name = 'search_path') AS is_chosen";

/// What [`LOOK`] returns.
struct Found {
    version: i32,
    on_path: Vec<String>,
    elsewhere: Vec<String>,
    first: Option<String>,
    search_path: String,
    is_chosen: bool,
}

/// Applies the migrations that are missing, if it may. Returns the settings of each later transaction, as statements.
pub(super) async fn bring_up_to_date(
    connection: &mut PgConnection,
    when_missing: WhenMissing,
    address: &str,
) -> Result<Vec<String>, Error> {
    let known = schema::migrations(SCRIPTS);
    let looked = timeout(LOOK_LIMIT, look(connection)).await.unwrap_or_else(|_| Err(timed_out(LOOK_LIMIT).into()));
    let (settings, applied) = looked.map_err(|error| match error {
        Failure::Ours(error) => error,
        Failure::Driver(error) => {
            failure::at(address, failure::of("reading the version of the database's schema", error))
        }
    })?;
    let missing = schema::missing(&known, &applied)?;
    if missing.is_empty() {
        return Ok(settings);
    }
    if when_missing == WhenMissing::Refuse {
        return Err(schema::refused(&missing));
    }
    let migrated = timeout(MIGRATE_LIMIT, migrate(connection, &settings, &known)).await;
    migrated.unwrap_or_else(|_| Err(timed_out(MIGRATE_LIMIT))).map_err(|error| {
        if !failure::is_privilege(&error) {
            return failure::of("bringing the database's schema up to date", error);
        }
        let what = format!("the database's schema lacks the versions {missing:?}, and this role may not create them");
        Error::Refused { message: format!("{what}; connect once as the owner of the database, then run roles.sql") }
    })??;
    Ok(settings)
}

enum Failure {
    Driver(sqlx::Error),
    Ours(Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

/// Finds the tables, and reads which migrations were applied to them.
async fn look(connection: &mut PgConnection) -> Result<(Vec<String>, Vec<sqlx::migrate::AppliedMigration>), Failure> {
    connection.execute(transaction::READ.begin).await?;
    let row = sqlx::query(LOOK).fetch_one(&mut *connection).await?;
    let found = Found {
        version: row.try_get("version")?,
        on_path: row.try_get("on_path")?,
        elsewhere: row.try_get("elsewhere")?,
        first: row.try_get("first")?,
        search_path: row.try_get("search_path")?,
        is_chosen: row.try_get("is_chosen")?,
    };
    let namespace = namespace(&found).map_err(Failure::Ours)?;
    let settings = settings(&namespace, found.version);
    connection.execute(AssertSqlSafe(settings.join("; "))).await?;
    let applied = schema::applied(connection, !found.on_path.is_empty()).await?;
    connection.execute("ROLLBACK").await?;
    Ok((settings, applied))
}

/// The namespace of the tables.
fn namespace(found: &Found) -> Result<String, Error> {
    let refused = |message| Err(Error::Refused { message });
    match (&found.on_path[..], &found.elsewhere[..], &found.first) {
        ([one], _, _) => Ok(one.clone()),
        ([], [], Some(first)) => Ok(first.clone()),
        // A second set of tables in a database has to be asked for: otherwise each would hold a part of the usage.
        ([], [_, ..], Some(first)) if found.is_chosen => Ok(first.clone()),
        ([], [], None) => refused(format!(
            "no schema on the search path ({}) can hold the tables; create one, and set search_path to it for this role",
            found.search_path
        )),
        ([], elsewhere, _) => refused(format!(
            "the tables are in the schema {}, which is not on the search path of this role ({}); set search_path to it \
             (ALTER ROLE … SET search_path = …, or options=-csearch_path%3D… in the URL), and give the role its rights \
             with roles.sql; for a second set of tables on purpose, set search_path to another schema",
            elsewhere.join(" and in "),
            found.search_path
        )),
        (several, _, _) => refused(format!(
            "the search path ({}) leads to several sets of tables, in the schemas {}, and each may hold a part of the \
             usage; set search_path to the one that is meant (ALTER ROLE … SET search_path = …, or \
             options=-csearch_path%3D… in the URL)",
            found.search_path,
            several.join(" and ")
        )),
    }
}

/// What each transaction sets for itself. A pooler may lend another session to each, and settings of the role or the
/// database must not change what a statement means or a commit promises.
fn settings(namespace: &str, server_version: i32) -> Vec<String> {
    // The catalog is searched before it by itself; temporary tables, which come first otherwise, after it.
    let path = format!("SET LOCAL search_path = \"{}\", pg_temp", namespace.replace('"', "\"\""));
    let mut settings = vec![
        path,
        // What is promised must survive a crash of the server.
        "SET LOCAL synchronous_commit = on".to_owned(),
        // The driver reads no other form in replies to several statements at once.
        "SET LOCAL bytea_output = hex".to_owned(),
    ];
    if server_version >= 170_000 {
        // The limits of single statements and of waits are set; a collection may take long.
        settings.push("SET LOCAL transaction_timeout = 0".to_owned());
    }
    settings
}

async fn migrate(
    connection: &mut PgConnection,
    settings: &[String],
    known: &[sqlx::migrate::Migration],
) -> Result<Result<(), Error>, sqlx::Error> {
    // What varies is the quoted name of a namespace.
    let begin = AssertSqlSafe(format!("{BEGIN}; {}", settings.join("; ")));
    let mut transaction = connection.begin_with(begin).await?;
    transaction.execute(LOCK).await?;
    if let Err(error) = schema::apply(&mut *transaction, known).await? {
        return Ok(Err(error));
    }
    let key = sqlx::query(schema::INSERT_KEY).bind(schema::random_key());
    key.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(on_path: &[&str], elsewhere: &[&str], first: Option<&str>, is_chosen: bool) -> Result<String, String> {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let found = Found {
            version: 150_000,
            on_path: names(on_path),
            elsewhere: names(elsewhere),
            first: first.map(ToOwned::to_owned),
            search_path: "\"$user\", public".to_owned(),
            is_chosen,
        };
        namespace(&found).map_err(|error| error.to_string())
    }

    #[test]
    fn tables_are_used_where_they_are_and_made_once() {
        assert_eq!(found(&["public"], &["other"], Some("alice"), false).unwrap(), "public");
        assert_eq!(found(&[], &[], Some("alice"), false).unwrap(), "alice");
        assert!(found(&[], &["alice"], Some("public"), false).unwrap_err().contains("in the schema alice"));
        assert_eq!(found(&[], &["alice"], Some("public"), true).unwrap(), "public");
        assert!(found(&["alice", "public"], &[], Some("alice"), true).unwrap_err().contains("alice and public"));
        assert!(found(&[], &[], None, true).unwrap_err().contains("no schema"));
    }

    #[test]
    fn only_servers_with_a_limit_of_transactions_are_told_to_have_none() {
        for (version, is_set) in [(169_999, false), (170_000, true), (180_000, true)] {
            let settings = settings("public", version);
            assert_eq!(settings.iter().any(|setting| setting.contains("transaction_timeout")), is_set, "{version}");
        }
    }

    #[test]
    fn a_name_is_quoted() {
        assert_eq!(settings("a\"b", 150_000)[0], "SET LOCAL search_path = \"a\"\"b\", pg_temp");
    }
}
