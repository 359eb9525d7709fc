//! All interleavings of push, drain, close and wake-up on small intakes with few threads.
//!
//! A test fails if an activity is lost or counted twice, or if a thread waits forever.

// This whole file is test code, including the functions without `#[test]`.
#![allow(clippy::unwrap_used)]

use intake_model::TrackError;
use intake_model::model::Model;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

/// The largest number of preemptions in one run. Most faults need one or two, and a higher limit takes hours.
const PREEMPTIONS: usize = 2;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// Starts a thread that pushes these pairs and returns the number of accepted ones.
fn pusher(model: &Arc<Model>, thread: usize, pairs: &'static [u128]) -> JoinHandle<u64> {
    let model = model.clone();
    thread::spawn(move || pairs.iter().map(|pair| u64::from(model.push(thread, *pair).is_ok())).sum())
}

#[test]
fn the_worker_sleeps_until_a_push_and_misses_none() {
    explore(|| {
        let model = Arc::new(Model::new(4, 1));
        let pushers = [pusher(&model, 0, &[1, 2]), pusher(&model, 0, &[3])];
        model.work_until(3);
        assert_eq!(pushers.map(|pusher| pusher.join().unwrap()).iter().sum::<u64>(), 3);
        assert_eq!((model.accepted(), model.forwarded()), (3, 3));
    });
}

#[test]
fn pushes_of_one_pair_are_added_and_none_is_lost() {
    explore(|| {
        let model = Arc::new(Model::new(1, 1));
        let pushers = [pusher(&model, 0, &[7, 7]), pusher(&model, 0, &[7])];
        model.work_until(3);
        assert_eq!(pushers.map(|pusher| pusher.join().unwrap()).iter().sum::<u64>(), 3);
    });
}

#[test]
fn a_push_to_a_full_intake_waits_for_the_next_drain() {
    explore(|| {
        let model = Arc::new(Model::new(1, 1));
        let pushers = [pusher(&model, 0, &[1]), pusher(&model, 0, &[2])];
        model.work_until(2);
        assert_eq!(pushers.map(|pusher| pusher.join().unwrap()).iter().sum::<u64>(), 2);
        assert_eq!((model.accepted(), model.forwarded()), (2, 2));
    });
}

#[test]
fn capacity_freed_by_one_shard_wakes_the_waiters_of_another() {
    explore(|| {
        let model = Arc::new(Model::new(1, 2));
        let pushers = [pusher(&model, 0, &[1]), pusher(&model, 1, &[2])];
        model.work_until(2);
        assert_eq!(pushers.map(|pusher| pusher.join().unwrap()).iter().sum::<u64>(), 2);
        assert_eq!((model.accepted(), model.forwarded()), (2, 2));
    });
}

#[test]
fn close_ends_a_wait_for_capacity_without_a_drain() {
    explore(|| {
        let model = Arc::new(Model::new(1, 1));
        let pushers = [pusher(&model, 0, &[1]), pusher(&model, 0, &[2])];
        model.close();
        let accepted = pushers.map(|pusher| pusher.join().unwrap()).iter().sum::<u64>();
        assert!(accepted <= 1, "the capacity is one, and nothing was drained");
        assert_eq!(model.drain(), accepted);
    });
}

#[test]
fn activity_accepted_before_a_close_is_drained_after_it() {
    explore(|| {
        let model = Arc::new(Model::new(1, 1));
        let pushers = [pusher(&model, 0, &[1, 2]), pusher(&model, 0, &[3])];
        model.close();
        // The last drain of a shutdown takes all accepted activity.
        let drained = model.drain();
        let accepted = pushers.map(|pusher| pusher.join().unwrap()).iter().sum::<u64>();
        assert_eq!((drained, model.accepted(), model.forwarded()), (accepted, accepted, accepted));
        assert_eq!(model.push(0, 4), Err(TrackError::Stopped));
    });
}

#[test]
fn close_during_a_drain_loses_nothing() {
    explore(|| {
        let model = Arc::new(Model::new(2, 2));
        let pusher = pusher(&model, 1, &[1, 2]);
        let closing = model.clone();
        let closer = thread::spawn(move || closing.close());
        let mut drained = model.drain();
        closer.join().unwrap();
        drained += model.drain();
        assert_eq!(drained, pusher.join().unwrap());
    });
}

#[test]
fn a_push_that_does_not_wait_is_refused_or_counted_once() {
    explore(|| {
        let model = Arc::new(Model::new(1, 2));
        let pushing = model.clone();
        let other = thread::spawn(move || pushing.try_push(1, 2));
        let own = model.try_push(0, 1);
        let drained = model.drain();
        let results = [own, other.join().unwrap()];
        let drained = drained + model.drain();
        assert_eq!(drained, results.iter().filter(|result| result.is_ok()).count() as u64);
        assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(TrackError::Full { capacity: 1 }))));
        assert!(results.iter().any(Result::is_ok));
    });
}
