//! The host contains a component that crashes or exceeds its authority.
//!
//! It starts a new instance from its ledger, so no accepted activity is lost.

use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Clock, Database, Error, Flushed, Options, TrackError, Tracker};
use boundary_usage_tests::faults::{Fault, Faults, Seen};
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::{Cue, flush_to_success, misbehaving_plugin, until, workspace_of};
use uuid::Uuid;

const REPLICA: Uuid = Uuid::from_u128(0xaa);

async fn start(model: &ModelDatabase) -> Tracker {
    let options = Options {
        clock: Clock::manual().0,
        memory_limit_bytes: 8 << 20,
        cpu_limit: Duration::from_millis(100),
        flush_timeout: Duration::from_millis(200),
        ..Options::default()
    };
    let database = Database::with_backend(Arc::new(model.clone()));
    misbehaving_plugin().start(REPLICA, database, options).await.unwrap()
}

/// Tracks one activity of `workspace` and two others around it, each with 1 allowed and 2 denied requests.
fn track_around(tracker: &Tracker, workspace: Uuid) {
    for workspace in [Uuid::from_u128(1), workspace, Uuid::from_u128(2)] {
        tracker.track(workspace, Uuid::from_u128(9), 1, 2).unwrap();
    }
}

fn assert_all_counted(model: &ModelDatabase) {
    let row = model.tables().rows[&REPLICA].clone();
    assert_eq!((row.uniques.workspaces.count, row.uniques.users.count, row.allowed, row.denied), (3, 1, 3, 6));
}

async fn crashes_and_is_replaced(cue: Cue, reason: &str) {
    let model = ModelDatabase::default();
    let tracker = start(&model).await;
    track_around(&tracker, workspace_of(cue));
    let flushed = tracker.flush().await;
    let last_error = tracker.status().last_error;
    assert!(flushed.is_err() || last_error.is_none(), "{flushed:?}");
    flush_to_success(&tracker).await;
    assert_all_counted(&model);
    let status = tracker.status();
    assert_eq!(status.restarts, 1);
    let crash = status.last_restart.unwrap();
    assert!(crash.contains(reason), "{crash}");
}

#[tokio::test]
async fn a_trap_is_contained_and_loses_nothing() {
    crashes_and_is_replaced(Cue::TrapInTrack, "unreachable").await;
}

#[tokio::test]
async fn an_endless_loop_is_interrupted_and_loses_nothing() {
    crashes_and_is_replaced(Cue::LoopForever, "computed for longer than its limit").await;
}

#[tokio::test]
async fn a_memory_bomb_is_stopped_at_the_limit_and_loses_nothing() {
    crashes_and_is_replaced(Cue::ExhaustMemory, "memory").await;
}

#[tokio::test]
async fn a_stack_overflow_is_contained_and_loses_nothing() {
    crashes_and_is_replaced(Cue::OverflowStack, "stack").await;
}

#[tokio::test]
async fn a_trap_inside_a_transaction_rolls_it_back_and_loses_nothing() {
    crashes_and_is_replaced(Cue::TrapInTransaction, "unreachable").await;
}

#[tokio::test]
async fn a_flush_that_never_ends_is_cancelled_and_loses_nothing() {
    crashes_and_is_replaced(Cue::BeginForever, "does not end").await;
}

/// The timer of the first flush is still set when the second flush starts.
#[tokio::test]
async fn a_flush_that_never_ends_after_a_successful_one_is_cancelled_too() {
    let model = ModelDatabase::default();
    let tracker = start(&model).await;
    tracker.track(Uuid::from_u128(1), Uuid::from_u128(9), 1, 2).unwrap();
    assert_eq!(tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    for workspace in [workspace_of(Cue::BeginForever), Uuid::from_u128(2)] {
        tracker.track(workspace, Uuid::from_u128(9), 1, 2).unwrap();
    }
    tracker.flush().await.unwrap_err();
    flush_to_success(&tracker).await;
    assert_all_counted(&model);
    let crash = tracker.status().last_restart.unwrap();
    assert!(crash.contains("does not end"), "{crash}");
}

#[tokio::test]
async fn a_transaction_that_is_held_open_is_ended_and_loses_nothing() {
    crashes_and_is_replaced(Cue::HoldLocksForever, "unreachable").await;
    crashes_and_is_replaced(Cue::ReadForever, "does not end").await;
}

#[tokio::test]
async fn a_transaction_used_after_its_end_traps_and_loses_nothing() {
    crashes_and_is_replaced(Cue::UseEndedTransaction, "unknown handle index").await;
}

#[tokio::test]
async fn a_second_commit_or_transaction_within_one_flush_changes_nothing() {
    for (cue, reason) in
        [(Cue::CommitTwice, "unknown handle index"), (Cue::BeginAfterCommit, "has already read the usage")]
    {
        let model = ModelDatabase::default();
        let tracker = start(&model).await;
        track_around(&tracker, workspace_of(cue));
        let error = tracker.flush().await.unwrap_err();
        assert!(matches!(error, Error::Component { .. }), "{cue:?}: {error}");
        // The flush was applied. If the component were not replaced, it would send this flush again.
        until(|| tracker.status().restarts == 1).await;
        let crash = tracker.status().last_restart.unwrap();
        assert!(crash.contains(reason), "{cue:?}: {crash}");
        assert_eq!(model.tables().rows[&REPLICA].allowed, 3, "{cue:?}: the first commit is applied");
        tracker.track(Uuid::from_u128(3), Uuid::from_u128(9), 1, 2).unwrap();
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 2, new_period: false });
    }
}

/// Starts a tracker with this time limit for flushes on a database that can pause its calls.
async fn start_with_faults(model: &ModelDatabase, flush_timeout: Duration) -> (Tracker, Faults) {
    let (database, faults) = Faults::in_front_of(&Database::with_backend(Arc::new(model.clone())));
    let options = Options { clock: Clock::manual().0, flush_timeout, ..Options::default() };
    (misbehaving_plugin().start(REPLICA, database, options).await.unwrap(), faults)
}

/// Database calls that can be paused, and whether their transaction commits when the call is released.
const HELD: [(Fault, bool); 3] = [(Fault::ReadHeld, false), (Fault::UpsertHeld, false), (Fault::CommitHeld, true)];

async fn ended(faults: &Faults, commits: bool) {
    faults.until(|seen| seen.rolled_back + seen.committed + seen.abandoned > 0).await;
    let Seen { rolled_back, committed, abandoned, .. } = faults.seen();
    assert_eq!(abandoned, 0, "a future was dropped halfway");
    assert_eq!((rolled_back, committed), if commits { (0, 1) } else { (1, 0) });
}

#[tokio::test]
async fn an_open_transaction_is_ended_when_the_component_crashes() {
    for (held, commits) in HELD {
        ends_the_transaction_of_a_crashed_component(held, commits).await;
    }
}

async fn ends_the_transaction_of_a_crashed_component(held: Fault, commits: bool) {
    let model = ModelDatabase::default();
    let (tracker, faults) = start_with_faults(&model, Duration::from_secs(60)).await;
    faults.inject(held);
    tracker.track(Uuid::from_u128(1), Uuid::from_u128(9), 1, 2).unwrap();
    let flush = tokio::spawn({
        let tracker = tracker.clone();
        async move { tracker.flush().await }
    });
    faults.until(|seen| seen.held).await;
    tracker.track(workspace_of(Cue::TrapInTrack), Uuid::from_u128(9), 1, 2).unwrap();
    assert!(matches!(flush.await.unwrap(), Err(Error::Component { .. })));
    until(|| tracker.status().restarts == 1).await;
    faults.release();
    ended(&faults, commits).await;
    tracker.track(Uuid::from_u128(2), Uuid::from_u128(9), 1, 2).unwrap();
    let next = Flushed::Written { flush: if commits { 2 } else { 1 }, new_period: !commits };
    assert_eq!(flush_to_success(&tracker).await, next);
    assert_all_counted(&model);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_component_holds_no_transaction_while_its_restart_is_delayed() {
    let (database, faults) = Faults::in_front_of(&Database::with_backend(Arc::new(ModelDatabase::default())));
    let options = Options { clock: Clock::manual().0, ..Options::default() };
    let (tracker, running) = misbehaving_plugin().start_local(REPLICA, database, options).await.unwrap();
    let test = async {
        tracker.try_track(workspace_of(Cue::TrapInTransaction), Uuid::from_u128(9), 1, 2).unwrap();
        assert!(matches!(tracker.flush().await, Err(Error::Component { .. })));
        faults.until(|seen| seen.rolled_back == 1).await;
        // The paused clock advances only when all tasks wait. So the full delay shows that no time has passed.
        assert_eq!(tracker.status().restart_wait_ms, Some(50));
        tracker.shutdown().await
    };
    let (shut_down, ()) = tokio::join!(test, running);
    assert_eq!(shut_down.unwrap(), Flushed::Written { flush: 1, new_period: true });
}

#[tokio::test]
async fn an_open_transaction_is_ended_after_the_time_limit_of_its_flush() {
    for (held, commits) in HELD {
        let model = ModelDatabase::default();
        let (tracker, faults) = start_with_faults(&model, Duration::from_millis(20)).await;
        faults.inject(held);
        track_around(&tracker, Uuid::from_u128(3));
        let error = tracker.flush().await.unwrap_err();
        let message = tracker.status().last_error.unwrap();
        assert!(error.is_retryable() && message.contains("the time limit of the flush has passed"), "{message}");
        assert_eq!(matches!(error, Error::CommitUnknown { .. }), commits, "{message}");
        let Seen { rolled_back, committed, .. } = faults.seen();
        assert_eq!((rolled_back, committed), (0, 0), "the paused call has ended");
        faults.release();
        ended(&faults, commits).await;
        while tracker.flush().await.is_err() {}
        assert_all_counted(&model);
    }
}

#[tokio::test]
async fn a_database_driver_that_panics_fails_only_its_flush() {
    for (fault, is_in_doubt) in [(Fault::UpsertPanics, false), (Fault::CommitPanics, true)] {
        let model = ModelDatabase::default();
        let (tracker, faults) = start_with_faults(&model, Duration::from_secs(60)).await;
        faults.inject(fault);
        track_around(&tracker, Uuid::from_u128(3));
        let error = tracker.flush().await.unwrap_err();
        let message = tracker.status().last_error.unwrap();
        assert!(message.contains("driver panicked"), "{fault:?}: {message}");
        assert_eq!(matches!(error, Error::CommitUnknown { .. }), is_in_doubt, "{fault:?}: {message}");
        assert_eq!(tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
        assert_all_counted(&model);
        assert_eq!(tracker.status().restarts, 0);
    }
}

#[tokio::test]
async fn calls_beyond_the_components_authority_are_refused() {
    let refusals = [
        (Cue::BeginForOtherReplica, "is not the component's own"),
        (Cue::BeginTwice, "has another open transaction"),
        (Cue::AcquireExclusiveCutover, "only a collection acquires the cutover lock exclusively"),
        (Cue::ReadWithoutLock, "a read needs the replica's lock"),
        (Cue::UpsertWithoutLocks, "an upsert needs"),
        (Cue::UpsertWithoutRead, "and a read"),
        (Cue::UpsertTwice, "already has an upsert"),
        (Cue::CommitWithoutUpsert, "nothing to commit"),
    ];
    for (cue, expected) in refusals {
        let model = ModelDatabase::default();
        let tracker = start(&model).await;
        track_around(&tracker, workspace_of(cue));
        let error = tracker.flush().await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{cue:?}: {error}");
        assert!(error.to_string().contains(expected), "{cue:?}: {error}");
        assert!(model.tables().rows.is_empty(), "{cue:?}: a refused call has written");
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 1, new_period: true });
        assert_all_counted(&model);
        assert_eq!(tracker.status().restarts, 0, "{cue:?}");
    }
}

#[tokio::test]
async fn restarts_of_a_component_that_keeps_crashing_back_off_and_are_reported() {
    let model = ModelDatabase::default();
    let tracker = start(&model).await;
    for round in 1..=4 {
        // A new instance restores earlier activity from the ledger, and then a cue has no effect.
        until(|| tracker.status().restart_wait_ms.is_none()).await;
        tracker.track(workspace_of(Cue::TrapInTransaction), Uuid::from_u128(9), 1, 2).unwrap();
        let error = tracker.flush().await.unwrap_err();
        assert!(matches!(error, Error::Component { .. }), "{error}");
        until(|| tracker.status().restarts == round).await;
        assert_eq!(u64::from(tracker.status().consecutive_restarts), round);
        tracker
            .track(Uuid::from_u128(round.into()), Uuid::from_u128(9), 1, 2)
            .expect("activity is accepted during the delay");
    }
    flush_to_success(&tracker).await;
    let status = tracker.status();
    assert_eq!((status.consecutive_restarts, status.restart_wait_ms), (0, None));
    let row = model.tables().rows[&REPLICA].clone();
    assert_eq!((row.uniques.workspaces.count, row.allowed, row.denied), (5, 8, 16));

    tracker.track(workspace_of(Cue::TrapInTransaction), Uuid::from_u128(9), 1, 2).unwrap();
    tracker.flush().await.unwrap_err();
    until(|| tracker.status().restarts == 5).await;
    assert_eq!(tracker.status().consecutive_restarts, 1, "a successful flush resets the back-off");
}

#[tokio::test]
async fn producers_wait_for_a_component_that_hangs_and_lose_nothing() {
    const CAPACITY: u64 = 100;
    const EACH: u64 = 1_000;
    let model = ModelDatabase::default();
    let options = Options {
        clock: Clock::manual().0,
        cpu_limit: Duration::from_millis(500),
        intake_capacity: CAPACITY as usize,
        ..Options::default()
    };
    let database = Database::with_backend(Arc::new(model.clone()));
    let tracker = misbehaving_plugin().start(REPLICA, database, options).await.unwrap();
    tracker.track(workspace_of(Cue::LoopForever), Uuid::from_u128(9), 1, 0).unwrap();
    // The component hangs when it receives the cue. From then on, activities stay in the intake.
    let mut ids = (1..).map(|number| Uuid::from_u64_pair(9, number));
    let mut try_another = || tracker.try_track(ids.next().expect("an infinite range"), Uuid::from_u128(9), 0, 0);
    until(|| try_another().is_err()).await;
    let full = try_another();
    assert_eq!(full, Err(TrackError::Full { capacity: CAPACITY as usize }));
    let accepted = tracker.status().activities;
    assert!(accepted <= 2 * CAPACITY + 1, "{accepted} activities are more than one batch and a full intake");
    let producers: Vec<_> = (0..4)
        .map(|producer| {
            let tracker = tracker.clone();
            let produce = move || {
                for number in 0..EACH {
                    tracker.track(Uuid::from_u64_pair(1 + producer, 1 + number), Uuid::from_u128(9), 1, 0).unwrap();
                }
            };
            tokio::task::spawn_blocking(produce)
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    flush_to_success(&tracker).await;
    assert_eq!(model.tables().rows[&REPLICA].allowed, 1 + 4 * EACH);
    assert_eq!(tracker.status().activities, accepted + 4 * EACH);
    assert_eq!(tracker.status().waiting_activities, 0, "the new instance has all activities, also the cue");
    assert_eq!(tracker.status().restarts, 1);
}
