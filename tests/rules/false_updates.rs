//! The host detects false updates, false results and open transactions of a component.
//!
//! It compares them with its ledger. It writes nothing false, and a new instance starts from the ledger.

use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Clock, Database, Error, Flushed, Options, Purpose, Tracker};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::{cue, misbehaving_plugin, until};
use uuid::Uuid;

const REPLICA: Uuid = Uuid::from_u128(0xaa);

fn options() -> Options {
    Options { clock: Clock::manual().0, flush_timeout: Duration::from_secs(2), ..Options::default() }
}

async fn start(model: &ModelDatabase) -> Tracker {
    let database = Database::with_backend(Arc::new(model.clone()));
    misbehaving_plugin().start(REPLICA, database, options()).await.unwrap()
}

fn track(tracker: &Tracker, workspace: Uuid) {
    tracker.track(workspace, Uuid::from_u128(9), 1, 2).unwrap();
}

/// Flushes until a flush succeeds. A flush fails if the component crashes during it.
async fn flush_to_success(tracker: &Tracker) -> Flushed {
    loop {
        match tracker.flush().await {
            Ok(flushed) => return flushed,
            Err(Error::Component { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns (workspaces, users, allowed, denied, last flush).
fn counted(model: &ModelDatabase) -> (u64, u64, u64, u64, u64) {
    let tables = model.tables();
    let row = &tables.rows[&REPLICA];
    let uniques = &row.uniques;
    (uniques.workspaces.count, uniques.users.count, row.allowed, row.denied, tables.last_flushes[&REPLICA])
}

async fn assert_replaced(tracker: &Tracker, cue: u64, reason: &str) {
    until(|| tracker.status().restarts > 0).await;
    let crash = tracker.status().last_restart.unwrap();
    assert!(crash.contains(reason), "cue {cue}: {crash}");
    assert_eq!(tracker.status().restarts, 1, "cue {cue}");
}

#[tokio::test]
async fn a_component_with_a_false_update_is_replaced_and_nothing_is_written() {
    let updates = [
        (12, "allowed"),
        (17, "allowed"),
        (18, "allowed"),
        (19, "allowed"),
        (28, "allowed"),
        (29, "allowed"),
        (30, "flush"),
        (33, "allowed"),
        (34, "denied"),
        (35, "flush"),
        (36, "users"),
    ];
    for (number, reason) in updates {
        let model = ModelDatabase::default();
        let tracker = start(&model).await;
        for workspace in [Uuid::from_u128(1), cue(number), Uuid::from_u128(2)] {
            track(&tracker, workspace);
        }
        let flushed = tracker.flush().await;
        assert!(matches!(flushed, Err(Error::Component { .. })), "cue {number}: {flushed:?}");
        assert!(model.tables().rows.is_empty(), "cue {number}: a false update was written");
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 1, new_period: true });
        assert_eq!(counted(&model), (3, 1, 3, 6, 1), "cue {number}");
        assert_replaced(&tracker, number, reason).await;
    }
}

#[tokio::test]
async fn r5_a_false_update_of_an_existing_row_is_refused() {
    for (number, reason) in [(30, "flush"), (32, "unique sets"), (33, "allowed"), (35, "flush"), (36, "users")] {
        let model = ModelDatabase::default();
        let tracker = start(&model).await;
        track(&tracker, Uuid::from_u128(1));
        tracker.flush().await.unwrap();
        tracker.track(cue(number), Uuid::from_u128(8), 1, 2).unwrap();
        let flushed = tracker.flush().await;
        assert!(matches!(flushed, Err(Error::Component { .. })), "cue {number}: {flushed:?}");
        assert_eq!(counted(&model), (1, 1, 1, 2, 1), "cue {number}");
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 2, new_period: false });
        assert_eq!(counted(&model), (2, 2, 2, 4, 2), "cue {number}");
        assert_replaced(&tracker, number, reason).await;
    }
}

#[tokio::test]
async fn a_component_with_a_false_result_is_replaced_and_nothing_counts_twice() {
    for (number, reason) in [(37, "failed"), (38, "nothing to do"), (39, "flush 99")] {
        let model = ModelDatabase::default();
        let tracker = start(&model).await;
        track(&tracker, cue(number));
        let flushed = tracker.flush().await;
        assert!(matches!(flushed, Err(Error::Component { .. })), "cue {number}: {flushed:?}");
        assert_eq!(counted(&model), (1, 1, 1, 2, 1), "cue {number}");
        assert_replaced(&tracker, number, reason).await;
        assert_eq!(flush_to_success(&tracker).await, Flushed::Idle, "cue {number}");
        track(&tracker, Uuid::from_u128(1));
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 2, new_period: false });
        assert_eq!(counted(&model), (2, 1, 2, 4, 2), "cue {number}");
    }
}

/// A SQLite file has one write lock, and an open transaction would keep it.
#[tokio::test]
async fn a_component_that_leaves_a_transaction_open_is_replaced() -> anyhow::Result<()> {
    for number in [6, 7] {
        let test = TestDatabase::sqlite()?;
        let database = test.connect().await?;
        let tracker = misbehaving_plugin().start(REPLICA, database.clone(), options()).await?;
        track(&tracker, cue(number));
        let flushed = tracker.flush().await;
        assert!(matches!(flushed, Err(Error::Component { .. })), "cue {number}: {flushed:?}");
        assert_replaced(&tracker, number, "transaction open").await;
        // Another process can write.
        let other = test.connect().await?;
        other.backend().begin(Purpose::Collection).await?.rollback().await;
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 1, new_period: true });
        let row = &database.status().await?.rows[0];
        assert_eq!((row.unique_workspaces, row.allowed_requests, row.denied_requests), (1, 1, 2), "cue {number}");
    }
    Ok(())
}

#[tokio::test]
async fn a_transaction_outside_a_flush_is_refused_and_keeps_no_lock() -> anyhow::Result<()> {
    let test = TestDatabase::sqlite()?;
    let database = test.connect().await?;
    let tracker = misbehaving_plugin().start(REPLICA, database.clone(), options()).await?;
    track(&tracker, cue(5));
    until(|| tracker.status().waiting_activities == 0).await;
    let other = test.connect().await?;
    other.backend().begin(Purpose::Collection).await?.rollback().await;
    assert_eq!(tracker.flush().await?, Flushed::Written { flush: 1, new_period: true });
    Ok(())
}
