//! Schema migrations: each runs once, only by a role that may, and never on a newer schema.

use std::error::Error as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boundary_usage::{CollectOptions, Database, DeliveryClaim, Error, ReportOptions};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::usage::{flush, id, update};
use tokio::task::JoinSet;

/// The environment variable with the database URL for a child process.
pub(crate) const CHILD_URL: &str = "BOUNDARY_USAGE_TEST_CHILD_URL";

on_each_database! {
    async fn simultaneous_connections_create_one_schema(test) {
        let mut connects = JoinSet::new();
        for _ in 0..8 {
            let url = test.url.clone();
            connects.spawn(async move { Database::connect(&url).await?.backend().hashing_key().await });
        }
        let keys: Vec<_> = connects.join_all().await.into_iter().collect::<Result<_, _>>()?;
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(test.number("SELECT count(*) FROM boundary_usage_migrations").await?, 5);
        Ok(())
    }

    async fn opening_for_reading_creates_no_schema(test) {
        let file = test.url.strip_prefix("sqlite:");
        file.map(std::fs::File::create).transpose()?;
        let Err(error) = Database::open(&test.url).await.map(drop) else { bail!("opened without a schema") };
        ensure!(error.to_string().contains("lacks the versions [1, 2, 3, 4, 5] of its schema"), "{error}");
        ensure!(Database::check_exists(&test.url).await.is_err(), "there is no schema");
        match file {
            Some(file) => assert_eq!(std::fs::metadata(file)?.len(), 0),
            None => {
                let tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'boundary%'";
                assert_eq!(test.number(tables).await?, 0);
            }
        }
        test.connect().await?.close().await;
        let opened = Database::open(&test.url).await?;
        assert!(opened.status().await?.rows.is_empty());
        Ok(())
    }

    async fn simultaneous_processes_create_one_schema(test) {
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
        assert_eq!(test.number("SELECT count(*) FROM boundary_usage_migrations").await?, 5);
        assert_eq!(test.number("SELECT count(*) FROM boundary_usage_deployment").await?, 1);
        Ok(())
    }

    async fn each_database_keeps_its_own_hashing_key(test) {
        let key = test.connect().await?.backend().hashing_key().await?;
        assert!(test.connect().await?.backend().hashing_key().await? == key);
        let other = TestDatabase::sqlite()?;
        assert!(other.connect().await?.backend().hashing_key().await? != key);
        Ok(())
    }

    async fn an_older_schema_is_migrated_and_keeps_its_data(test) {
        let database = test.connect().await?;
        let key = database.backend().hashing_key().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        database.collect(CollectOptions::default()).await?;
        flush(database.backend().as_ref(), id(1), &update(2, 0..4, 7, 1)).await?;
        database.close().await;
        // Versions are only added and never changed, so this is the schema of version 2.
        test.execute("DROP TABLE boundary_usage_deliveries").await?;
        test.execute("DROP TABLE boundary_usage_days").await?;
        test.execute("DROP TABLE boundary_usage_before").await?;
        test.execute("DROP TABLE boundary_usage_client_drops").await?;
        test.execute("ALTER TABLE boundary_usage_periods DROP COLUMN client_dropped_logs").await?;
        for index in ["replicas_flushed", "periods_delivered"] {
            test.execute(&format!("DROP INDEX boundary_usage_{index}")).await?;
        }
        if test.is_postgres {
            test.execute("ALTER TABLE boundary_usage_deployment DROP COLUMN key_fingerprint").await?;
        }
        test.execute("DELETE FROM boundary_usage_migrations WHERE version > 2").await?;

        let Err(error) = Database::open(&test.url).await.map(drop) else { bail!("opened an outdated schema") };
        ensure!(error.to_string().contains("lacks the versions [3, 4, 5] of its schema"), "{error}");
        Database::check_exists(&test.url).await?;
        let database = test.connect().await?;
        assert!(database.backend().hashing_key().await? == key);
        let status = database.status().await?;
        assert_eq!((status.rows[0].allowed_requests, status.replicas[0].last_flush), (7, 2));
        let DeliveryClaim::Claimed(delivery) = database.claim_delivery(Duration::from_secs(60)).await? else {
            bail!("the summary of the older release is not due");
        };
        assert_eq!(delivery.summary, status.periods[0].summary);
        assert_eq!(delivery.summary.allowed_requests, 5);
        // The history begins with the first collection of this release.
        database.collect(CollectOptions::default()).await?;
        let report = database.report(ReportOptions::default()).await?;
        let allowed: u64 = report.rows.iter().map(|row| row.allowed_requests).sum();
        assert_eq!((allowed, report.rows.last().unwrap().users.counts.active), (7, 4));
        Ok(())
    }

    async fn a_newer_schema_is_refused(test) {
        test.connect().await?;
        test.execute(
            "INSERT INTO boundary_usage_migrations (version, description, success, checksum, execution_time)
             SELECT 99, 'future', success, checksum, 0 FROM boundary_usage_migrations WHERE version = 1",
        )
        .await?;
        let Err(error) = test.connect().await.map(drop) else { bail!("accepted a newer schema") };
        assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("version 99"), "{error}");
        Ok(())
    }
}

/// The code of a child process, not a test.
#[tokio::test]
#[ignore = "run by simultaneous_processes_create_one_schema"]
async fn child_process_that_connects() -> Result<()> {
    let url = std::env::var(CHILD_URL).context("this is for child processes")?;
    Database::connect(&url).await?.backend().hashing_key().await?;
    Ok(())
}

#[tokio::test]
async fn a_role_that_may_not_create_tables_is_refused_and_the_error_names_the_owner() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    test.execute("CREATE ROLE may_create_nothing LOGIN").await?;
    let Err(error) = Database::connect(&test.url_as("may_create_nothing")).await.map(drop) else {
        bail!("connected");
    };
    assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("owner"), "{error}");
    Ok(())
}

#[tokio::test]
async fn errors_do_not_show_passwords() -> Result<()> {
    for url in [
        // No server listens on port 1.
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
