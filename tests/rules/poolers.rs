//! PostgreSQL behind PgBouncer, in both pool modes and with fewer connections to the server than replicas.
//!
//! `database::` and `collection::` run through a pooler too.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boundary_usage::{CollectOptions, Collection, Database, DeliveryClaim, Tracker};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::expected_usage::{ExpectedUsage, automatic_tracker, manual_tracker, until};
use boundary_usage_tests::pgbouncer::{PgBouncer, PoolMode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::program::{Ended, Workplace, line, numbers, pick};

/// The number of connections to the server.
const POOL_SIZE: usize = 2;

/// The number of replicas, each with connections of its own.
const REPLICAS: u128 = 6;

/// Starts a pooler, and creates an empty database behind it.
async fn pooled(mode: PoolMode) -> Result<(TestDatabase, PgBouncer, String)> {
    let test = TestDatabase::postgres().await?;
    let pooler = PgBouncer::start(mode, POOL_SIZE)?;
    let url = pooler.url_of(&test.url)?;
    Ok((test, pooler, url))
}

/// Connects several processes simultaneously to a new database.
async fn connect(url: &str) -> Result<Vec<Database>> {
    let mut connecting = JoinSet::new();
    for _ in 0..REPLICAS {
        let url = url.to_owned();
        connecting.spawn(async move { Database::connect(&url).await });
    }
    Ok(connecting.join_all().await.into_iter().collect::<Result<_, _>>()?)
}

async fn flush_simultaneously(trackers: &[Tracker]) -> Result<()> {
    let mut flushes = JoinSet::new();
    for tracker in trackers {
        let tracker = tracker.clone();
        flushes.spawn(async move { tracker.flush().await });
    }
    for flushed in flushes.join_all().await {
        flushed?;
    }
    Ok(())
}

/// Runs migrations, flushes, collections, deliveries and the status of several replicas.
async fn work_of_several_replicas(mode: PoolMode) -> Result<()> {
    let (test, _pooler, url) = pooled(mode).await?;
    let databases = connect(&url).await?;
    ensure!(test.number("SELECT count(*) FROM boundary_usage_deployment").await? == 1);
    let mut trackers = Vec::new();
    for (replica, database) in (1..).zip(&databases) {
        trackers.push(manual_tracker(replica, database).await?);
    }
    let (mut usage, collector) = (ExpectedUsage::default(), &databases[0]);
    for period in 1..=2 {
        // The first flush of a period inserts a row, and the second one updates it.
        for _ in 0..2 {
            usage.track_many(&trackers, 10);
            flush_simultaneously(&trackers).await?;
        }
        ensure!(Database::open(&url).await?.status().await?.rows.len() == databases.len());
        let Collection::Closed(summary) = collector.collect(CollectOptions::default()).await? else {
            bail!("the period was not closed");
        };
        ensure!((summary.period_id, summary.replicas) == (period, databases.len() as u64), "{summary:?}");
        let claimed = async || match collector.claim_delivery(Duration::from_secs(60)).await? {
            DeliveryClaim::Claimed(delivery) => Ok::<_, anyhow::Error>(Some(delivery)),
            _ => Ok(None),
        };
        let delivery = claimed().await?.context("no delivery is due")?;
        ensure!(claimed().await?.is_none(), "two processes claimed one delivery");
        ensure!(collector.delivery_failed(&delivery, "refused", Duration::ZERO).await?);
        let delivery = claimed().await?.context("the failed delivery is not due")?;
        ensure!(delivery.summary == summary, "{delivery:?}");
        ensure!(collector.acknowledge(period).await?);
    }
    usage.check(collector).await
}

#[tokio::test]
async fn everything_works_through_pgbouncer_in_transaction_mode() -> Result<()> {
    work_of_several_replicas(PoolMode::Transaction).await
}

#[tokio::test]
async fn everything_works_through_pgbouncer_in_session_mode() -> Result<()> {
    work_of_several_replicas(PoolMode::Session).await
}

#[tokio::test]
async fn replays_through_pgbouncer_count_every_activity_once() -> Result<()> {
    for mode in PoolMode::ALL {
        let (_test, _pooler, url) = pooled(mode).await?;
        let workplace = Workplace::on(&url);
        let mut replays = Vec::new();
        for replica in 0..REPLICAS {
            let name = format!("{replica}.jsonl");
            workplace
                .write(&name, &(0..10).map(|number| line(10 * replica + number, number, 2, 1)).collect::<String>());
            let arguments = ["replay", &name, "--flush-every", "3", "--format", "json"];
            replays.push(workplace.command(arguments).spawn()?);
        }
        for replay in replays {
            let replayed = Ended::from(replay.wait_with_output()?).json();
            assert_eq!(pick(&replayed, ["activities", "flushes"]), [json!(10), json!(4)], "{mode:?}");
        }
        assert_eq!(workplace.json(["status"])["rows"].as_array().map(Vec::len), Some(6), "{mode:?}");
        assert_eq!(numbers(&workplace.json(["collect"])), [60, 10, 120, 60], "{mode:?}");
    }
    Ok(())
}

#[tokio::test]
async fn d3_a_pgbouncer_that_is_killed_during_flushes_loses_and_doubles_nothing() -> Result<()> {
    for mode in PoolMode::ALL {
        let (_test, mut pooler, url) = pooled(mode).await?;
        let (mut trackers, mut usage) = (Vec::new(), ExpectedUsage::default());
        for (replica, database) in (1..).zip(&connect(&url).await?) {
            trackers.push(automatic_tracker(replica, database).await?);
        }
        let collector = Database::connect(&url).await?;
        for _ in 0..3 {
            for _ in 0..20 {
                usage.track_many(&trackers, 1);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            pooler.kill()?;
            usage.track_many(&trackers, 10);
            until("a flush fails", async || Ok(trackers.iter().any(|tracker| tracker.status().last_error.is_some())))
                .await?;
            pooler.start_again()?;
            usage.settle(&collector).await.with_context(|| format!("{mode:?}"))?;
        }
    }
    Ok(())
}
