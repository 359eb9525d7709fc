//! PostgreSQL with settings of the database and the role that break what depends on them.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use boundary_usage::{CollectOptions, Database, DeliveryClaim, Error, UniquesUpdate, Update};
use boundary_usage_tests::accounts::{Accounts, tracker_by_hand};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::usage::{begin_flush, flush, id, later_update, update};

/// Settings that a database or a role may have for reasons of its own.
const HOSTILE: [&str; 22] = [
    "bytea_output = 'escape'",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Asia/Kathmandu'",
    "client_encoding = 'LATIN1'",
    "standard_conforming_strings = off",
    "escape_string_warning = on",
    "extra_float_digits = -15",
    "transform_null_equals = on",
    "quote_all_identifiers = on",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "synchronous_commit = off",
    "row_security = off",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "statement_timeout = '500ms'",
    "search_path = pg_catalog, public",
    "enable_seqscan = off",
    "plan_cache_mode = force_generic_plan",
    "xmlbinary = 'hex'",
];

/// A new database with a setting each.
async fn with_settings(settings: &[&str]) -> Result<TestDatabase> {
    let test = TestDatabase::postgres().await?;
    let name = test.url.rsplit('/').next().expect("the URL ends with the database");
    // In one session: the settings hold from the next one on.
    let statements: Vec<_> = settings.iter().map(|setting| format!("ALTER DATABASE {name} SET {setting}")).collect();
    test.execute(&statements.join("; ")).await?;
    Ok(test)
}

#[tokio::test]
async fn settings_of_the_database_change_nothing() -> Result<()> {
    let test = with_settings(&HOSTILE).await?;
    let database = test.connect().await?;
    let tracker = tracker_by_hand(1, &database).await?;
    let mut accounts = Accounts::default();
    // The first flush of a period, one with new ids, and one that brings requests alone.
    for _ in 0..2 {
        accounts.track(&tracker);
        tracker.flush().await?;
        accounts.track_many(std::slice::from_ref(&tracker), 100);
        tracker.flush().await?;
        accounts.check(&database).await?;
    }
    let backend = database.backend().as_ref();
    flush(backend, id(9), &update(1, 0..3, 0, 0)).await?;
    flush(backend, id(9), &later_update(2, 0..5, 0, 0)).await?;
    let mut transaction = begin_flush(backend, id(9)).await?;
    let stored = transaction.read(id(9)).await?;
    ensure!(stored.last_flush == 2 && stored.uniques.is_some_and(|uniques| uniques.workspaces.count == 5));
    let unchanged = Update { flush: 3, uniques: UniquesUpdate::Unchanged, allowed: 0, denied: 0 };
    transaction.upsert(id(9), &unchanged).await?;
    transaction.commit().await?;

    let DeliveryClaim::Claimed(delivery) = database.claim_delivery(Duration::from_secs(60)).await? else {
        bail!("a closed period is to be delivered");
    };
    ensure!(database.delivery_failed(&delivery, "refused", Duration::ZERO).await?);
    ensure!(database.acknowledge(delivery.summary.period_id).await?);
    let status = Database::open(&test.url).await?.status().await?;
    ensure!(status.so_far.unique_workspaces == 5, "{status:?}");
    let start = status.period_start;
    ensure!((chrono::Utc::now() - start).num_seconds().abs() < 3_600, "a time zone has moved {start}");
    Ok(())
}

#[tokio::test]
async fn a_first_flush_and_a_later_one_work_with_escaped_bytes() -> Result<()> {
    let test = with_settings(&["bytea_output = 'escape'"]).await?;
    let database = test.connect().await?;
    let tracker = tracker_by_hand(1, &database).await?;
    for workspace in 1..4 {
        tracker.track(id(workspace), id(1), 1, 0)?;
        tracker.flush().await?;
    }
    ensure!(database.status().await?.rows[0].unique_workspaces == 3);
    Ok(())
}

/// Notes the setting that each change of a row, and each change of the schema, runs under.
const NOTE: &str = "
    CREATE TABLE seen (what text, synchronous_commit text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.seen VALUES (TG_OP || ' ' || TG_TABLE_NAME, current_setting('synchronous_commit'));
        RETURN NULL;
    END $$;
    CREATE FUNCTION note_schema() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.seen VALUES (TG_TAG, current_setting('synchronous_commit'));
    END $$;
    CREATE EVENT TRIGGER note_schema ON ddl_command_end EXECUTE FUNCTION note_schema()";

#[tokio::test]
async fn whatever_is_promised_is_on_the_disk_although_the_database_says_otherwise() -> Result<()> {
    let test = with_settings(&["synchronous_commit = off"]).await?;
    test.execute(NOTE).await?;
    let database = test.connect().await?;
    test.execute("DROP EVENT TRIGGER note_schema").await?;
    for table in ["stats", "replicas", "periods", "deliveries"] {
        let on = format!("AFTER INSERT OR UPDATE OR DELETE ON boundary_usage_{table}");
        test.execute(&format!("CREATE TRIGGER note {on} FOR EACH STATEMENT EXECUTE FUNCTION note()")).await?;
    }
    let backend = database.backend().as_ref();
    flush(backend, id(1), &update(1, 0..3, 5, 2)).await?;
    flush(backend, id(1), &later_update(2, 0..5, 5, 2)).await?;
    flush(backend, id(1), &Update { flush: 3, uniques: UniquesUpdate::Unchanged, allowed: 1, denied: 0 }).await?;
    database.collect(CollectOptions::default()).await?;
    let DeliveryClaim::Claimed(delivery) = database.claim_delivery(Duration::from_secs(60)).await? else {
        bail!("a closed period is to be delivered");
    };
    database.delivery_failed(&delivery, "refused", Duration::ZERO).await?;
    database.acknowledge(delivery.summary.period_id).await?;

    let weak = test.number("SELECT count(*) FROM seen WHERE synchronous_commit <> 'on'").await?;
    let all = test.number("SELECT count(DISTINCT what) FROM seen").await?;
    // The schema, and: insert and update of the row, its deletion, two of the replica, two of the period, two of the
    // delivery.
    ensure!(weak == 0 && all >= 10, "{weak} changes were not waited for, of {all} kinds");
    Ok(())
}

/// A role that may create in `public`, and one with a schema of its own name.
async fn two_owners() -> Result<(TestDatabase, String, String)> {
    let test = TestDatabase::postgres().await?;
    let name = test.url.rsplit('/').next().expect("the URL ends with the database").to_owned();
    let (alice, bob) = (format!("alice_{name}"), format!("bob_{name}"));
    test.execute(&format!(
        "CREATE ROLE {alice} LOGIN; CREATE ROLE {bob} LOGIN; CREATE SCHEMA {alice} AUTHORIZATION {alice};
         GRANT CREATE, USAGE ON SCHEMA public TO {alice}, {bob}"
    ))
    .await?;
    Ok((test, alice, bob))
}

const TABLES_IN: &str = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'boundary_usage_%' AND schemaname = ";

#[tokio::test]
async fn a_second_set_of_tables_is_refused_where_one_exists_in_another_schema() -> Result<()> {
    let (test, alice, bob) = two_owners().await?;
    Database::connect(&test.url_as(&alice)).await?;
    ensure!(test.number(&format!("{TABLES_IN} '{alice}'")).await? > 0);
    for opened in [Database::connect(&test.url_as(&bob)).await, Database::open(&test.url_as(&bob)).await] {
        let Err(error) = opened.map(drop) else { bail!("a second set of tables was made") };
        let text = error.to_string();
        ensure!(
            matches!(error, Error::Refused { .. }) && text.contains(&alice) && text.contains("search_path"),
            "{text}"
        );
    }
    ensure!(test.number(&format!("{TABLES_IN} 'public'")).await? == 0);
    // A second deployment is a matter of saying so.
    test.execute(&format!("ALTER ROLE {bob} SET search_path = public")).await?;
    Database::connect(&test.url_as(&bob)).await?;
    ensure!(test.number(&format!("{TABLES_IN} 'public'")).await? > 0);
    Ok(())
}

#[tokio::test]
async fn two_sets_of_tables_on_the_search_path_are_refused_and_both_are_named() -> Result<()> {
    let (test, alice, bob) = two_owners().await?;
    test.execute(&format!("ALTER ROLE {bob} SET search_path = public")).await?;
    Database::connect(&test.url_as(&bob)).await?;
    test.execute(&format!("ALTER ROLE {alice} SET search_path = {alice}")).await?;
    Database::connect(&test.url_as(&alice)).await?;
    test.execute(&format!("ALTER ROLE {alice} RESET search_path")).await?;
    let Err(error) = Database::connect(&test.url_as(&alice)).await.map(drop) else { bail!("it chose one silently") };
    ensure!(error.to_string().contains(&alice) && error.to_string().contains("public"), "{error}");
    // Naming one settles it.
    let named = format!("{}?options=-csearch_path%3D{alice}", test.url_as(&alice));
    ensure!(Database::connect(&named).await?.status().await?.rows.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_tables_stay_together_when_a_schema_of_the_owners_name_appears() -> Result<()> {
    let (test, alice, _) = two_owners().await?;
    test.execute(&format!("DROP SCHEMA {alice}")).await?;
    let database = Database::connect(&test.url_as(&alice)).await?;
    test.execute("DROP TABLE boundary_usage_deliveries").await?;
    test.execute("DELETE FROM boundary_usage_migrations WHERE version = 3").await?;
    test.execute(&format!("CREATE SCHEMA {alice} AUTHORIZATION {alice}")).await?;
    let upgraded = Database::connect(&test.url_as(&alice)).await?;
    ensure!(test.number(&format!("{TABLES_IN} '{alice}'")).await? == 0, "the new table is in another schema");
    for database in [database, upgraded] {
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await.or_else(|error| match error {
            Error::Conflict { .. } => Ok(()),
            error => Err(error),
        })?;
        ensure!(database.status().await?.rows.len() == 1);
    }
    Ok(())
}
