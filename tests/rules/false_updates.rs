//! The host detects false updates, false results and open transactions of a component.
//!
//! The host compares them with its ledger, writes nothing false, and starts a new instance from the ledger.

use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Clock, Database, Error, Flushed, Options, Purpose, Tracker};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::{Cue, flush_to_success, misbehaving_plugin, until, workspace_of};
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

/// Returns (workspaces, users, allowed, denied, last flush).
fn counted(model: &ModelDatabase) -> (u64, u64, u64, u64, u64) {
    let tables = model.tables();
    let row = &tables.rows[&REPLICA];
    let uniques = &row.uniques;
    (uniques.workspaces.count, uniques.users.count, row.allowed, row.denied, tables.last_flushes[&REPLICA])
}

async fn assert_replaced(tracker: &Tracker, cue: Cue, reason: &str) {
    until(|| tracker.status().restarts > 0).await;
    let crash = tracker.status().last_restart.unwrap();
    assert!(crash.contains(reason), "{cue:?}: {crash}");
    assert_eq!(tracker.status().restarts, 1, "{cue:?}");
}

#[tokio::test]
async fn a_component_with_a_false_update_is_replaced_and_nothing_is_written() {
    let updates = [
        (Cue::CommitEmptyUpdateAndTrap, "allowed"),
        (Cue::CommitEmptyUpdateAndBegin, "allowed"),
        (Cue::UpsertUnchangedWithoutRow, "allowed"),
        (Cue::UpsertCumulativeWithoutRow, "allowed"),
        (Cue::UpsertTooManyRequests, "allowed"),
        (Cue::UpsertDamagedSketch, "allowed"),
        (Cue::RepeatFlushNumber, "flush"),
        (Cue::AddAllowedRequest, "allowed"),
        (Cue::OmitDeniedRequest, "denied"),
        (Cue::SkipToLastFlushNumber, "flush"),
        (Cue::OmitUsers, "users"),
        (Cue::WriteUsersAsWorkspaces, "workspaces is 1 instead of 3"),
    ];
    for (cue, reason) in updates {
        let model = ModelDatabase::default();
        let tracker = start(&model).await;
        for workspace in [Uuid::from_u128(1), workspace_of(cue), Uuid::from_u128(2)] {
            track(&tracker, workspace);
        }
        let flushed = tracker.flush().await;
        assert!(matches!(flushed, Err(Error::Component { .. })), "{cue:?}: {flushed:?}");
        assert!(model.tables().rows.is_empty(), "{cue:?}: a false update was written");
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 1, new_period: true });
        assert_eq!(counted(&model), (3, 1, 3, 6, 1), "{cue:?}");
        assert_replaced(&tracker, cue, reason).await;
    }
}

#[tokio::test]
async fn r5_a_false_update_of_an_existing_row_is_refused() {
    for (cue, reason) in [
        (Cue::RepeatFlushNumber, "flush"),
        (Cue::UpsertDeltaForExistingRow, "unique sets"),
        (Cue::AddAllowedRequest, "allowed"),
        (Cue::SkipToLastFlushNumber, "flush"),
        (Cue::OmitUsers, "users"),
        // The number is right, and the ids are wrong.
        (Cue::WriteUsersAsWorkspaces, "the sketch of workspaces differs"),
    ] {
        let model = ModelDatabase::default();
        let tracker = start(&model).await;
        track(&tracker, Uuid::from_u128(1));
        tracker.flush().await.unwrap();
        tracker.track(workspace_of(cue), Uuid::from_u128(8), 1, 2).unwrap();
        let flushed = tracker.flush().await;
        assert!(matches!(flushed, Err(Error::Component { .. })), "{cue:?}: {flushed:?}");
        assert_eq!(counted(&model), (1, 1, 1, 2, 1), "{cue:?}");
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 2, new_period: false });
        assert_eq!(counted(&model), (2, 2, 2, 4, 2), "{cue:?}");
        assert_replaced(&tracker, cue, reason).await;
    }
}

#[tokio::test]
async fn a_component_with_a_false_result_is_replaced_and_nothing_counts_twice() {
    for (cue, reason) in [
        (Cue::FailAfterCommit, "failed"),
        (Cue::ReturnIdle, "nothing to do"),
        (Cue::ReturnOtherFlushNumber, "flush 99"),
    ] {
        let model = ModelDatabase::default();
        let tracker = start(&model).await;
        track(&tracker, workspace_of(cue));
        let flushed = tracker.flush().await;
        assert!(matches!(flushed, Err(Error::Component { .. })), "{cue:?}: {flushed:?}");
        assert_eq!(counted(&model), (1, 1, 1, 2, 1), "{cue:?}");
        assert_replaced(&tracker, cue, reason).await;
        assert_eq!(flush_to_success(&tracker).await, Flushed::Idle, "{cue:?}");
        track(&tracker, Uuid::from_u128(1));
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 2, new_period: false });
        assert_eq!(counted(&model), (2, 1, 2, 4, 2), "{cue:?}");
    }
}

/// A SQLite file has one write lock, and an open transaction would keep it.
#[tokio::test]
async fn a_component_that_leaves_a_transaction_open_is_replaced() -> anyhow::Result<()> {
    for cue in [Cue::KeepTransactionOpen, Cue::KeepTransactionOpenAndFail] {
        let test = TestDatabase::sqlite()?;
        let database = test.connect().await?;
        let tracker = misbehaving_plugin().start(REPLICA, database.clone(), options()).await?;
        track(&tracker, workspace_of(cue));
        let flushed = tracker.flush().await;
        assert!(matches!(flushed, Err(Error::Component { .. })), "{cue:?}: {flushed:?}");
        assert_replaced(&tracker, cue, "transaction open").await;
        // Another process can write.
        let other = test.connect().await?;
        other.backend().begin(Purpose::Collection).await?.rollback().await;
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 1, new_period: true });
        let row = &database.status().await?.rows[0];
        assert_eq!((row.unique_workspaces, row.allowed_requests, row.denied_requests), (1, 1, 2), "{cue:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_transaction_outside_a_flush_is_refused_and_keeps_no_lock() -> anyhow::Result<()> {
    let test = TestDatabase::sqlite()?;
    let database = test.connect().await?;
    let tracker = misbehaving_plugin().start(REPLICA, database.clone(), options()).await?;
    track(&tracker, workspace_of(Cue::BeginOutsideFlush));
    until(|| tracker.status().waiting_activities == 0).await;
    let other = test.connect().await?;
    other.backend().begin(Purpose::Collection).await?.rollback().await;
    assert_eq!(tracker.flush().await?, Flushed::Written { flush: 1, new_period: true });
    Ok(())
}
