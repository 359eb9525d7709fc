//! The PostgreSQL roles of `roles.sql` have exactly the privileges that they need (R9).

use std::time::Duration;

use anyhow::{Context, Result, bail};
use boundary_usage::{CollectOptions, Database, DeliveryClaim, Error, UniquesUpdate, Update};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::usage::{flush, id, later_update, update};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

const ROLES: &str = include_str!("../../host/boundary-usage/sql/postgres/roles.sql");

/// Creates a database with the roles and the usage of one replica.
pub(crate) async fn database_with_roles() -> Result<TestDatabase> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
    test.execute(ROLES).await?;
    Ok(test)
}

/// Creates a login with one of the roles, and returns its URL.
///
/// Logins belong to the whole server, so each database has its own.
pub(crate) async fn login(test: &TestDatabase, role: &str) -> Result<String> {
    let database = test.url.rsplit('/').next().context("the URL ends with the database")?;
    let login = format!("{role}_of_{database}");
    test.execute(&format!("CREATE ROLE {login} LOGIN IN ROLE {role}")).await?;
    Ok(test.url_as(&login))
}

/// Runs statements, each of which must fail because a privilege is missing.
pub(crate) async fn assert_denied(url: &str, statements: &[&str]) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    for statement in statements {
        let Err(error) = connection.execute(AssertSqlSafe(statement.to_string())).await else {
            bail!("allowed: {statement}");
        };
        let code = error.as_database_error().and_then(|error| error.code());
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn r9_a_replica_can_flush() -> Result<()> {
    let test = database_with_roles().await?;
    let database = Database::connect(&login(&test, "boundary_usage_replica").await?).await?;
    database.backend().hashing_key().await?;
    let backend = database.backend().as_ref();
    flush(backend, id(2), &update(1, 0..3, 5, 2)).await?;
    flush(backend, id(2), &later_update(2, 0..3, 5, 2)).await?;
    flush(backend, id(2), &Update { flush: 3, uniques: UniquesUpdate::Unchanged, allowed: 5, denied: 2 }).await?;
    Ok(())
}

#[tokio::test]
async fn r9_a_replica_cannot_collect() -> Result<()> {
    let test = database_with_roles().await?;
    let url = login(&test, "boundary_usage_replica").await?;
    let refused = Database::connect(&url).await?.collect(CollectOptions::default()).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert_denied(
        &url,
        &[
            "DELETE FROM boundary_usage_stats",
            "TRUNCATE boundary_usage_stats",
            "UPDATE boundary_usage_stats SET window_start = now()",
            "UPDATE boundary_usage_stats SET replica_id = gen_random_uuid()",
            "DELETE FROM boundary_usage_replicas",
            "SELECT * FROM boundary_usage_periods",
            "INSERT INTO boundary_usage_periods (period_start) VALUES (now())",
            "UPDATE boundary_usage_periods SET delivered_at = now()",
            "SELECT * FROM boundary_usage_deliveries",
            "UPDATE boundary_usage_deliveries SET attempts = 1",
            "UPDATE boundary_usage_deployment SET hashing_key = ''",
            "INSERT INTO boundary_usage_migrations (version) VALUES (99)",
            "CREATE TABLE of_ones_own (id int)",
        ],
    )
    .await?;
    assert_eq!(test.connect().await?.status().await?.rows.len(), 1);
    Ok(())
}

#[tokio::test]
async fn r9_a_collector_can_collect_deliver_and_acknowledge() -> Result<()> {
    let test = database_with_roles().await?;
    let database = Database::connect(&login(&test, "boundary_usage_collector").await?).await?;
    assert_eq!(database.status().await?.rows.len(), 1);
    database.collect(CollectOptions::default()).await?;
    let period = database.status().await?.periods.remove(0).summary;
    assert_eq!((period.unique_workspaces, period.allowed_requests), (3, 5));
    for _ in 0..2 {
        let DeliveryClaim::Claimed(delivery) = database.claim_delivery(Duration::ZERO).await? else {
            bail!("no claim")
        };
        assert!(database.delivery_failed(&delivery, "refused", Duration::ZERO).await?);
    }
    assert!(database.acknowledge(period.period_id).await?);
    Ok(())
}

#[tokio::test]
async fn r9_a_collector_can_neither_add_usage_nor_change_a_summary() -> Result<()> {
    let test = database_with_roles().await?;
    assert_denied(
        &login(&test, "boundary_usage_collector").await?,
        &[
            "INSERT INTO boundary_usage_stats (replica_id) VALUES (gen_random_uuid())",
            "UPDATE boundary_usage_stats SET allowed_requests = 0",
            "UPDATE boundary_usage_replicas SET last_flush = 1",
            "SELECT hashing_key FROM boundary_usage_deployment",
            "UPDATE boundary_usage_periods SET allowed_requests = 0",
            "DELETE FROM boundary_usage_periods",
            "UPDATE boundary_usage_deliveries SET idempotency_key = gen_random_uuid()",
            "DELETE FROM boundary_usage_deliveries",
            "CREATE TABLE of_ones_own (id int)",
        ],
    )
    .await
}

#[tokio::test]
async fn r9_the_roles_can_be_created_again() -> Result<()> {
    let test = database_with_roles().await?;
    test.execute(ROLES).await?;
    test.execute(ROLES).await
}

#[tokio::test]
async fn r9_roles_are_refused_while_public_may_create_tables() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    test.connect().await?;
    // This is the default up to PostgreSQL 14.
    test.execute("GRANT CREATE ON SCHEMA public TO PUBLIC").await?;
    let Err(error) = test.execute(ROLES).await else { bail!("the roles may create tables") };
    let text = format!("{error:#}");
    anyhow::ensure!(text.contains("may create tables in the schema public"), "{text}");
    test.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await?;
    test.execute(ROLES).await
}

#[tokio::test]
async fn r9_a_login_without_the_role_gets_an_error_that_names_the_role() -> Result<()> {
    let test = database_with_roles().await?;
    test.execute("CREATE ROLE login_without_role LOGIN").await?;
    let Err(error) = Database::connect(&test.url_as("login_without_role")).await.map(drop) else {
        bail!("it could connect");
    };
    assert!(error.to_string().contains("boundary_usage_replica"), "{error}");
    Ok(())
}
