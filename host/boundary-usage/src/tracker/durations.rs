//! How long flushes take: counted in buckets, so that it stays small however many they are.

use std::time::Duration;

use serde::Serialize;

/// The buckets' upper bounds in seconds: from a local file to the limit of a flush.
const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How long the flushes took that had something to do, failed ones among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FlushDurations {
    /// How many they were.
    pub count: u64,
    /// How long they took together, in seconds.
    pub sum_seconds: f64,
    /// How many took at most that many seconds: bound and count, each bucket holding those before it.
    pub buckets: [(f64, u64); BOUNDS.len()],
}

impl FlushDurations {
    pub(super) fn new() -> Self {
        Self { buckets: BOUNDS.map(|bound| (bound, 0)), ..Self::default() }
    }

    pub(super) fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.count += 1;
        self.sum_seconds += seconds;
        self.buckets.iter_mut().filter(|(bound, _)| seconds <= *bound).for_each(|(_, count)| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_those_before_it_and_what_is_longer_than_all_counts_too() {
        let mut durations = FlushDurations::new();
        [5, 6, 700, 60_000].map(Duration::from_millis).into_iter().for_each(|duration| durations.add(duration));
        let counts = durations.buckets.map(|(_, count)| count);
        assert_eq!(counts, [1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
        assert_eq!(durations.count, 4);
        assert!((durations.sum_seconds - 60.711).abs() < 1e-9);
    }
}
