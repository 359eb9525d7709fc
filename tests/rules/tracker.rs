//! `track` and `flush` through the real component, on a database that lets the test see and stop what happens inside.

use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Clock, Database, Flushed, Options, Tracker};
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::plugin;
use uuid::Uuid;

const REPLICA: Uuid = Uuid::from_u128(0xaa);

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A tracker that flushes only when told.
async fn start(database: &ModelDatabase) -> Tracker {
    let (clock, _) = Clock::manual();
    let options = Options { clock, ..Options::default() };
    let database = Database::with_backend(Arc::new(database.clone()));
    plugin().start(REPLICA, database, options).await.unwrap()
}

#[tokio::test]
async fn r1_a_track_without_requests_still_counts_the_ids() {
    let database = ModelDatabase::default();
    let tracker = start(&database).await;
    tracker.track(id(1), id(2), 0, 0).unwrap();
    assert_eq!(tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    let row = database.tables().rows[&REPLICA].clone();
    assert_eq!((row.uniques.workspaces.count, row.uniques.users.count, row.allowed, row.denied), (1, 1, 0, 0));
}

#[tokio::test]
async fn r2_a_flush_without_activity_opens_no_transaction() {
    let database = ModelDatabase::default();
    let tracker = start(&database).await;
    assert_eq!(tracker.flush().await.unwrap(), Flushed::Idle);
    assert_eq!(database.tables().begun, 0);
    tracker.track(id(1), id(2), 1, 0).unwrap();
    tracker.flush().await.unwrap();
    assert_eq!(tracker.flush().await.unwrap(), Flushed::Idle);
    assert_eq!(database.tables().begun, 1);
}

#[tokio::test]
async fn r3_activity_tracked_while_a_flush_waits_for_a_lock_is_accepted_and_lands_in_the_next() {
    let database = ModelDatabase::default();
    let tracker = start(&database).await;
    let collection = database.hold_cutover().await;
    tracker.track(id(1), id(1), 10, 5).unwrap();
    let flush = tokio::spawn({
        let tracker = tracker.clone();
        async move { tracker.flush().await }
    });
    while database.tables().begun == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tracker.track(id(2), id(2), 20, 10).unwrap();
    drop(collection);
    assert_eq!(flush.await.unwrap().unwrap(), Flushed::Written { flush: 1, new_period: true });
    assert_eq!(database.tables().rows[&REPLICA].allowed, 10);
    assert_eq!(tracker.flush().await.unwrap(), Flushed::Written { flush: 2, new_period: false });
    let row = database.tables().rows[&REPLICA].clone();
    assert_eq!((row.uniques.workspaces.count, row.uniques.users.count, row.allowed, row.denied), (2, 2, 30, 15));
    assert_eq!(tracker.status().restarts, 0);
}
