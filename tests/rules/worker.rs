//! The end of a tracker: the retries of a shutdown, and calls after the worker ended without a shutdown.

use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Clock, Database, Error, Flushed, Options, TrackError, Tracker};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::faults::{Fault, Faults};
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::{Cue, misbehaving_plugin, plugin, until, workspace_of};
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

const REPLICA: Uuid = Uuid::from_u128(0xaa);

fn by_hand() -> Options {
    Options { clock: Clock::manual().0, ..Options::default() }
}

fn track(tracker: &Tracker, number: u128) -> Result<(), TrackError> {
    tracker.track(Uuid::from_u128(number), Uuid::from_u128(9), 1, 2)
}

#[tokio::test]
async fn d5_a_shutdown_retries_if_any_step_of_its_last_flush_fails() {
    let faults_of_a_flush = [
        Fault::Begin,
        Fault::Acquire,
        Fault::Read,
        Fault::Upsert,
        Fault::Commit,
        Fault::CommitLost,
        Fault::CommitReplyLost,
        Fault::UpsertPanics,
    ];
    for fault in faults_of_a_flush {
        let model = ModelDatabase::default();
        let (database, faults) = Faults::in_front_of(&Database::with_backend(Arc::new(model.clone())));
        let tracker = plugin().start(REPLICA, database, by_hand()).await.unwrap();
        track(&tracker, 1).unwrap();
        // The first two attempts fail.
        (0..2).for_each(|_| faults.inject(fault));
        let stopped = tracker.shutdown().await;
        assert!(stopped.is_ok(), "{fault:?}: {stopped:?}");
        let row = model.tables().rows[&REPLICA].clone();
        assert_eq!((row.uniques.workspaces.count, row.allowed, row.denied), (1, 1, 2), "{fault:?}");
    }
}

#[tokio::test]
async fn d5_a_shutdown_replaces_a_component_that_crashes_in_its_last_flush() {
    let model = ModelDatabase::default();
    let database = Database::with_backend(Arc::new(model.clone()));
    let tracker = misbehaving_plugin().start(REPLICA, database, by_hand()).await.unwrap();
    tracker.track(workspace_of(Cue::TrapInTransaction), Uuid::from_u128(9), 1, 2).unwrap();
    assert_eq!(tracker.shutdown().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    assert_eq!(model.tables().rows[&REPLICA].allowed, 1);
}

/// Holds the lock of a real SQLite file for longer than the 5 s that one attempt waits.
#[tokio::test]
async fn d5_a_shutdown_retries_while_a_lock_is_held_beyond_its_limit() -> anyhow::Result<()> {
    let test = TestDatabase::sqlite()?;
    let database = test.connect().await?;
    let tracker = plugin().start(REPLICA, database.clone(), by_hand()).await?;
    track(&tracker, 1)?;
    let other = test.connect().await?;
    let holder = other.backend().begin(boundary_usage::Purpose::Collection).await?;
    let shutdown = tokio::spawn({
        let tracker = tracker.clone();
        async move { tracker.shutdown().await }
    });
    until(|| tracker.status().failed_flushes > 0 || shutdown.is_finished()).await;
    holder.rollback().await;
    assert_eq!(shutdown.await??, Flushed::Written { flush: 1, new_period: true });
    Ok(())
}

#[tokio::test]
async fn d5_a_shutdown_ends_at_its_limit_with_the_last_error() {
    let model = ModelDatabase::default();
    let (database, faults) = Faults::in_front_of(&Database::with_backend(Arc::new(model)));
    let limit = Duration::from_millis(300);
    let tracker = plugin().start(REPLICA, database, Options { shutdown_timeout: limit, ..by_hand() }).await.unwrap();
    track(&tracker, 1).unwrap();
    (0..10_000).for_each(|_| faults.inject(Fault::Begin));
    let began = std::time::Instant::now();
    let error = tracker.shutdown().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. } | Error::TimedOut { .. }), "{error}");
    assert!(began.elapsed() < 10 * limit, "the shutdown took {:?}", began.elapsed());
    assert!(tracker.status().failed_flushes > 1, "the shutdown did not retry");
}

/// A time limit that only a call that blocks forever exceeds.
const LIMIT: Duration = Duration::from_secs(10);

/// Calls a function that may block. A blocking task of the runtime would also block the end of a failed test.
async fn on_a_thread<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, result) = oneshot::channel();
    std::thread::spawn(move || sender.send(call()));
    timeout(LIMIT, result).await.expect("track blocks forever").expect("track does not panic")
}

/// Checks that a tracker without a worker refuses everything, and that no caller waits forever.
async fn assert_refuses_everything(tracker: &Tracker) {
    let refused = until(|| tracker.try_track(Uuid::from_u128(1), Uuid::from_u128(9), 1, 0) == Err(TrackError::Stopped));
    timeout(LIMIT, refused).await.expect("the tracker accepts activity that it never flushes");
    let waiting = tracker.clone();
    assert_eq!(on_a_thread(move || track(&waiting, 2)).await, Err(TrackError::Stopped));
    let flushed = tracker.flush().await;
    assert!(matches!(flushed, Err(Error::Stopped)), "{flushed:?}");
    assert!(tracker.shutdown().await.is_err());
}

#[tokio::test]
async fn a_tracker_whose_thread_panics_accepts_nothing_and_all_calls_fail() {
    let (database, faults) = Faults::in_front_of(&Database::with_backend(Arc::new(ModelDatabase::default())));
    let options = Options { intake_capacity: 16, ..by_hand() };
    let tracker = misbehaving_plugin().start(REPLICA, database, options).await.unwrap();
    faults.inject(Fault::RollbackPanics);
    // The component reads without the lock and drops its transaction, so the host rolls it back.
    tracker.track(workspace_of(Cue::ReadWithoutLock), Uuid::from_u128(9), 1, 0).unwrap();
    tracker.flush().await.unwrap_err();
    // These are more activities than the intake holds. An intake that is still open would accept some and then block.
    let filling = tracker.clone();
    let refusal = on_a_thread(move || (1..100).find_map(|number| track(&filling, number).err())).await;
    assert_eq!(refusal, Some(TrackError::Stopped));
    assert_refuses_everything(&tracker).await;
}

#[tokio::test]
async fn a_tracker_whose_worker_is_dropped_accepts_nothing() {
    let database = Database::with_backend(Arc::new(ModelDatabase::default()));
    let (tracker, worker) = plugin().start_local(REPLICA, database, by_hand()).await.unwrap();
    tracker.try_track(Uuid::from_u128(1), Uuid::from_u128(9), 1, 0).unwrap();
    drop(worker);
    assert_refuses_everything(&tracker).await;
}

#[tokio::test]
async fn too_long_durations_are_refused_and_the_error_names_the_limit() {
    type Set = fn(&mut Options, Duration);
    let durations: [(&str, Set); 5] = [
        ("flush_interval", |options, duration| options.flush_interval = duration),
        ("flush_timeout", |options, duration| options.flush_timeout = duration),
        ("shutdown_timeout", |options, duration| options.shutdown_timeout = duration),
        ("checkpoint_interval", |options, duration| options.checkpoint_interval = duration),
        ("cpu_limit", |options, duration| options.cpu_limit = duration),
    ];
    for (name, set) in durations {
        let mut options = by_hand();
        set(&mut options, Duration::MAX);
        let database = Database::with_backend(Arc::new(ModelDatabase::default()));
        let Err(error @ Error::Configuration { .. }) = plugin().start(REPLICA, database, options).await else {
            panic!("{name} has no upper bound")
        };
        assert!(error.to_string().contains(name) && error.to_string().contains("at most"), "{error}");
    }
}

#[tokio::test]
async fn a_collector_with_the_longest_interval_waits_without_a_panic() {
    let database = Database::with_backend(Arc::new(ModelDatabase::default()));
    let (clock, _manual) = Clock::manual();
    let collector = tokio::spawn(async move {
        database.collect_every(Duration::MAX, Default::default(), Default::default(), clock).await
    });
    let ended = tokio::time::timeout(Duration::from_millis(200), collector).await;
    assert!(ended.is_err(), "{ended:?}");
}
