//! Settings of a PostgreSQL database or role change neither results nor durability.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use boundary_usage::{CollectOptions, Database, DeliveryClaim, Error, UniquesUpdate, Update};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::expected_usage::{ExpectedUsage, manual_tracker};
use boundary_usage_tests::usage::{begin_flush, flush, id, later_update, update};

/// Settings that a database or role may have for other applications.
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

/// Creates a database with these settings.
async fn with_settings(settings: &[&str]) -> Result<TestDatabase> {
    let test = TestDatabase::postgres().await?;
    let name = test.url.rsplit('/').next().expect("the URL ends with the database");
    // One session sets all of them, because they apply to later sessions.
    let statements: Vec<_> = settings.iter().map(|setting| format!("ALTER DATABASE {name} SET {setting}")).collect();
    test.execute(&statements.join("; ")).await?;
    Ok(test)
}

#[tokio::test]
async fn settings_of_the_database_change_nothing() -> Result<()> {
    let test = with_settings(&HOSTILE).await?;
    let database = test.connect().await?;
    let tracker = manual_tracker(1, &database).await?;
    let mut expected = ExpectedUsage::default();
    // Each round has the first flush of a period and a later flush with new ids.
    for _ in 0..2 {
        expected.track(&tracker);
        tracker.flush().await?;
        expected.track_many(std::slice::from_ref(&tracker), 100);
        tracker.flush().await?;
        expected.check(&database).await?;
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
        bail!("no delivery is due");
    };
    ensure!(database.delivery_failed(&delivery, "refused", Duration::ZERO).await?);
    ensure!(database.acknowledge(delivery.summary.period_id).await?);
    let status = Database::open(&test.url).await?.status().await?;
    ensure!(status.so_far.unique_workspaces == 5, "{status:?}");
    let start = status.period_start;
    ensure!((chrono::Utc::now() - start).num_seconds().abs() < 3_600, "the time zone changed the period start {start}");
    Ok(())
}

#[tokio::test]
async fn flushes_work_with_the_escape_format_of_bytea() -> Result<()> {
    let test = with_settings(&["bytea_output = 'escape'"]).await?;
    let database = test.connect().await?;
    let tracker = manual_tracker(1, &database).await?;
    for workspace in 1..4 {
        tracker.track(id(workspace), id(1), 1, 0)?;
        tracker.flush().await?;
    }
    ensure!(database.status().await?.rows[0].unique_workspaces == 3);
    Ok(())
}

/// Records `synchronous_commit` at each change of a row or of the schema.
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
async fn transactions_are_durable_even_if_synchronous_commit_is_off() -> Result<()> {
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
        bail!("no delivery is due");
    };
    database.delivery_failed(&delivery, "refused", Duration::ZERO).await?;
    database.acknowledge(delivery.summary.period_id).await?;

    let weak = test.number("SELECT count(*) FROM seen WHERE synchronous_commit <> 'on'").await?;
    let all = test.number("SELECT count(DISTINCT what) FROM seen").await?;
    // The kinds are schema changes, three changes of the row, and two each of the replica, the period and the delivery.
    ensure!(weak == 0 && all >= 10, "{weak} changes with asynchronous commit, {all} kinds of changes");
    Ok(())
}

/// Creates a database with two roles that may create tables in `public`. The first also has a schema with its own name.
async fn two_roles() -> Result<(TestDatabase, String, String)> {
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
async fn a_second_set_of_tables_in_another_schema_is_refused() -> Result<()> {
    let (test, alice, bob) = two_roles().await?;
    Database::connect(&test.url_as(&alice)).await?;
    ensure!(test.number(&format!("{TABLES_IN} '{alice}'")).await? > 0);
    for opened in [Database::connect(&test.url_as(&bob)).await, Database::open(&test.url_as(&bob)).await] {
        let Err(error) = opened.map(drop) else { bail!("a second set of tables was created") };
        let text = error.to_string();
        ensure!(
            matches!(error, Error::Refused { .. }) && text.contains(&alice) && text.contains("search_path"),
            "{text}"
        );
    }
    ensure!(test.number(&format!("{TABLES_IN} 'public'")).await? == 0);
    // A search path that selects the schema allows a second deployment.
    test.execute(&format!("ALTER ROLE {bob} SET search_path = public")).await?;
    Database::connect(&test.url_as(&bob)).await?;
    ensure!(test.number(&format!("{TABLES_IN} 'public'")).await? > 0);
    Ok(())
}

#[tokio::test]
async fn two_sets_of_tables_on_the_search_path_are_refused_and_named() -> Result<()> {
    let (test, alice, bob) = two_roles().await?;
    test.execute(&format!("ALTER ROLE {bob} SET search_path = public")).await?;
    Database::connect(&test.url_as(&bob)).await?;
    test.execute(&format!("ALTER ROLE {alice} SET search_path = {alice}")).await?;
    Database::connect(&test.url_as(&alice)).await?;
    test.execute(&format!("ALTER ROLE {alice} RESET search_path")).await?;
    let Err(error) = Database::connect(&test.url_as(&alice)).await.map(drop) else {
        bail!("one of the two was chosen silently")
    };
    ensure!(error.to_string().contains(&alice) && error.to_string().contains("public"), "{error}");
    // A search path with one schema resolves the ambiguity.
    let named = format!("{}?options=-csearch_path%3D{alice}", test.url_as(&alice));
    ensure!(Database::connect(&named).await?.status().await?.rows.is_empty());
    Ok(())
}

#[tokio::test]
async fn new_tables_stay_in_the_schema_of_the_existing_ones() -> Result<()> {
    let (test, alice, _) = two_roles().await?;
    test.execute(&format!("DROP SCHEMA {alice}")).await?;
    let database = Database::connect(&test.url_as(&alice)).await?;
    test.execute("DROP TABLE boundary_usage_days, boundary_usage_before, boundary_usage_client_drops").await?;
    test.execute("ALTER TABLE boundary_usage_periods DROP COLUMN client_dropped_logs").await?;
    test.execute("DROP INDEX boundary_usage_replicas_flushed, boundary_usage_periods_delivered").await?;
    test.execute("ALTER TABLE boundary_usage_deployment DROP COLUMN key_fingerprint").await?;
    test.execute("DELETE FROM boundary_usage_migrations WHERE version > 3").await?;
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
