//! A component that breaks or reaches for more than it may: the host contains it, and nothing that it had accepted is lost.

use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Clock, Database, Error, Flushed, Options, TrackError, Tracker};
use boundary_usage_tests::faults::{Fault, Faults, Seen};
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::{cue, misbehaving_plugin, until};
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

/// Tracks an activity, then the cue, then another activity: (1, 2) requests each.
fn track_around(tracker: &Tracker, number: u64) {
    for workspace in [Uuid::from_u128(1), cue(number), Uuid::from_u128(2)] {
        tracker.track(workspace, Uuid::from_u128(9), 1, 2).unwrap();
    }
}

/// Flushes until a new instance has done it: a flush in which the component breaks answers so, and the caller repeats it.
async fn flush_to_success(tracker: &Tracker) -> Flushed {
    loop {
        match tracker.flush().await {
            Ok(flushed) => return flushed,
            Err(Error::Component { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn assert_all_counted(model: &ModelDatabase) {
    let row = model.tables().rows[&REPLICA].clone();
    assert_eq!((row.uniques.workspaces.count, row.uniques.users.count, row.allowed, row.denied), (3, 1, 3, 6));
}

async fn breaks_and_is_replaced(number: u64, reason: &str) {
    let model = ModelDatabase::default();
    let tracker = start(&model).await;
    track_around(&tracker, number);
    let broke = tracker.flush().await;
    let told = tracker.status().last_error;
    assert!(broke.is_err() || told.is_none(), "{broke:?}");
    flush_to_success(&tracker).await;
    assert_all_counted(&model);
    let status = tracker.status();
    assert_eq!(status.restarts, 1);
    let why = status.last_restart.unwrap();
    assert!(why.contains(reason), "{why}");
}

#[tokio::test]
async fn a_trap_is_contained_and_loses_nothing() {
    breaks_and_is_replaced(1, "unreachable").await;
}

#[tokio::test]
async fn an_endless_loop_is_interrupted_and_loses_nothing() {
    breaks_and_is_replaced(2, "computed for longer than its limit").await;
}

#[tokio::test]
async fn a_memory_bomb_is_stopped_at_the_limit_and_loses_nothing() {
    breaks_and_is_replaced(3, "memory").await;
}

#[tokio::test]
async fn a_stack_overflow_is_contained_and_loses_nothing() {
    breaks_and_is_replaced(4, "stack").await;
}

#[tokio::test]
async fn a_trap_inside_a_transaction_rolls_it_back_and_loses_nothing() {
    breaks_and_is_replaced(10, "unreachable").await;
}

#[tokio::test]
async fn a_flush_that_never_ends_is_given_up_and_loses_nothing() {
    breaks_and_is_replaced(11, "does not end").await;
}

/// The timer of the first flush is still set then, for an earlier moment.
#[tokio::test]
async fn a_flush_that_never_ends_after_one_that_did_is_given_up_too() {
    let model = ModelDatabase::default();
    let tracker = start(&model).await;
    tracker.track(Uuid::from_u128(1), Uuid::from_u128(9), 1, 2).unwrap();
    assert_eq!(tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    for workspace in [cue(11), Uuid::from_u128(2)] {
        tracker.track(workspace, Uuid::from_u128(9), 1, 2).unwrap();
    }
    tracker.flush().await.unwrap_err();
    flush_to_success(&tracker).await;
    assert_all_counted(&model);
    let why = tracker.status().last_restart.unwrap();
    assert!(why.contains("does not end"), "{why}");
}

#[tokio::test]
async fn a_transaction_held_for_ever_is_ended_and_loses_nothing() {
    breaks_and_is_replaced(13, "unreachable").await;
    // After the time limit of the flush, each call fails immediately, so the component computes without a pause.
    breaks_and_is_replaced(14, "computed for longer than its limit").await;
}

#[tokio::test]
async fn a_transaction_used_after_its_end_traps_and_loses_nothing() {
    breaks_and_is_replaced(15, "unknown handle index").await;
}

#[tokio::test]
async fn a_second_commit_and_a_second_transaction_of_one_flush_reach_nothing() {
    for (number, reason) in [(40, "unknown handle index"), (41, "has already read the usage")] {
        let model = ModelDatabase::default();
        let tracker = start(&model).await;
        track_around(&tracker, number);
        let error = tracker.flush().await.unwrap_err();
        assert!(matches!(error, Error::Component { .. }), "cue {number}: {error}");
        // Its flush was applied, so that a component which calls it failed would send it again.
        until(|| tracker.status().restarts == 1).await;
        let why = tracker.status().last_restart.unwrap();
        assert!(why.contains(reason), "cue {number}: {why}");
        assert_eq!(model.tables().rows[&REPLICA].allowed, 3, "cue {number}: its one commit has written");
        tracker.track(Uuid::from_u128(3), Uuid::from_u128(9), 1, 2).unwrap();
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 2, new_period: false });
    }
}

/// A database that can be held, and a tracker on it whose flush may take as long.
async fn start_with_faults(model: &ModelDatabase, flush_timeout: Duration) -> (Tracker, Faults) {
    let (database, faults) = Faults::in_front_of(&Database::with_backend(Arc::new(model.clone())));
    let options = Options { clock: Clock::manual().0, flush_timeout, ..Options::default() };
    (misbehaving_plugin().start(REPLICA, database, options).await.unwrap(), faults)
}

/// A database call that is held, and whether its transaction commits when the call is released.
const HELD: [(Fault, bool); 3] = [(Fault::ReadHeld, false), (Fault::UpsertHeld, false), (Fault::CommitHeld, true)];

async fn ended(faults: &Faults, commits: bool) {
    faults.until(|seen| seen.rolled_back + seen.committed + seen.abandoned > 0).await;
    let Seen { rolled_back, committed, abandoned, .. } = faults.seen();
    assert_eq!(abandoned, 0, "its future was dropped half way");
    assert_eq!((rolled_back, committed), if commits { (0, 1) } else { (1, 0) });
}

#[tokio::test]
async fn what_the_database_has_begun_when_the_component_breaks_is_ended() {
    for (held, commits) in HELD {
        ends_what_was_begun_when_the_component_breaks(held, commits).await;
    }
}

async fn ends_what_was_begun_when_the_component_breaks(held: Fault, commits: bool) {
    let model = ModelDatabase::default();
    let (tracker, faults) = start_with_faults(&model, Duration::from_secs(60)).await;
    faults.inject(held);
    tracker.track(Uuid::from_u128(1), Uuid::from_u128(9), 1, 2).unwrap();
    let flush = tokio::spawn({
        let tracker = tracker.clone();
        async move { tracker.flush().await }
    });
    faults.until(|seen| seen.held).await;
    tracker.track(cue(1), Uuid::from_u128(9), 1, 2).unwrap();
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
async fn a_component_that_breaks_holds_no_transaction_while_it_waits_to_be_replaced() {
    let (database, faults) = Faults::in_front_of(&Database::with_backend(Arc::new(ModelDatabase::default())));
    let options = Options { clock: Clock::manual().0, ..Options::default() };
    let (tracker, running) = misbehaving_plugin().start_local(REPLICA, database, options).await.unwrap();
    let test = async {
        tracker.try_track(cue(10), Uuid::from_u128(9), 1, 2).unwrap();
        assert!(matches!(tracker.flush().await, Err(Error::Component { .. })));
        faults.until(|seen| seen.rolled_back == 1).await;
        // Nobody has waited: this clock goes on only when all do.
        assert_eq!(tracker.status().restart_wait_ms, Some(50));
        tracker.shutdown().await
    };
    let (shut_down, ()) = tokio::join!(test, running);
    assert_eq!(shut_down.unwrap(), Flushed::Written { flush: 1, new_period: true });
}

#[tokio::test]
async fn what_the_database_has_begun_when_its_time_is_over_is_ended() {
    for (held, commits) in HELD {
        let model = ModelDatabase::default();
        let (tracker, faults) = start_with_faults(&model, Duration::from_millis(20)).await;
        faults.inject(held);
        track_around(&tracker, 0);
        let error = tracker.flush().await.unwrap_err();
        let told = tracker.status().last_error.unwrap();
        assert!(error.is_retryable() && told.contains("the time limit of the flush has passed"), "{told}");
        assert_eq!(matches!(error, Error::CommitUnknown { .. }), commits, "{told}");
        let Seen { rolled_back, committed, .. } = faults.seen();
        assert_eq!((rolled_back, committed), (0, 0), "it is not over");
        faults.release();
        ended(&faults, commits).await;
        while tracker.flush().await.is_err() {}
        assert_all_counted(&model);
    }
}

#[tokio::test]
async fn a_database_driver_that_panics_costs_its_flush_and_nothing_else() {
    for (fault, is_in_doubt) in [(Fault::UpsertPanics, false), (Fault::CommitPanics, true)] {
        let model = ModelDatabase::default();
        let (tracker, faults) = start_with_faults(&model, Duration::from_secs(60)).await;
        faults.inject(fault);
        track_around(&tracker, 0);
        let error = tracker.flush().await.unwrap_err();
        let told = tracker.status().last_error.unwrap();
        assert!(told.contains("driver panicked"), "{fault:?}: {told}");
        assert_eq!(matches!(error, Error::CommitUnknown { .. }), is_in_doubt, "{fault:?}: {told}");
        assert_eq!(tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
        assert_all_counted(&model);
        assert_eq!(tracker.status().restarts, 0);
    }
}

#[tokio::test]
async fn a_component_that_reaches_for_more_than_it_may_is_refused() {
    let refusals = [
        (20, "is not the component's own"),
        (21, "has another open transaction"),
        (22, "only a collection acquires the cutover lock exclusively"),
        (23, "a read needs the replica's lock"),
        (24, "an upsert needs"),
        (25, "and a read"),
        (26, "already has an upsert"),
        (27, "nothing to commit"),
    ];
    for (number, expected) in refusals {
        let model = ModelDatabase::default();
        let tracker = start(&model).await;
        track_around(&tracker, number);
        let error = tracker.flush().await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "cue {number}: {error}");
        assert!(error.to_string().contains(expected), "cue {number}: {error}");
        assert!(model.tables().rows.is_empty(), "cue {number} has written");
        assert_eq!(flush_to_success(&tracker).await, Flushed::Written { flush: 1, new_period: true });
        assert_all_counted(&model);
        assert_eq!(tracker.status().restarts, 0, "cue {number}");
    }
}

#[tokio::test]
async fn a_component_that_breaks_again_and_again_is_replaced_ever_more_slowly_and_says_so() {
    let model = ModelDatabase::default();
    let tracker = start(&model).await;
    for round in 1..=4 {
        // What is tracked while the component is away, its successor gets from the ledger, and not as a cue.
        until(|| tracker.status().restart_wait_ms.is_none()).await;
        tracker.track(cue(10), Uuid::from_u128(9), 1, 2).unwrap();
        let broke = tracker.flush().await.unwrap_err();
        assert!(matches!(broke, Error::Component { .. }), "{broke}");
        until(|| tracker.status().restarts == round).await;
        assert_eq!(u64::from(tracker.status().consecutive_restarts), round);
        tracker.track(Uuid::from_u128(round.into()), Uuid::from_u128(9), 1, 2).expect("it accepts while it waits");
    }
    flush_to_success(&tracker).await;
    let status = tracker.status();
    assert_eq!((status.consecutive_restarts, status.restart_wait_ms), (0, None));
    let row = model.tables().rows[&REPLICA].clone();
    assert_eq!((row.uniques.workspaces.count, row.allowed, row.denied), (5, 8, 16));

    tracker.track(cue(10), Uuid::from_u128(9), 1, 2).unwrap();
    tracker.flush().await.unwrap_err();
    until(|| tracker.status().restarts == 5).await;
    assert_eq!(tracker.status().consecutive_restarts, 1, "a flush that went through starts the waits again");
}

#[tokio::test]
async fn producers_faster_than_a_component_that_hangs_wait_and_lose_nothing() {
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
    tracker.track(cue(2), Uuid::from_u128(9), 1, 0).unwrap();
    // The component hangs once it has this; then nobody empties the intake.
    let mut ids = (1..).map(|number| Uuid::from_u64_pair(9, number));
    let mut try_another = || tracker.try_track(ids.next().expect("a range without an end"), Uuid::from_u128(9), 0, 0);
    until(|| try_another().is_err()).await;
    let full = try_another();
    assert_eq!(full, Err(TrackError::Full { capacity: CAPACITY as usize }));
    let accepted = tracker.status().activities;
    assert!(accepted <= 2 * CAPACITY + 1, "{accepted} wait: more than one batch taken and one full intake");
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
    assert_eq!(tracker.status().waiting_activities, 0, "also those that broke the component are its successor's");
    assert_eq!(tracker.status().restarts, 1);
}
