//! The kinds of PostgreSQL's errors: whether to try again, and whether a commit was applied.

use anyhow::Result;
use boundary_usage::{Database, Error, Lock, LockMode, Purpose};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::postgres_proxy::{Cut, PostgresProxy};
use boundary_usage_tests::usage::{flush, id, update};

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Conflict { .. } => "conflict",
        Error::Unavailable { .. } => "unavailable",
        Error::Refused { .. } => "refused",
        Error::CommitUnknown { .. } => "unknown",
        _ => "other",
    }
}

/// Lets each insert of usage fail with an error code, in its statement or at the commit. Returns the error of a flush.
async fn flush_that_fails(test: &TestDatabase, code: &str, trigger: &str) -> Result<Error> {
    let function = format!(
        "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'made to fail' USING ERRCODE = '{code}'; END $$;
        DROP TRIGGER IF EXISTS fail ON boundary_usage_stats;
        CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION fail()"
    );
    test.execute(&function).await?;
    let database = test.connect().await?;
    let failed = flush(database.backend().as_ref(), id(1), &update(1, 0..1, 1, 0)).await;
    database.close().await;
    Ok(failed.expect_err("the trigger lets it fail"))
}

#[tokio::test]
async fn the_code_of_a_failed_statement_decides_whether_it_is_tried_again() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    test.connect().await?.close().await;
    for (code, expected, text) in [
        ("55P03", "conflict", "another transaction conflicts"),
        ("40P01", "conflict", "another transaction conflicts"),
        ("40001", "conflict", "another transaction conflicts"),
        ("42501", "refused", "grant the role"),
        ("28000", "refused", "made to fail"),
        ("3D000", "refused", "made to fail"),
        ("57014", "unavailable", "made to fail"),
        ("25006", "unavailable", "made to fail"),
        ("25P03", "unavailable", "made to fail"),
        ("25P04", "unavailable", "made to fail"),
        ("22003", "refused", "(22003)"),
        ("23514", "refused", "(23514)"),
        ("25P02", "refused", "(25P02)"),
        ("42P01", "refused", "(42P01)"),
        ("53100", "unavailable", "made to fail"),
        ("3F000", "unavailable", "made to fail"),
        ("0A000", "unavailable", "made to fail"),
    ] {
        let error = flush_that_fails(&test, code, "TRIGGER fail BEFORE INSERT ON boundary_usage_stats").await?;
        assert_eq!(kind(&error), expected, "{code}: {error}");
        let shown = format!("{:#}", anyhow::Error::from(error));
        assert!(shown.contains(text), "{code}: {shown}");
        assert!(!shown.contains("standby"), "{code}: {shown}");
        // The driver would add the line of the server's source code.
        assert!(!shown.contains("at line"), "{code}: {shown}");
        // The message shows a code only if it does not explain its meaning.
        assert_eq!(shown.contains(&format!("({code})")), text.starts_with('('), "{code}: {shown}");
    }
    Ok(())
}

#[tokio::test]
async fn d3_the_code_of_a_failed_commit_decides_whether_its_outcome_is_known() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    test.connect().await?.close().await;
    let trigger = "CONSTRAINT TRIGGER fail AFTER INSERT ON boundary_usage_stats DEFERRABLE INITIALLY DEFERRED";
    for (code, expected) in [
        ("23505", "refused"),
        ("40001", "conflict"),
        ("53100", "unavailable"),
        ("08006", "unknown"),
        ("57P01", "unknown"),
        ("40003", "unknown"),
    ] {
        let error = flush_that_fails(&test, code, trigger).await?;
        assert_eq!(kind(&error), expected, "{code}: {error}");
        let shown = format!("{:#}", anyhow::Error::from(error));
        assert!(!shown.contains("at line"), "{code}: {shown}");
    }
    Ok(())
}

#[tokio::test]
async fn a_column_of_another_type_is_refused() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    flush(database.backend().as_ref(), id(1), &update(1, 0..1, 1, 0)).await?;
    test.execute("ALTER TABLE boundary_usage_replicas ALTER COLUMN flushed_at TYPE text").await?;
    let error = database.status().await.expect_err("a time is not a text");
    assert_eq!(kind(&error), "refused", "{error}");
    Ok(())
}

#[tokio::test]
async fn a_session_that_ends_before_a_lock_is_no_conflict() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let mut transaction = database.backend().begin(Purpose::Flush).await?;
    test.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'boundary-usage' AND datname = current_database()",
    )
    .await?;
    let error = transaction.acquire(Lock::Cutover, LockMode::Shared).await.expect_err("its session has ended");
    assert_eq!(kind(&error), "unavailable", "{error}");
    Ok(())
}

#[tokio::test]
async fn a_migration_that_fails_for_another_reason_blames_no_privilege() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    test.execute("CREATE TABLE boundary_usage_stats (replica_id text)").await?;
    let error = test.connect().await.map(drop).expect_err("the table is another one");
    assert!(kind(&error) == "refused" && !error.to_string().contains("may not create"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_rolled_back_transaction_returns_its_connection() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let session = "SELECT max(pid)::bigint FROM pg_stat_activity
        WHERE application_name = 'boundary-usage' AND datname = current_database()";
    let first = test.number(session).await?;
    for purpose in [Purpose::Flush, Purpose::Collection, Purpose::Flush] {
        database.backend().begin(purpose).await?.rollback().await;
        assert_eq!(test.number(session).await?, first);
    }
    Ok(())
}

#[tokio::test]
async fn a_new_connection_that_ends_is_an_error_and_not_replaced() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    let proxy = PostgresProxy::in_front_of(&test.url).await?;
    let database = Database::connect(&proxy.url).await?;
    // With the idle connection in use, the next transaction needs a new one.
    let first = database.backend().begin(Purpose::Flush).await?;
    proxy.cut(Cut::Request(1));
    let second = database.backend().begin(Purpose::Flush).await.map(drop).expect_err("its connection was cut");
    assert_eq!((kind(&second), proxy.pending()), ("unavailable", 0), "{second}");
    first.rollback().await;
    Ok(())
}
