//! Rounds: contenders play the same one in turn, so that what else the machine does meets all of them alike, and ratios
//! of their medians hold on a noisy machine.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::inputs::Input;

/// What is played in one round.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    pub(crate) input: Input,
    pub(crate) threads: u64,
    /// Over all threads.
    pub(crate) activities: u64,
    /// The number of the first activity: rounds of the adversarial input share no ids.
    pub(crate) first: u64,
}

/// Has threads track what a round consists of; answers the time from the first call to the end of the last.
pub(crate) fn race(round: &Round, track: impl Fn(Uuid, Uuid) + Sync) -> Duration {
    let Round { input, threads, activities, first } = *round;
    let start = Barrier::new(usize::try_from(threads).expect("few threads") + 1);
    let (start, track) = (&start, &track);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                start.wait();
                let mut number = first + thread;
                while number < first + activities {
                    let (workspace, owner) = input.ids(number);
                    track(workspace, owner);
                    number += threads;
                }
            });
        }
        start.wait();
        Instant::now()
    })
    .elapsed()
}

/// The value in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
