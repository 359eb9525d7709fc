//! A process that crashes at any stage of a flush neither loses nor doubles usage (D3).
//!
//! Untrustworthy checkpoint files are set aside. The clock stands still, so the host writes a checkpoint only before a
//! commit and when a test advances the clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Checkpoint, Clock, Database, Error, Flushed, ManualClock, Options, Tracker};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::faults::{Fault, Faults};
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::{on_each_database, plugin, until};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const REPLICA: Uuid = Uuid::from_u128(0xaa);
const SECOND: Duration = Duration::from_secs(1);

/// A process: a tracker with its own state directory.
pub(crate) struct Process {
    pub(crate) tracker: Tracker,
    pub(crate) faults: Faults,
    clock: ManualClock,
    pub(crate) state: TempDir,
}

impl Process {
    /// Starts a process with a state directory.
    pub(crate) async fn start(database: &Database, state: TempDir) -> Self {
        let (database, faults) = Faults::in_front_of(database);
        let (clock, manual) = Clock::manual();
        let options = options(clock, state.path());
        let tracker = plugin().start(REPLICA, database, options).await.unwrap();
        Self { tracker, faults, clock: manual, state }
    }

    pub(crate) fn track(&self, number: u128, allowed: u64, denied: u64) {
        self.tracker.track(Uuid::from_u128(number), Uuid::from_u128(number), allowed, denied).unwrap();
    }

    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        let bytes = fs::read(checkpoint_file(&self.state)?).ok()?;
        Some(Checkpoint::from_bytes(&bytes).expect("a reader never sees a partial file"))
    }

    /// Advances the clock until the checkpoint has this number of allowed requests.
    pub(crate) async fn checkpointed(&self, allowed: u64) {
        self.clock.sleepers(2).await;
        until(|| {
            self.clock.advance(SECOND);
            self.checkpoint().is_some_and(|checkpoint| checkpoint.requests().0 == allowed)
        })
        .await;
    }

    /// Simulates a crash, and returns a copy of the state directory.
    ///
    /// From now on every flush of this process fails, so it cannot change the database.
    pub(crate) fn dies(self) -> TempDir {
        let left = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.state.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, left.path().join(path.file_name().unwrap())).unwrap();
        }
        (0..10_000).for_each(|_| self.faults.inject(Fault::Begin));
        left
    }
}

pub(crate) fn options(clock: Clock, state: &Path) -> Options {
    let flush_interval = Duration::from_secs(1_000_000_000);
    let shutdown_timeout = Duration::from_secs(5);
    Options { clock, flush_interval, shutdown_timeout, state_directory: Some(state.to_owned()), ..Options::default() }
}

pub(crate) fn new_state() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Returns the path of the replica's checkpoint.
///
/// Its name contains the fingerprint of the database, so the tests search the directory for it.
pub(crate) fn checkpoint_file(state: &TempDir) -> Option<PathBuf> {
    let mut paths = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "checkpoint"))
}

pub(crate) fn file(state: &TempDir, kind: &str) -> PathBuf {
    state.path().join(format!("{REPLICA}.{kind}"))
}

/// Returns the number of files whose names contain `part`.
pub(crate) fn named(state: &TempDir, part: &str) -> usize {
    let names = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().contains(part)).count()
}

/// Returns (workspaces, allowed, denied) of the replica's row.
pub(crate) async fn row(database: &Database) -> (u64, u64, u64) {
    let rows = database.status().await.unwrap().rows;
    let row = rows.iter().find(|row| row.replica == REPLICA);
    row.map_or((0, 0, 0), |row| (row.unique_workspaces, row.allowed_requests, row.denied_requests))
}

/// Crashes after a flush with this fault, starts again, and checks that everything counts once.
async fn crashes_after_a_flush(database: TestDatabase, fault: Option<Fault>) -> anyhow::Result<()> {
    let database = database.connect().await?;
    let first = Process::start(&database, new_state()).await;
    first.track(1, 5, 2);
    first.checkpointed(5).await;
    fault.into_iter().for_each(|fault| first.faults.inject(fault));
    assert_eq!(first.tracker.flush().await.is_err(), fault.is_some());
    let second = Process::start(&database, first.dies()).await;
    assert!(second.tracker.status().checkpoint.unwrap().restored);
    second.track(2, 1, 1);
    second.tracker.flush().await?;
    assert_eq!(row(&database).await, (2, 6, 3), "{fault:?}");
    assert_eq!(second.tracker.flush().await?, Flushed::Idle);
    let third = Process::start(&database, second.dies()).await;
    third.tracker.shutdown().await?;
    assert_eq!(row(&database).await, (2, 6, 3), "{fault:?}, after a third start");
    Ok(())
}

on_each_database! {
    async fn d3_a_process_that_crashes_before_its_flush_begins_loses_nothing(database) {
        crashes_after_a_flush(database, Some(Fault::Begin)).await
    }

    async fn d3_a_process_that_crashes_before_its_upsert_loses_nothing(database) {
        crashes_after_a_flush(database, Some(Fault::Upsert)).await
    }

    async fn d3_a_crash_with_an_unapplied_commit_loses_nothing(database) {
        crashes_after_a_flush(database, Some(Fault::CommitLost)).await
    }

    async fn d3_a_crash_with_an_applied_commit_without_a_reply_counts_nothing_twice(database) {
        crashes_after_a_flush(database, Some(Fault::CommitReplyLost)).await
    }

    async fn d3_a_crash_between_a_flush_and_the_next_checkpoint_counts_nothing_twice(database) {
        crashes_after_a_flush(database, None).await
    }

    async fn accepted_activity_survives_repeated_crashes(database) {
        let database = database.connect().await?;
        let mut process = Process::start(&database, new_state()).await;
        for number in 1..=3 {
            process.track(u128::from(number), 1, 1);
            process.checkpointed(number).await;
            process = Process::start(&database, process.dies()).await;
            process = Process::start(&database, process.dies()).await;
        }
        assert_eq!(process.tracker.shutdown().await?, Flushed::Written { flush: 1, new_period: true });
        assert_eq!(row(&database).await, (3, 3, 3));
        Ok(())
    }

    async fn an_old_checkpoint_restored_by_hand_is_set_aside_and_not_counted(database) {
        let database = database.connect().await?;
        let first = Process::start(&database, new_state()).await;
        first.track(1, 5, 2);
        first.checkpointed(5).await;
        let path = checkpoint_file(&first.state).unwrap();
        let old = fs::read(&path)?;
        first.tracker.flush().await?;
        first.tracker.shutdown().await?;
        fs::write(path, old)?;
        let second = Process::start(&database, first.state).await;
        assert!(!second.tracker.status().checkpoint.unwrap().restored);
        assert_eq!(named(&second.state, "checkpoint.refused-"), 1);
        assert_eq!(second.tracker.flush().await?, Flushed::Idle);
        assert_eq!(row(&database).await, (1, 5, 2));
        Ok(())
    }
}

fn model() -> Database {
    Database::with_backend(Arc::new(ModelDatabase::default()))
}

#[tokio::test]
async fn activity_during_a_commit_survives_a_crash() {
    let model = ModelDatabase::default();
    let first = Process::start(&Database::with_backend(Arc::new(model.clone())), new_state()).await;
    let collection = model.hold_cutover().await;
    first.track(1, 10, 5);
    let flush = tokio::spawn({
        let tracker = first.tracker.clone();
        async move { tracker.flush().await }
    });
    // The first transaction is the one in which the start read the row.
    first.faults.until(|seen| seen.begun >= 2).await;
    first.track(2, 20, 10);
    first.checkpointed(30).await;
    drop(collection);
    flush.await.unwrap().unwrap();
    let checkpoint = first.checkpoint().unwrap();
    assert_eq!((checkpoint.last_flush(), checkpoint.flush_in_doubt(), checkpoint.requests()), (0, Some(1), (30, 15)));
    let second = Process::start(&Database::with_backend(Arc::new(model.clone())), first.dies()).await;
    second.tracker.shutdown().await.unwrap();
    let row = model.tables().rows[&REPLICA].clone();
    assert_eq!((row.uniques.workspaces.count, row.allowed, row.denied), (2, 30, 15));
}

#[tokio::test]
async fn damaged_files_and_files_of_another_version_are_set_aside_at_the_start() {
    let database = model();
    let first = Process::start(&database, new_state()).await;
    first.track(1, 5, 2);
    first.checkpointed(5).await;
    let path = checkpoint_file(&first.state).unwrap();
    let good = fs::read(&path).unwrap();
    let mut version = good.clone();
    version[11] = 2;
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for damaged in [&b""[..], b"nonsense", &good[..good.len() - 1], &version, &flipped, &vec![0; 2 << 20]] {
        let state = new_state();
        fs::write(state.path().join(path.file_name().unwrap()), damaged).unwrap();
        let process = Process::start(&database, state).await;
        assert_eq!(named(&process.state, "checkpoint.damaged-"), 1);
        assert_eq!(process.tracker.flush().await.unwrap(), Flushed::Idle);
    }
}

#[tokio::test]
async fn two_processes_cannot_use_the_checkpoint_of_one_replica_simultaneously() {
    let database = model();
    let first = Process::start(&database, new_state()).await;
    let second = plugin().start(REPLICA, database.clone(), options(Clock::manual().0, first.state.path())).await;
    let Err(error @ Error::State { .. }) = second else { panic!("started twice") };
    assert!(error.to_string().contains("is in use"), "{error}");
    let other = Uuid::from_u128(0xbb);
    let other = plugin().start(other, database.clone(), options(Clock::manual().0, first.state.path())).await.unwrap();
    other.shutdown().await.unwrap();
    first.tracker.shutdown().await.unwrap();
    Process::start(&database, first.state).await;
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_created_is_a_clear_error() {
    let state = new_state();
    let path = file(&state, "file");
    fs::write(&path, "").unwrap();
    let Err(error) = plugin().start(REPLICA, model(), options(Clock::manual().0, &path)).await else {
        panic!("started")
    };
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[tokio::test]
async fn d5_a_shutdown_empties_the_checkpoint_unless_its_flush_fails() {
    let database = model();
    let first = Process::start(&database, new_state()).await;
    first.track(1, 5, 2);
    (0..10_000).for_each(|_| first.faults.inject(Fault::Upsert));
    first.tracker.shutdown().await.unwrap_err();
    assert_eq!(first.checkpoint().unwrap().requests(), (5, 2));
    let second = Process::start(&database, first.state).await;
    assert_eq!(second.tracker.shutdown().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    let left = second.checkpoint().unwrap();
    assert_eq!((left.is_empty(), left.last_flush()), (true, 1));
}

#[tokio::test]
async fn an_unchanged_checkpoint_is_not_rewritten_and_only_its_user_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let process = Process::start(&model(), new_state()).await;
    process.track(1, 5, 2);
    process.checkpointed(5).await;
    // The file appears shortly before the counter increases.
    let written = || process.tracker.status().checkpoint.unwrap().written;
    until(|| written() > 0).await;
    for _ in 0..10 {
        process.clock.sleepers(2).await;
        process.clock.advance(SECOND);
    }
    process.clock.sleepers(2).await;
    assert_eq!(written(), 1);
    for path in [checkpoint_file(&process.state).unwrap(), file(&process.state, "lock")] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

/// Makes every write of a checkpoint fail, as on a full disk.
pub(crate) fn fill_disk(state: &TempDir) {
    fs::create_dir(file(state, "checkpoint.partial")).unwrap();
}

pub(crate) fn free_disk(state: &TempDir) {
    fs::remove_dir(file(state, "checkpoint.partial")).unwrap();
}

#[tokio::test]
async fn a_full_disk_stops_neither_tracking_nor_flushing_and_is_reported() {
    let model = ModelDatabase::default();
    let database = Database::with_backend(Arc::new(model.clone()));
    let first = Process::start(&database, new_state()).await;
    first.track(1, 5, 2);
    first.checkpointed(5).await;
    fill_disk(&first.state);
    assert_eq!(first.tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    let status = first.tracker.status().checkpoint.unwrap();
    assert!(status.failed > 0 && status.last_error.is_some(), "{status:?}");
    assert_eq!(first.checkpoint().unwrap().requests(), (5, 2), "the old file is unchanged");
    free_disk(&first.state);
    let second = Process::start(&database, first.dies()).await;
    assert!(!second.tracker.status().checkpoint.unwrap().restored, "a restored checkpoint would count twice");
    assert_eq!(second.tracker.shutdown().await.unwrap(), Flushed::Idle);
    assert_eq!(model.tables().rows[&REPLICA].allowed, 5);
}

/// Starts a process on a full disk whose checkpoint has flush 1 in doubt with 5 of now 6 allowed requests.
async fn with_the_next_flush_number_in_doubt(database: &Database) -> Process {
    let process = Process::start(database, new_state()).await;
    process.track(1, 5, 2);
    process.faults.inject(Fault::CommitLost);
    process.tracker.flush().await.unwrap_err();
    process.track(2, 1, 1);
    process.checkpointed(6).await;
    assert_eq!(process.checkpoint().unwrap().flush_in_doubt(), Some(1));
    fill_disk(&process.state);
    process
}

#[tokio::test]
async fn d3_a_checkpoint_that_would_confirm_the_wrong_flush_is_removed() {
    let model = ModelDatabase::default();
    let database = Database::with_backend(Arc::new(model.clone()));
    let first = with_the_next_flush_number_in_doubt(&database).await;
    assert_eq!(first.tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    assert!(first.checkpoint().is_none());
    free_disk(&first.state);
    let second = Process::start(&database, first.dies()).await;
    assert_eq!(second.tracker.shutdown().await.unwrap(), Flushed::Idle);
    assert_eq!(model.tables().rows[&REPLICA].allowed, 6);
}

#[tokio::test]
async fn d3_a_commit_is_postponed_until_a_dangerous_checkpoint_is_removed() {
    let model = ModelDatabase::default();
    let database = Database::with_backend(Arc::new(model.clone()));
    let process = with_the_next_flush_number_in_doubt(&database).await;
    let (checkpoint, moved) = (checkpoint_file(&process.state).unwrap(), file(&process.state, "moved"));
    fs::rename(&checkpoint, &moved).unwrap();
    fs::create_dir(&checkpoint).unwrap();
    let error = process.tracker.flush().await.unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error}");
    assert!(error.to_string().contains("cannot remove the stale checkpoint"), "{error}");
    assert!(model.tables().rows.is_empty(), "the flush was committed");
    fs::remove_dir(&checkpoint).unwrap();
    fs::rename(&moved, &checkpoint).unwrap();
    free_disk(&process.state);
    assert_eq!(process.tracker.flush().await.unwrap(), Flushed::Written { flush: 1, new_period: true });
    assert_eq!(model.tables().rows[&REPLICA].allowed, 6);
    assert_eq!(process.tracker.status().checkpoint.unwrap().last_error, None);
}

#[tokio::test]
async fn a_disk_that_does_not_respond_delays_no_shutdown_beyond_its_limit() {
    let database = Database::with_backend(Arc::new(ModelDatabase::default()));
    let state = new_state();
    let limit = Duration::from_millis(50);
    let options = Options { shutdown_timeout: limit, ..options(Clock::manual().0, state.path()) };
    let tracker = plugin().start(REPLICA, database.clone(), options).await.unwrap();
    // Opening a pipe for writing blocks until it has a reader, like a disk that does not respond.
    let partial = file(&state, "checkpoint.partial");
    assert!(std::process::Command::new("mkfifo").arg(&partial).status().unwrap().success());
    tracker.track(Uuid::from_u128(1), Uuid::from_u128(1), 1, 0).unwrap();

    let stopped = tracker.shutdown().await;
    assert!(matches!(stopped, Err(Error::TimedOut { action: "the last flush", .. })), "{stopped:?}");
    let status = tracker.status().checkpoint.unwrap();
    assert!(status.last_error.unwrap().contains("not written within 50ms"));
    assert_eq!(row(&database).await, (0, 0, 0), "the flush was committed without its checkpoint");
    // The runtime waits for blocked writes when it is dropped. A reader that stays open lets them end.
    std::mem::forget(fs::File::open(&partial).unwrap());
}
