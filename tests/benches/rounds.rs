//! Rounds of the throughput comparison.
//!
//! All contenders run a round in turn before the next round begins. So other load on the machine affects all of them
//! alike, and the ratios of their medians are reliable.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::inputs::Input;

/// The work of one round.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    pub(crate) input: Input,
    pub(crate) threads: u64,
    /// The number of activities over all threads.
    pub(crate) activities: u64,
    /// The number of the first activity, so that rounds of the adversarial input share no ids.
    pub(crate) first: u64,
}

/// Tracks a round on its threads, and returns the time from the first call to the end of the last.
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

/// Returns the median.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
