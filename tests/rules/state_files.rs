//! The files of the state directory that are not simply the last checkpoint: those of another database, those that cannot
//! be read, those of an earlier release, and a stale one after a failover.

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
    async fn a_start_on_another_database_keeps_the_checkpoint_of_the_first_one_for_its_return(database) {
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
        assert_eq!(fs::read(second.state.path().join(kept.file_name().unwrap()))?, before, "it was touched");

        let third = Process::start(&connect(&model), second.state).await;
        assert!(third.tracker.status().checkpoint.unwrap().restored);
        assert_eq!(third.tracker.shutdown().await?, Flushed::Written { flush: 1, new_period: true });
        let counted = model.tables().rows[&REPLICA].clone();
        assert_eq!((counted.allowed, counted.denied), (5, 2));
        Ok(())
    }
}

/// A path that cannot be read, though the files behind it are sound.
type Breakage = fn(&Path);

#[tokio::test]
async fn a_checkpoint_that_cannot_be_read_stops_the_start_and_stays_where_it_is() {
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
        assert_eq!(named(&left, "damaged"), 0, "it was set aside");

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
async fn a_checkpoint_of_an_earlier_release_whose_name_lacks_the_database_is_restored() {
    let model = ModelDatabase::default();
    let first = Process::start(&connect(&model), new_state()).await;
    first.track(1, 5, 2);
    first.checkpointed(5).await;
    let left = first.dies();
    fs::rename(checkpoint_file(&left).unwrap(), file(&left, "checkpoint")).unwrap();
    let second = Process::start(&connect(&model), left).await;
    assert!(second.tracker.status().checkpoint.unwrap().restored);
    assert!(!file(&second.state, "checkpoint").exists(), "it has two checkpoints");
    second.tracker.shutdown().await.unwrap();
    assert_eq!(model.tables().rows[&REPLICA].allowed, 5);
}

/// Puts the database back to an earlier state, as a standby that lagged behind does when it takes over.
fn fail_over(model: &ModelDatabase, earlier: &Tables) {
    *model.tables() = earlier.clone();
}

/// The tracker has confirmed flushes 1 to 3, and its file knows that; the database is back at flush 1, the disk is full.
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
    // Under number 2, which the file on the full disk takes for one that is long over.
    assert_eq!(process.tracker.flush().await.unwrap(), Flushed::Written { flush: 2, new_period: false });
    free_disk(&process.state);
    let next = Process::start(&connect(&model), process.dies()).await;
    assert_eq!(next.tracker.shutdown().await.unwrap(), Flushed::Idle);
    assert_eq!(model.tables().rows[&REPLICA].allowed, 1 + 5);
}

#[tokio::test]
async fn a_database_that_forgot_confirmed_flushes_is_noticed_and_counted_once() {
    let model = ModelDatabase::default();
    let process = after_a_failover(&model).await;
    free_disk(&process.state);
    assert_eq!(process.tracker.status().forgotten_flushes, 0);
    for number in [2, 3] {
        process.tracker.flush().await.unwrap();
        assert_eq!(process.tracker.status().forgotten_flushes, 2, "flushes 2 and 3, after flush {number}");
        process.track(9, 1, 0);
    }
    // The next process learns of it from its checkpoint.
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
