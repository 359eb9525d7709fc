//! The schema is made once, whoever comes first, and never changed without right or knowledge.

use std::error::Error as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boundary_usage::{CollectOptions, Database, DeliveryClaim, Error};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::usage::{flush, id, update};
use tokio::task::JoinSet;

/// Tells a child process which database to connect to.
pub(crate) const CHILD_URL: &str = "BOUNDARY_USAGE_TEST_CHILD_URL";

on_each_database! {
    async fn several_connections_at_once_make_one_schema(test) {
        let mut connects = JoinSet::new();
        for _ in 0..8 {
            let url = test.url.clone();
            connects.spawn(async move { Database::connect(&url).await?.backend().hashing_key().await });
        }
        let keys: Vec<_> = connects.join_all().await.into_iter().collect::<Result<_, _>>()?;
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(test.number("SELECT count(*) FROM boundary_usage_migrations").await?, 3);
        Ok(())
    }

    async fn who_only_looks_makes_no_schema(test) {
        let file = test.url.strip_prefix("sqlite:");
        file.map(std::fs::File::create).transpose()?;
        let Err(error) = Database::open(&test.url).await.map(drop) else { bail!("opened without a schema") };
        ensure!(error.to_string().contains("lacks the versions [1, 2, 3] of its schema"), "{error}");
        match file {
            Some(file) => assert_eq!(std::fs::metadata(file)?.len(), 0),
            None => assert_eq!(test.number("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'boundary%'").await?, 0),
        }
        test.connect().await?.close().await;
        let opened = Database::open(&test.url).await?;
        assert!(opened.status().await?.rows.is_empty());
        Ok(())
    }

    async fn several_processes_at_once_make_one_schema(test) {
        let child = |_| {
            let mut child = Command::new(std::env::current_exe()?);
            child.args(["--exact", "migrations::child_process_that_connects", "--ignored"]).env(CHILD_URL, &test.url);
            child.stdout(std::process::Stdio::piped()).spawn()
        };
        let children = (0..4).map(child).collect::<Result<Vec<_>, _>>()?;
        for child in children {
            let output = child.wait_with_output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        assert_eq!(test.number("SELECT count(*) FROM boundary_usage_migrations").await?, 3);
        assert_eq!(test.number("SELECT count(*) FROM boundary_usage_deployment").await?, 1);
        Ok(())
    }

    async fn a_deployment_keeps_its_key_and_shares_it_with_no_other(test) {
        let key = test.connect().await?.backend().hashing_key().await?;
        assert!(test.connect().await?.backend().hashing_key().await? == key);
        let other = TestDatabase::sqlite()?;
        assert!(other.connect().await?.backend().hashing_key().await? != key);
        Ok(())
    }

    async fn a_schema_of_an_older_release_is_brought_up_to_date_with_all_that_it_holds(test) {
        let database = test.connect().await?;
        let key = database.backend().hashing_key().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        database.collect(CollectOptions::default()).await?;
        flush(database.backend().as_ref(), id(1), &update(2, 0..4, 7, 1)).await?;
        database.close().await;
        // Versions are never changed, only added to: this is version 2, as its release left it.
        test.execute("DROP TABLE boundary_usage_deliveries").await?;
        test.execute("DELETE FROM boundary_usage_migrations WHERE version = 3").await?;

        let Err(error) = Database::open(&test.url).await.map(drop) else { bail!("opened without being up to date") };
        ensure!(error.to_string().contains("lacks the versions [3] of its schema"), "{error}");
        let database = test.connect().await?;
        assert!(database.backend().hashing_key().await? == key);
        let status = database.status().await?;
        assert_eq!((status.rows[0].allowed_requests, status.replicas[0].last_flush), (7, 2));
        let DeliveryClaim::Claimed(delivery) = database.claim_delivery(Duration::from_secs(60)).await? else {
            bail!("the summary of the older release is not to be delivered");
        };
        assert_eq!(delivery.summary, status.periods[0].summary);
        assert_eq!(delivery.summary.allowed_requests, 5);
        Ok(())
    }

    async fn a_newer_schema_is_refused(test) {
        test.connect().await?;
        test.execute(
            "INSERT INTO boundary_usage_migrations (version, description, success, checksum, execution_time)
             SELECT 99, 'future', success, checksum, 0 FROM boundary_usage_migrations WHERE version = 1",
        )
        .await?;
        let Err(error) = test.connect().await.map(drop) else { bail!("a schema of the future was accepted") };
        assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("version 99"), "{error}");
        Ok(())
    }
}

/// Not a test: what the child processes run.
#[tokio::test]
#[ignore = "run by several_processes_at_once_make_one_schema"]
async fn child_process_that_connects() -> Result<()> {
    let url = std::env::var(CHILD_URL).context("this is for child processes")?;
    Database::connect(&url).await?.backend().hashing_key().await?;
    Ok(())
}

#[tokio::test]
async fn a_role_that_may_not_create_is_told_who_may() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    test.execute("CREATE ROLE may_create_nothing LOGIN").await?;
    let Err(error) = Database::connect(&test.url_as("may_create_nothing")).await.map(drop) else {
        bail!("it could connect");
    };
    assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("owner"), "{error}");
    Ok(())
}

#[tokio::test]
async fn no_error_shows_a_password() -> Result<()> {
    for url in [
        // Nobody listens on port 1.
        "postgres://proxy:hunter2@127.0.0.1:1/usage",
        "postgres://proxy:hunter2@no-such-host.invalid/usage",
        "postgres://proxy:hun?hunter2@host/usage",
        "postgres://proxy:hunter2@host/usage?sslmode=nonsense",
        "mysql://proxy:hunter2@host/usage",
    ] {
        let Err(error) = Database::connect(url).await.map(drop) else { bail!("connected to {url}") };
        let shown = format!("{error} {error:?} {:?}", error.source().map(ToString::to_string));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    Ok(())
}
