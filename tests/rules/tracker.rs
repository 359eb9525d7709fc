//! `track` and `flush` through the real component, on a database in memory that fails on request.

use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Clock, Database, Error, Flushed, ManualClock, Options, TrackError, Tracker};
use boundary_usage_tests::faults::{Fault, Faults};
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::plugin;
use uuid::Uuid;

const REPLICA: Uuid = Uuid::from_u128(0xaa);

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A tracker on a model database, with a manual clock so that it flushes only on request.
struct Fixture {
    model: ModelDatabase,
    faults: Faults,
    tracker: Tracker,
    clock: ManualClock,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(|options| options).await
    }

    async fn with(adjust: impl FnOnce(Options) -> Options) -> Self {
        let model = ModelDatabase::default();
        let (database, faults) = Faults::in_front_of(&Database::with_backend(Arc::new(model.clone())));
        let (clock, manual) = Clock::manual();
        let options = adjust(Options { clock, ..Options::default() });
        let tracker = plugin().start(REPLICA, database, options).await.unwrap();
        Self { model, faults, tracker, clock: manual }
    }

    fn track(&self, number: u128, allowed: u64, denied: u64) {
        self.tracker.track(id(number), id(number), allowed, denied).unwrap();
    }

    /// Returns (workspaces, users, allowed, denied) of the replica's row.
    fn row(&self) -> (u64, u64, u64, u64) {
        let row = self.model.tables().rows[&REPLICA].clone();
        (row.uniques.workspaces.count, row.uniques.users.count, row.allowed, row.denied)
    }
}

#[tokio::test]
async fn r1_a_track_without_requests_still_counts_the_ids() {
    let fixture = Fixture::new().await;
    fixture.track(1, 0, 0);
    assert_eq!(fixture.tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    assert_eq!(fixture.row(), (1, 1, 0, 0));
}

#[tokio::test]
async fn r2_a_flush_without_activity_opens_no_transaction() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.tracker.flush().await.unwrap(), Flushed::Idle);
    assert_eq!(fixture.faults.seen().begun, 0);
    fixture.track(1, 1, 0);
    fixture.tracker.flush().await.unwrap();
    assert_eq!(fixture.tracker.flush().await.unwrap(), Flushed::Idle);
    assert_eq!(fixture.faults.seen().begun, 1);
}

#[tokio::test]
async fn r3_activity_during_a_flush_is_accepted_and_belongs_to_the_next_flush() {
    let fixture = Fixture::new().await;
    let collection = fixture.model.hold_cutover().await;
    fixture.track(1, 10, 5);
    let flush = tokio::spawn({
        let tracker = fixture.tracker.clone();
        async move { tracker.flush().await }
    });
    fixture.faults.until(|seen| seen.begun >= 1).await;
    fixture.track(2, 20, 10);
    drop(collection);
    assert_eq!(flush.await.unwrap().unwrap(), Flushed::Written { flush: 1, new_period: true });
    assert_eq!(fixture.row(), (1, 1, 10, 5));
    assert_eq!(fixture.tracker.flush().await.unwrap(), Flushed::Written { flush: 2, new_period: false });
    assert_eq!(fixture.row(), (2, 2, 30, 15));
    assert_eq!(fixture.tracker.status().restarts, 0, "the component was replaced");
}

#[tokio::test]
async fn r4_and_d2_a_failed_step_rolls_back_returns_its_error_and_loses_nothing() {
    for fault in [Fault::Begin, Fault::Acquire, Fault::Read, Fault::Upsert, Fault::Commit] {
        let fixture = Fixture::new().await;
        fixture.track(1, 3, 1);
        fixture.faults.inject(fault);
        let error = fixture.tracker.flush().await.unwrap_err();
        assert!(error.is_retryable(), "{fault:?}: {error}");
        assert!(fixture.model.tables().rows.is_empty(), "{fault:?}: a row was written");
        fixture.track(2, 4, 2);
        assert_eq!(fixture.tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
        assert_eq!(fixture.row(), (2, 2, 7, 3), "{fault:?}");
    }
}

#[tokio::test]
async fn d3_a_lost_commit_reply_is_resolved_by_the_next_flush() {
    let fixture = Fixture::new().await;
    fixture.track(1, 3, 1);
    fixture.faults.inject(Fault::CommitReplyLost);
    assert!(matches!(fixture.tracker.flush().await, Err(Error::CommitUnknown { .. })));
    assert_eq!(fixture.tracker.flush().await.unwrap(), Flushed::Confirmed { flush: 1 });
    assert_eq!(fixture.row(), (1, 1, 3, 1));
    assert_eq!(fixture.tracker.flush().await.unwrap(), Flushed::Idle);
}

#[tokio::test]
async fn d3_a_lost_commit_is_sent_again() {
    let fixture = Fixture::new().await;
    fixture.track(1, 3, 1);
    fixture.faults.inject(Fault::CommitLost);
    assert!(matches!(fixture.tracker.flush().await, Err(Error::CommitUnknown { .. })));
    fixture.faults.inject(Fault::Acquire);
    fixture.tracker.flush().await.unwrap_err();
    assert_eq!(fixture.tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    assert_eq!(fixture.row(), (1, 1, 3, 1));
}

#[tokio::test]
async fn d5_a_shutdown_flushes_once_more_and_then_accepts_nothing() {
    let fixture = Fixture::new().await;
    fixture.track(1, 3, 1);
    assert_eq!(fixture.tracker.shutdown().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    assert_eq!(fixture.row(), (1, 1, 3, 1));
    assert_eq!(fixture.tracker.track(id(1), id(1), 1, 1), Err(TrackError::Stopped));
    assert_eq!(fixture.tracker.try_track(id(1), id(1), 1, 1), Err(TrackError::Stopped));
    assert!(matches!(fixture.tracker.flush().await, Err(Error::Stopped)));
}

#[tokio::test]
async fn d5_a_shutdown_that_takes_too_long_ends_at_its_limit() {
    let fixture = Fixture::with(|options| Options { shutdown_timeout: Duration::from_millis(50), ..options }).await;
    let _collection = fixture.model.hold_cutover().await;
    fixture.track(1, 3, 1);
    let error = fixture.tracker.shutdown().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn r7_and_d10_the_loop_flushes_at_every_interval_and_continues_after_a_failure() {
    let fixture = Fixture::with(|options| Options { flush_jitter: 0.0, ..options }).await;
    // The seconds to wait, and whether the flush then fails. After a failure the next flush is sooner (back-off).
    let rounds = [(60, false), (60, true), (1, true), (2, true), (4, false), (60, true), (1, false)];
    for (round, (seconds, fails)) in (0..).zip(rounds) {
        // The loop sleeps after the previous flush, which the fault must not affect.
        fixture.clock.sleepers(1).await;
        fixture.track(1 + u128::from(round), 1, 0);
        if fails {
            fixture.faults.inject(Fault::Upsert);
        }
        fixture.clock.advance(Duration::from_millis(seconds * 1_000 - 1));
        assert_eq!(fixture.faults.seen().begun, round, "flushed before {seconds} s had passed");
        fixture.clock.advance(Duration::from_millis(1));
        fixture.faults.until(|seen| seen.begun > round).await;
    }
    // The loop sleeps again after its last flush.
    fixture.clock.sleepers(1).await;
    let status = fixture.tracker.status();
    assert_eq!((status.flushes, status.failed_flushes, status.last_error), (3, 4, None));
    assert_eq!(fixture.row(), (7, 7, 7, 0));
}

#[tokio::test]
async fn d10_the_status_shows_pending_activity_and_the_results_of_flushes() {
    let fixture = Fixture::new().await;
    let status = || fixture.tracker.status();
    assert_eq!((status().pending_activities, status().last_success), (0, None));
    (1..=3).for_each(|number| fixture.track(number, 1, 0));
    fixture.faults.inject(Fault::CommitReplyLost);
    fixture.tracker.flush().await.unwrap_err();
    assert_eq!((status().pending_activities, status().last_success), (3, None), "the outcome is unknown");
    fixture.tracker.flush().await.unwrap();
    assert_eq!((status().pending_activities, status().intake_depth), (0, 0));
    let first_success = status().last_success.expect("a flush succeeded");

    let collection = fixture.model.hold_cutover().await;
    fixture.track(4, 1, 0);
    let flush = tokio::spawn({
        let tracker = fixture.tracker.clone();
        async move { tracker.flush().await }
    });
    fixture.faults.until(|seen| seen.begun >= 3).await;
    fixture.track(5, 1, 0);
    fixture.clock.advance(Duration::from_secs(2));
    drop(collection);
    flush.await.unwrap().unwrap();
    assert_eq!(status().pending_activities, 1, "activity during a flush belongs to the next one");
    fixture.tracker.flush().await.unwrap();
    fixture.tracker.flush().await.unwrap();

    let status = status();
    assert_eq!((status.flushes, status.idle_flushes, status.failed_flushes), (3, 1, 1));
    assert_eq!(
        (status.flush_durations.count, status.flush_durations.sum_seconds),
        (4, 2.0),
        "idle flushes take no time"
    );
    assert_eq!(status.pending_activities, 0);
    assert!(status.last_success >= Some(first_success));
}

#[tokio::test]
async fn r10_a_hundred_threads_track_simultaneously() {
    let fixture = Fixture::new().await;
    std::thread::scope(|scope| {
        for thread in 1..=100 {
            let fixture = &fixture;
            scope.spawn(move || (0..10).for_each(|_| fixture.track(thread, 1, 1)));
        }
    });
    fixture.tracker.flush().await.unwrap();
    assert_eq!(fixture.row(), (100, 100, 1_000, 1_000));
    assert_eq!(fixture.tracker.status().activities, 1_000);
}

#[tokio::test]
async fn r6_many_ids_and_failed_flushes_fit_into_the_memory_limit() {
    let fixture = Fixture::with(|options| Options { memory_limit_bytes: 4 << 20, ..options }).await;
    for round in 0..20_u128 {
        for number in 0..20_000 {
            fixture.track(1 + round * 20_000 + number, 1, 0);
        }
        fixture.faults.inject(if round % 2 == 0 { Fault::CommitLost } else { Fault::Upsert });
        fixture.tracker.flush().await.unwrap_err();
    }
    fixture.tracker.flush().await.unwrap();
    let (workspaces, _, allowed, _) = fixture.row();
    assert!((workspaces as f64 / 400_000.0 - 1.0).abs() < 0.04, "estimated {workspaces} of 400,000");
    assert_eq!((allowed, fixture.tracker.status().restarts), (400_000, 0));
}

#[tokio::test]
async fn nil_ids_are_refused_and_never_reach_the_component() {
    let fixture = Fixture::new().await;
    let refused = fixture.tracker.track(Uuid::nil(), id(1), 1, 0).unwrap_err();
    assert!(refused.to_string().contains("workspace is the nil UUID"), "{refused}");
    assert_eq!(fixture.tracker.try_track(id(1), Uuid::nil(), 1, 0), Err(TrackError::NilId { field: "owner" }));
    assert_eq!(fixture.tracker.flush().await.unwrap(), Flushed::Idle);
}

#[tokio::test]
async fn counts_out_of_range_saturate() {
    let fixture = Fixture::new().await;
    fixture.track(1, u64::MAX, i64::MAX as u64);
    fixture.track(1, u64::MAX, 1);
    fixture.tracker.flush().await.unwrap();
    assert_eq!(fixture.row(), (1, 1, i64::MAX as u64, i64::MAX as u64));
}

#[tokio::test]
async fn dropping_the_last_handle_without_a_shutdown_flushes() {
    let Fixture { model, tracker, .. } = Fixture::new().await;
    tracker.track(id(1), id(1), 3, 1).unwrap();
    drop(tracker);
    model.committed(1).await;
    assert_eq!(model.tables().rows[&REPLICA].allowed, 3);
}

#[tokio::test]
async fn invalid_options_are_refused_with_all_faults_and_so_is_a_nil_replica() {
    let database = Database::with_backend(Arc::new(ModelDatabase::default()));
    let options = Options {
        flush_interval: Duration::ZERO,
        flush_jitter: 1.5,
        intake_capacity: 0,
        memory_limit_bytes: 5,
        ..Options::default()
    };
    let Err(error) = plugin().start(REPLICA, database.clone(), options).await else { panic!("started") };
    for part in ["flush_interval is 0ns", "flush_jitter is 1.5", "intake_capacity is 0", "memory_limit_bytes is 5"] {
        assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
    }
    let Err(error) = plugin().start(Uuid::nil(), database, Options::default()).await else { panic!("started") };
    assert!(error.to_string().contains("nil UUID"), "{error}");
}
