//! Unusual files in the state directory.
//!
//! Checkpoints of another database, unreadable ones, those of an earlier release, and a stale one after a failover.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use boundary_usage::{Clock, Database, Error, Flushed};
use boundary_usage_tests::model_database::{ModelDatabase, Tables};
use boundary_usage_tests::{on_each_database, plugin};

use crate::checkpoint::{
    Process, REPLICA, checkpoint_file, file, fill_disk, free_disk, named, new_state, options, row,
};

fn connect(model: &ModelDatabase) -> Database {
    Database::with_backend(Arc::new(model.clone()))
}

on_each_database! {
    async fn a_start_on_another_database_keeps_the_checkpoint_of_the_first(database) {
        let model = ModelDatabase::default();
        let first = Process::start(&connect(&model), new_state()).await;
        first.track(1, 5, 2);
        first.checkpointed(5).await;
        let kept = checkpoint_file(&first.state).unwrap();
        let left = first.dies();
        let before = fs::read(left.path().join(kept.file_name().unwrap()))?;

        let database = database.connect().await?;
        let second = Process::start(&database, left).await;
        assert!(!second.tracker.status().checkpoint.unwrap().restored);
        second.track(2, 1, 1);
        second.tracker.shutdown().await?;
        assert_eq!(row(&database).await, (1, 1, 1));
        assert_eq!(fs::read(second.state.path().join(kept.file_name().unwrap()))?, before, "the file was changed");

        let third = Process::start(&connect(&model), second.state).await;
        assert!(third.tracker.status().checkpoint.unwrap().restored);
        assert_eq!(third.tracker.shutdown().await?, Flushed::Written { flush: 1, new_period: true });
        let counted = model.tables().rows[&REPLICA].clone();
        assert_eq!((counted.allowed, counted.denied), (5, 2));
        Ok(())
    }
}

/// Makes a path unreadable.
type Breakage = fn(&Path);

#[tokio::test]
async fn a_checkpoint_that_cannot_be_read_stops_the_start_and_is_kept() {
    let breakages: [(Breakage, &str); 2] =
        [(|path| symlink(path, path).unwrap(), "symbolic links"), (|path| fs::create_dir(path).unwrap(), "directory")];
    for (make_unreadable, reason) in breakages {
        let model = ModelDatabase::default();
        let first = Process::start(&connect(&model), new_state()).await;
        first.track(1, 5, 2);
        first.checkpointed(5).await;
        let left = first.dies();
        let (path, moved) = (checkpoint_file(&left).unwrap(), file(&left, "moved"));
        fs::rename(&path, &moved).unwrap();
        make_unreadable(&path);
        let refused = plugin().start(REPLICA, connect(&model), options(Clock::manual().0, left.path())).await;
        let Err(error @ Error::State { .. }) = refused else { panic!("started without its checkpoint: {reason}") };
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains(&path.display().to_string()) && text.contains(reason), "{text}");
        assert_eq!(named(&left, "damaged"), 0, "the checkpoint was set aside");

        if path.is_dir() {
            fs::remove_dir(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        fs::rename(&moved, &path).unwrap();
        let second = Process::start(&connect(&model), left).await;
        second.tracker.shutdown().await.unwrap();
        assert_eq!(model.tables().rows[&REPLICA].allowed, 5);
    }
}

#[tokio::test]
async fn a_checkpoint_named_as_in_an_earlier_release_is_restored() {
    let model = ModelDatabase::default();
    let first = Process::start(&connect(&model), new_state()).await;
    first.track(1, 5, 2);
    first.checkpointed(5).await;
    let left = first.dies();
    fs::rename(checkpoint_file(&left).unwrap(), file(&left, "checkpoint")).unwrap();
    let second = Process::start(&connect(&model), left).await;
    assert!(second.tracker.status().checkpoint.unwrap().restored);
    assert!(!file(&second.state, "checkpoint").exists(), "the old file is still there");
    second.tracker.shutdown().await.unwrap();
    assert_eq!(model.tables().rows[&REPLICA].allowed, 5);
}

/// Resets the database to an earlier state, like a failover to a lagging standby.
fn fail_over(model: &ModelDatabase, earlier: &Tables) {
    *model.tables() = earlier.clone();
}

/// Starts a process whose checkpoint confirms flushes 1 to 3, on a database that is back at flush 1.
///
/// The disk is full, so the checkpoint stays stale.
async fn after_a_failover(model: &ModelDatabase) -> Process {
    let process = Process::start(&connect(model), new_state()).await;
    process.track(1, 1, 0);
    process.tracker.flush().await.unwrap();
    let earlier = model.tables().clone();
    for number in 2..=3 {
        process.track(number, 1, 0);
        assert!(matches!(process.tracker.flush().await, Ok(Flushed::Written { .. })));
    }
    process.track(4, 5, 2);
    process.checkpointed(5).await;
    assert_eq!(process.checkpoint().unwrap().last_flush(), 3);
    fail_over(model, &earlier);
    fill_disk(&process.state);
    process
}

#[tokio::test]
async fn d3_a_stale_checkpoint_counts_nothing_twice_after_a_failover_to_a_lagging_standby() {
    let model = ModelDatabase::default();
    let process = after_a_failover(&model).await;
    // This flush has number 2, which the stale file on the full disk lists as applied.
    assert_eq!(process.tracker.flush().await.unwrap(), Flushed::Written { flush: 2, new_period: false });
    free_disk(&process.state);
    let next = Process::start(&connect(&model), process.dies()).await;
    assert_eq!(next.tracker.shutdown().await.unwrap(), Flushed::Idle);
    assert_eq!(model.tables().rows[&REPLICA].allowed, 1 + 5);
}

#[tokio::test]
async fn lost_confirmed_flushes_are_noticed_and_each_is_reported_once() {
    let model = ModelDatabase::default();
    let process = after_a_failover(&model).await;
    free_disk(&process.state);
    assert_eq!(process.tracker.status().forgotten_flushes, 0);
    for number in [2, 3] {
        process.tracker.flush().await.unwrap();
        assert_eq!(process.tracker.status().forgotten_flushes, 2, "flushes 2 and 3, after flush {number}");
        process.track(9, 1, 0);
    }
    // The next process notices lost flushes by its checkpoint.
    let earlier = model.tables().clone();
    process.tracker.flush().await.unwrap();
    process.checkpointed(0).await;
    let left = process.dies();
    fail_over(&model, &earlier);
    let next = Process::start(&connect(&model), left).await;
    next.track(10, 1, 0);
    next.tracker.flush().await.unwrap();
    assert_eq!(next.tracker.status().forgotten_flushes, 1);
}
