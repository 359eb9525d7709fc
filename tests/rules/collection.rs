//! Collections keep the rules C1 to C3, D4 and D7 to D9 on both kinds of database.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use boundary_usage::{
    Clock, CollectOptions, Collection, Database, Error, Sketch, Summary, Uniques, UniquesUpdate, Update,
};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::faults::{Fault, Faults};
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::on_each_database_and_pooler;
use boundary_usage_tests::usage::{begin_flush, flush, id, set, update};
use chrono::TimeDelta;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::secrets::Log;

const A_DAY: Duration = Duration::from_secs(86_400);

async fn collect(database: &Database) -> Result<Summary> {
    collect_with(database, CollectOptions::default()).await
}

async fn collect_with(database: &Database, options: CollectOptions) -> Result<Summary> {
    match database.collect(options).await? {
        Collection::Closed(summary) => Ok(summary),
        Collection::NotDue { age, .. } => bail!("not due after {age:?}"),
    }
}

fn numbers(summary: &Summary) -> [u64; 4] {
    let Summary { unique_workspaces, unique_users, allowed_requests, denied_requests, .. } = summary;
    [*unique_workspaces, *unique_users, *allowed_requests, *denied_requests]
}

/// Makes the open period, which is the first one, slightly older than half an hour.
async fn make_due(test: &TestDatabase) -> Result<()> {
    test.set_back("boundary_usage_deployment", "created_at", 90_000).await
}

/// Damages the stored workspaces sketch of a replica.
async fn damage(test: &TestDatabase, replica: Uuid) -> Result<()> {
    let damage = if test.is_postgres { r"'\x2a'" } else { "x'2a'" };
    test.execute(&format!(
        "UPDATE boundary_usage_stats SET workspaces_sketch = {damage} WHERE replica_id = '{replica}'"
    ))
    .await
}

on_each_database_and_pooler! {
    async fn c1_a_collection_sums_exactly_the_rows_it_deletes(test) {
        let database = test.connect().await?;
        for (replica, ids) in [(1, 0..10), (2, 10..30), (3, 30..60)] {
            flush(database.backend().as_ref(), id(replica), &update(1, ids, 10, 3)).await?;
        }
        let summary = collect(&database).await?;
        assert_eq!(numbers(&summary), [60, 60, 30, 9]);
        assert_eq!(summary.replicas, 3);
        assert!(database.status().await?.rows.is_empty());
        Ok(())
    }

    async fn c1_rows_of_many_batches_are_summed_once_each(test) {
        let database = test.connect().await?;
        let mut full = update(0, 0..16_384, 0, 0);
        // A batch has four rows with full sketches. With eight rows the last batch is empty, with nine it is not.
        for replicas in [8, 9] {
            full.flush += 1;
            for replica in 0..replicas {
                full.allowed = 1 << replica;
                flush(database.backend().as_ref(), id(replica), &full).await?;
            }
            let summary = collect(&database).await?;
            assert_eq!(numbers(&summary), [16_384, 16_384, (1 << replicas) - 1, 0]);
            assert_eq!(summary.replica_users_sum, u64::try_from(replicas)? * 16_384);
            assert!(database.status().await?.rows.is_empty());
        }
        Ok(())
    }

    async fn c1_a_period_without_usage_has_a_summary_of_zeros(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 10, 3)).await?;
        let (full, empty) = (collect(&database).await?, collect(&database).await?);
        assert_eq!((numbers(&empty), empty.replicas), ([0; 4], 0));
        assert!(empty.period_id > full.period_id);
        Ok(())
    }

    async fn c1_flushes_during_collections_count_once_each(test) {
        let database = test.connect().await?;
        let mut flushes = JoinSet::new();
        for replica in 0..3 {
            let backend = database.backend().clone();
            flushes.spawn(async move {
                for number in 1..=10 {
                    let mut transaction = begin_flush(backend.as_ref(), id(replica)).await?;
                    let stored = transaction.read(id(replica)).await?;
                    let update = match stored.uniques {
                        None => update(number, 0..1, 1, 2),
                        Some(_) => Update { flush: number, uniques: UniquesUpdate::Unchanged, allowed: 1, denied: 2 },
                    };
                    transaction.upsert(id(replica), &update).await?;
                    transaction.commit().await?;
                }
                Ok::<_, Error>(())
            });
        }
        let (mut allowed, mut denied) = (0, 0);
        while !flushes.is_empty() {
            let summary = collect(&database).await?;
            (allowed, denied) = (allowed + summary.allowed_requests, denied + summary.denied_requests);
            while let Some(done) = flushes.try_join_next() {
                done??;
            }
        }
        let last = collect(&database).await?;
        assert_eq!((allowed + last.allowed_requests, denied + last.denied_requests), (30, 60));
        Ok(())
    }

    async fn d8_stale_rows_are_left_out_and_reported_only_on_request(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..5, 10, 3)).await?;
        test.set_back("boundary_usage_stats", "updated_at", 3700).await?;
        flush(database.backend().as_ref(), id(2), &update(1, 5..7, 1, 1)).await?;
        // A long window does not make a row stale.
        test.set_back("boundary_usage_stats", "window_start", 7400).await?;
        let options = CollectOptions { max_staleness: Some(Duration::from_secs(3600)), ..Default::default() };
        let summary = collect_with(&database, options).await?;
        assert_eq!((numbers(&summary), summary.replicas), ([2, 2, 1, 1], 1));
        assert_eq!((summary.stale_rows, summary.stale_allowed_requests, summary.stale_denied_requests), (1, 10, 3));
        assert!(database.status().await?.rows.is_empty());

        flush(database.backend().as_ref(), id(1), &update(2, 0..5, 10, 3)).await?;
        test.set_back("boundary_usage_stats", "updated_at", 3700).await?;
        assert_eq!(numbers(&collect(&database).await?), [5, 5, 10, 3]);
        Ok(())
    }

    async fn c3_of_several_collectors_one_closes_the_period(test) {
        let database = test.connect().await?;
        make_due(&test).await?;
        let options = CollectOptions { interval: Some(A_DAY), ..Default::default() };
        let mut collectors = JoinSet::new();
        for _ in 0..5 {
            // Each collector has its own pool, like another process.
            let database = test.connect().await?;
            collectors.spawn(async move { database.collect(options).await });
        }
        let mut closed = 0;
        for outcome in collectors.join_all().await {
            closed += usize::from(matches!(outcome?, Collection::Closed(_)));
        }
        assert_eq!((closed, database.status().await?.periods.len()), (1, 1));
        Ok(())
    }

    async fn c3_another_collector_takes_over_when_one_stops(test) {
        let database = test.connect().await?;
        make_due(&test).await?;
        let (clock, hands) = Clock::manual();
        let mut collectors = Vec::new();
        for _ in 0..2 {
            let (database, clock) = (test.connect().await?, clock.clone());
            let options = (CollectOptions::default(), Default::default());
            let collect = async move { database.collect_every(A_DAY, options.0, options.1, clock).await };
            collectors.push(tokio::spawn(collect));
        }
        hands.sleepers(2).await;
        assert_eq!(database.status().await?.periods.len(), 1);

        let (aborted, survivor) = (collectors.remove(0), collectors.remove(0));
        aborted.abort();
        assert!(aborted.await.is_err_and(|error| error.is_cancelled()));
        test.set_back("boundary_usage_periods", "period_start", 90_000).await?;
        test.set_back("boundary_usage_periods", "period_end", 90_000).await?;
        hands.advance(2 * A_DAY);
        while database.status().await?.periods.len() < 2 {}
        survivor.abort();
        Ok(())
    }

    async fn d4_an_id_of_two_replicas_counts_once(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..20, 1, 0)).await?;
        flush(database.backend().as_ref(), id(2), &update(1, 10..30, 1, 0)).await?;
        let so_far = database.status().await?.so_far;
        assert_eq!((numbers(&so_far), so_far.period_id), ([30, 30, 2, 0], 0), "status of the open period");
        let summary = collect(&database).await?;
        assert_eq!(numbers(&summary), [30, 30, 2, 0]);
        assert_eq!((summary.replica_workspaces_sum, summary.replica_users_sum), (40, 40));
        Ok(())
    }

    async fn d7_a_summary_waits_until_its_delivery_is_acknowledged(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..20, 7, 2)).await?;
        let summary = collect(&database).await?;
        let period = database.status().await?.periods.remove(0);
        assert_eq!((&period.summary, period.delivered_at), (&summary, None));

        assert!(database.acknowledge(summary.period_id).await?);
        assert!(!database.acknowledge(summary.period_id).await?);
        assert!(database.status().await?.periods[0].delivered_at.is_some());
        let unknown = database.acknowledge(summary.period_id + 1).await;
        assert!(matches!(unknown, Err(Error::Refused { .. })), "{unknown:?}");
        Ok(())
    }

    async fn d7_a_damaged_sketch_deletes_nothing_and_names_the_replica(test) {
        let database = test.connect().await?;
        for replica in 1..=3 {
            flush(database.backend().as_ref(), id(replica), &update(1, 0..3, 7, 2)).await?;
        }
        damage(&test, id(2)).await?;
        let Err(error) = database.collect(Default::default()).await else { bail!("a damaged sketch was collected") };
        assert!(error.to_string().contains(&id(2).to_string()), "{error}");
        let status = database.status().await?;
        assert_eq!((status.rows.len(), status.periods.len()), (3, 0));
        // The status names the damaged row and sums the others.
        assert!(matches!(&status.damaged[..], [row] if row.contains(&id(2).to_string())), "{:?}", status.damaged);
        assert_eq!((numbers(&status.so_far), status.so_far.replicas), ([3, 3, 14, 4], 2));
        Ok(())
    }

    async fn a_forged_sketch_falsifies_no_count_and_the_error_names_its_replica(test) {
        let database = test.connect().await?;
        let backend = database.backend().as_ref();
        flush(backend, id(1), &update(1, 0..3, 5, 2)).await?;
        // One hash with the least theta estimates 4.6e18 ids. No hash with theta 1 would make the union of all replicas
        // empty.
        for (replica, words) in [(2, vec![1, 2, 1]), (3, vec![0, 1])] {
            let mut sketch = vec![3, 3, 3, 0, 0, 0x1a, 0xcc, 0x93];
            sketch.extend(words.into_iter().flat_map(u64::to_le_bytes));
            let forged = Uniques { workspaces: Sketch { count: 1, bytes: sketch }, users: set(0..1) };
            let update = Update { flush: 1, uniques: UniquesUpdate::Delta(forged), allowed: 1, denied: 0 };
            flush(backend, id(replica), &update).await?;
            let Err(error) = database.collect(Default::default()).await else {
                bail!("the forged sketch was collected")
            };
            let text = error.to_string();
            assert!(text.contains(&id(replica).to_string()) && text.contains("workspaces"), "{text}");
            let status = database.status().await?;
            assert_eq!((status.damaged.len(), numbers(&status.so_far)), (1, [3, 3, 5, 2]));
            test.execute(&format!("DELETE FROM boundary_usage_stats WHERE replica_id = '{}'", id(replica))).await?;
        }
        assert_eq!(numbers(&collect(&database).await?), [3, 3, 5, 2]);
        Ok(())
    }

    async fn d7_a_damaged_sketch_in_any_of_many_batches_deletes_nothing(test) {
        let database = test.connect().await?;
        let full = update(1, 0..16_384, 1, 0);
        for replica in 0..9 {
            flush(database.backend().as_ref(), id(replica), &full).await?;
        }
        for replica in [8, 4, 0] {
            damage(&test, id(replica)).await?;
            let Err(error) = database.collect(Default::default()).await else {
                bail!("a damaged sketch was collected")
            };
            assert!(error.to_string().contains("sketch of replica"), "{error}");
            assert_eq!(database.status().await?.rows.len(), 9);
        }
        Ok(())
    }

    async fn d9_periods_join_without_a_gap(test) {
        let database = test.connect().await?;
        make_due(&test).await?;
        let created = database.status().await?.period_start;
        let (first, second) = (collect(&database).await?, collect(&database).await?);
        let end = |summary: &Summary| summary.period_start + TimeDelta::milliseconds(summary.period_duration_ms as i64);
        assert_eq!(first.period_start, created);
        assert!(first.period_duration_ms >= 90_000_000);
        assert_eq!(second.period_start, end(&first));
        assert_eq!(database.status().await?.period_start, end(&second));
        Ok(())
    }
}

/// Returns a database whose clock stands still, so its period has the age zero.
fn without_time() -> Database {
    Database::with_backend(Arc::new(ModelDatabase::default()))
}

#[tokio::test]
async fn c3_a_period_that_is_exactly_old_enough_is_closed() -> Result<()> {
    let options = CollectOptions { interval: Some(Duration::ZERO), ..Default::default() };
    let outcome = without_time().collect(options).await?;
    assert!(matches!(outcome, Collection::Closed(_)), "{outcome:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_attempt_to_collect_is_logged_with_its_outcome() {
    let (log, _guard) = Log::start();
    let (database, faults) = Faults::in_front_of(&without_time());
    faults.inject(Fault::Begin);
    for (interval, running_time) in [(A_DAY, Duration::from_secs(2)), (Duration::ZERO, Duration::from_millis(5))] {
        let collecting = database.collect_every(interval, Default::default(), Default::default(), Clock::system());
        assert!(tokio::time::timeout(running_time, collecting).await.is_err());
    }
    for outcome in ["the collection failed; it is tried again", "the period is not due yet", "collected"] {
        assert!(log.text().contains(outcome), "{}", log.text());
    }
}
