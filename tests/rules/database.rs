//! Flushes keep the rules R4, R5, R8, D2, D3 and D6 on both kinds of database.

use std::time::Duration;

use boundary_usage::{Backend, Error, Lock, LockMode, Purpose, Sketch, Uniques, UniquesUpdate, Update};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::on_each_database_and_pooler;
use boundary_usage_tests::postgres_proxy::{RoundTrips, round_trips_of_flushes};
use boundary_usage_tests::usage::{begin_flush, flush, id, later_update, set, uniques, update};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Returns uniques with these counts. The database does not read the sketches.
fn counted(workspaces: u64, users: u64) -> Uniques {
    let set = |count| Sketch { count, bytes: set(0..2).bytes };
    Uniques { workspaces: set(workspaces), users: set(users) }
}

/// Asserts that an update of replica 1 is a conflict.
async fn assert_conflict(backend: &dyn Backend, update: &Update) {
    let flushed = flush(backend, id(1), update).await;
    assert!(matches!(flushed, Err(Error::Conflict { .. })), "{flushed:?}");
}

on_each_database_and_pooler! {
    async fn r5_a_new_row_gets_the_delta_and_an_existing_row_the_cumulative_uniques(test) {
        let database = test.connect().await?;
        let backend = database.backend().as_ref();
        let first = Update { flush: 1, uniques: UniquesUpdate::Delta(counted(5, 3)), allowed: 100, denied: 10 };
        flush(backend, id(1), &first).await?;
        let row = database.status().await?.rows.remove(0);
        assert_eq!((row.unique_workspaces, row.unique_users), (5, 3));

        let second = Update { flush: 2, uniques: UniquesUpdate::Cumulative(counted(8, 5)), allowed: 200, denied: 20 };
        flush(backend, id(1), &second).await?;
        let row = database.status().await?.rows.remove(0);
        assert_eq!((row.unique_workspaces, row.unique_users), (8, 5));
        assert_eq!((row.allowed_requests, row.denied_requests), (300, 30));

        let third = Update { flush: 3, uniques: UniquesUpdate::Unchanged, allowed: 1, denied: 2 };
        flush(backend, id(1), &third).await?;
        let row = database.status().await?.rows.remove(0);
        assert_eq!((row.unique_workspaces, row.unique_users), (8, 5));
        assert_eq!((row.allowed_requests, row.denied_requests), (301, 32));
        Ok(())
    }

    async fn r5_a_row_that_differs_from_what_the_flush_read_is_not_changed(test) {
        let database = test.connect().await?;
        let backend = database.backend().as_ref();
        for uniques in [UniquesUpdate::Cumulative(uniques(0..2, 0..2)), UniquesUpdate::Unchanged] {
            let update = Update { flush: 1, uniques, allowed: 1, denied: 0 };
            assert_conflict(backend, &update).await;
        }
        assert!(database.status().await?.replicas.is_empty());
        flush(backend, id(1), &update(1, 0..1, 1, 0)).await?;
        assert_conflict(backend, &update(2, 0..9, 1, 0)).await;
        let status = database.status().await?;
        assert_eq!((status.rows[0].unique_workspaces, status.rows[0].allowed_requests), (1, 1));
        assert_eq!(status.replicas[0].last_flush, 1);
        Ok(())
    }

    async fn r4_each_kind_of_update_is_applied_once(test) {
        let database = test.connect().await?;
        let backend = database.backend().as_ref();
        let updates = [
            update(1, 0..3, 10, 1),
            later_update(2, 0..5, 10, 1),
            Update { flush: 3, uniques: UniquesUpdate::Unchanged, allowed: 10, denied: 1 },
        ];
        for update in &updates {
            let mut transaction = begin_flush(backend, id(1)).await?;
            assert_eq!(transaction.read(id(1)).await?.last_flush, update.flush - 1);
            transaction.upsert(id(1), update).await?;
            transaction.commit().await?;
            assert_conflict(backend, &Update { flush: update.flush, ..updates[2].clone() }).await;
        }
        let status = database.status().await?;
        assert_eq!((status.rows[0].unique_workspaces, status.rows[0].allowed_requests), (5, 30));
        assert_eq!((status.rows[0].denied_requests, status.replicas[0].last_flush), (3, 3));
        Ok(())
    }

    async fn r5_an_update_keeps_the_start_of_the_window(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..1, 1, 0)).await?;
        test.set_back("boundary_usage_stats", "window_start", 60).await?;
        test.set_back("boundary_usage_stats", "updated_at", 60).await?;
        let before = database.status().await?.rows.remove(0);
        flush(database.backend().as_ref(), id(1), &later_update(2, 0..1, 1, 0)).await?;
        let after = database.status().await?.rows.remove(0);
        assert_eq!(after.window_start, before.window_start);
        assert!(after.updated_at > before.updated_at);
        Ok(())
    }

    async fn r5_a_written_row_is_read_back_unchanged(test) {
        let database = test.connect().await?;
        let written = uniques(0..20_000, 0..700);
        let update = Update { uniques: UniquesUpdate::Delta(written.clone()), ..update(7, 0..1, 1, 1) };
        flush(database.backend().as_ref(), id(1), &update).await?;
        let mut transaction = begin_flush(database.backend().as_ref(), id(1)).await?;
        let stored = transaction.read(id(1)).await?;
        assert_eq!((stored.last_flush, stored.uniques), (7, Some(written)));
        let nothing = transaction.read(id(2)).await?;
        assert_eq!((nothing.last_flush, nothing.uniques), (0, None));
        transaction.rollback().await;
        Ok(())
    }

    async fn r5_request_counts_saturate_and_never_wrap(test) {
        let database = test.connect().await?;
        let most = i64::MAX as u64;
        flush(database.backend().as_ref(), id(1), &update(1, 0..1, most - 1, u64::MAX)).await?;
        flush(database.backend().as_ref(), id(1), &later_update(2, 0..1, 5, u64::MAX)).await?;
        let row = database.status().await?.rows.remove(0);
        assert_eq!((row.allowed_requests, row.denied_requests), (most, most));
        Ok(())
    }

    async fn d3_a_flush_with_a_used_or_earlier_number_is_a_conflict(test) {
        let database = test.connect().await?;
        let backend = database.backend().as_ref();
        flush(backend, id(1), &update(3, 0..1, 10, 1)).await?;
        for old in [3, 2] {
            let refused = flush(backend, id(1), &later_update(old, 0..1, 10, 1)).await;
            assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
        }
        let status = database.status().await?;
        assert_eq!((status.rows[0].allowed_requests, status.replicas[0].last_flush), (10, 3));
        flush(backend, id(2), &update(1, 0..1, 10, 1)).await?;
        Ok(())
    }

    async fn d3_the_last_flush_outlives_a_collection(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(4, 0..1, 10, 1)).await?;
        database.collect(Default::default()).await?;
        let mut transaction = begin_flush(database.backend().as_ref(), id(1)).await?;
        let stored = transaction.read(id(1)).await?;
        assert_eq!((stored.last_flush, stored.uniques), (4, None));
        Ok(())
    }

    async fn r4_a_dropped_transaction_is_rolled_back_and_frees_its_connection(test) {
        let database = test.connect().await?;
        // There are fewer connections than rounds, so a lost connection would be noticed.
        for _ in 0..20 {
            let mut transaction = begin_flush(database.backend().as_ref(), id(1)).await?;
            transaction.upsert(id(1), &update(1, 0..1, 1, 0)).await?;
        }
        assert!(database.status().await?.rows.is_empty());
        flush(database.backend().as_ref(), id(1), &update(1, 0..1, 1, 0)).await?;
        Ok(())
    }

    async fn r4_an_abandoned_statement_does_not_affect_later_transactions(test) {
        let database = test.connect().await?;
        let backend = database.backend().as_ref();
        for flush in 1..=20 {
            // A future that is polled once and dropped has sent its statement and never reads the reply.
            let _ = timeout(Duration::ZERO, backend.begin(Purpose::Flush)).await;
            let mut transaction = begin_flush(backend, id(1)).await?;
            let abandoned = update(flush, 0..1, 1, 0);
            if timeout(Duration::ZERO, transaction.upsert(id(1), &abandoned)).await.is_err() {
                assert!(transaction.commit().await.is_err());
            }
        }
        assert!(database.status().await?.rows.is_empty());
        flush(backend, id(1), &update(1, 0..1, 1, 0)).await?;
        Ok(())
    }

    async fn r4_a_transaction_with_a_failed_statement_does_not_commit(test) {
        let database = test.connect().await?;
        let mut transaction = begin_flush(database.backend().as_ref(), id(1)).await?;
        transaction.upsert(id(1), &update(1, 0..1, 1, 0)).await?;
        // The database refuses the flush number 0.
        let failed = transaction.upsert(id(2), &update(0, 0..1, 1, 0)).await;
        assert!(matches!(failed, Err(Error::Refused { .. })), "{failed:?}");
        let locked = transaction.acquire(Lock::Cutover, LockMode::Shared).await;
        assert!(matches!(locked, Err(Error::Refused { .. })), "{locked:?}");
        assert!(matches!(transaction.commit().await, Err(Error::Refused { .. })));
        assert!(database.status().await?.rows.is_empty());
        Ok(())
    }

    async fn d6_simultaneous_flushes_of_many_replicas_all_count(test) {
        let database = test.connect().await?;
        let mut flushes = JoinSet::new();
        for number in 0..30 {
            let backend = database.backend().clone();
            flushes.spawn(async move { flush(backend.as_ref(), id(number), &update(1, 0..1, 1, 2)).await });
        }
        for outcome in flushes.join_all().await {
            outcome?;
        }
        assert_eq!(test.number("SELECT count(*) FROM boundary_usage_stats").await?, 30);
        Ok(())
    }

    async fn d6_a_wait_for_a_lock_ends_with_a_conflict(test) {
        let database = test.connect().await?;
        let _holder = begin_flush(database.backend().as_ref(), id(1)).await?;
        let Err(error) = begin_flush(database.backend().as_ref(), id(1)).await.map(drop) else {
            anyhow::bail!("two flushes of one replica ran simultaneously");
        };
        assert!(matches!(error, Error::Conflict { .. }) && error.to_string().contains("5 s"), "{error:?}");
        Ok(())
    }

    async fn r8_a_collection_waits_for_a_running_flush(test) {
        let database = test.connect().await?;
        let mut transaction = begin_flush(database.backend().as_ref(), id(1)).await?;
        let collecting = database.clone();
        let collection = tokio::spawn(async move { collecting.collect(Default::default()).await });
        transaction.upsert(id(1), &update(1, 0..1, 5, 2)).await?;
        transaction.commit().await?;
        let boundary_usage::Collection::Closed(summary) = collection.await?? else {
            anyhow::bail!("the period was not closed");
        };
        assert_eq!((summary.allowed_requests, summary.denied_requests), (5, 2));
        Ok(())
    }

    async fn a_closed_database_is_unavailable_and_says_only_so(test) {
        let database = test.connect().await?;
        database.close().await;
        let error = database.status().await.expect_err("it is closed");
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains("the database was closed") && !text.contains("127.0.0.1"), "{text}");
        Ok(())
    }

    async fn reading_the_status_changes_nothing(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        database.collect(Default::default()).await?;
        flush(database.backend().as_ref(), id(1), &update(2, 0..3, 5, 2)).await?;
        let (first, mut second) = (database.status().await?, database.status().await?);
        // This number grows between the two calls.
        second.so_far.period_duration_ms = first.so_far.period_duration_ms;
        assert_eq!(serde_json::to_value(&first)?, serde_json::to_value(&second)?);
        assert_eq!((first.rows.len(), first.replicas.len(), first.periods.len()), (1, 1, 1));
        Ok(())
    }
}

#[tokio::test]
async fn d6_flushes_of_two_replicas_can_overlap() -> anyhow::Result<()> {
    let database = TestDatabase::postgres().await?.connect().await?;
    let mut first = begin_flush(database.backend().as_ref(), id(1)).await?;
    let mut second = begin_flush(database.backend().as_ref(), id(2)).await?;
    first.upsert(id(1), &update(1, 0..1, 1, 0)).await?;
    second.upsert(id(2), &update(1, 0..1, 1, 0)).await?;
    first.commit().await?;
    second.commit().await?;
    Ok(())
}

#[tokio::test]
async fn a_flush_takes_six_round_trips_to_postgresql() -> anyhow::Result<()> {
    let test = TestDatabase::postgres().await?;
    let round_trips = round_trips_of_flushes(&test.url).await?;
    assert_eq!(round_trips, RoundTrips { known_ids: 6, new_ids: 6 });
    Ok(())
}

/// Terminates the sessions of the library, and waits for their end.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'boundary-usage'";

#[tokio::test]
async fn d3_a_session_that_ends_at_its_commit_leaves_the_outcome_unknown() -> anyhow::Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let mut transaction = begin_flush(database.backend().as_ref(), id(1)).await?;
    transaction.upsert(id(1), &update(1, 0..1, 1, 0)).await?;
    test.execute(TERMINATE).await?;
    let unknown = transaction.commit().await;
    assert!(matches!(unknown, Err(Error::CommitUnknown { .. })), "{unknown:?}");
    // The next flush reads that the commit was not applied.
    let mut transaction = begin_flush(database.backend().as_ref(), id(1)).await?;
    assert_eq!(transaction.read(id(1)).await?.last_flush, 0);
    Ok(())
}

#[tokio::test]
async fn d2_terminated_idle_connections_are_replaced() -> anyhow::Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let (first, second) = tokio::join!(database.status(), database.status());
    first?;
    second?;
    test.execute(TERMINATE).await?;
    flush(database.backend().as_ref(), id(1), &update(1, 0..1, 1, 0)).await?;
    Ok(())
}

#[tokio::test]
async fn d2_a_session_that_ends_during_a_flush_fails_it_as_unavailable() -> anyhow::Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let mut transaction = begin_flush(database.backend().as_ref(), id(1)).await?;
    test.execute(TERMINATE).await?;
    let failed = transaction.upsert(id(1), &update(1, 0..1, 1, 0)).await;
    assert!(matches!(failed, Err(Error::Unavailable { .. })), "{failed:?}");
    Ok(())
}
