//! A histogram of flush durations.

use std::time::Duration;

use serde::Serialize;

/// The upper bounds of the buckets, in seconds. The bounds range from the duration of a flush to a local file up to the
/// time limit of a flush.
const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The durations of all flushes that were not idle, including failed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FlushDurations {
    /// The number of flushes.
    pub count: u64,
    /// The sum of their durations, in seconds.
    pub sum_seconds: f64,
    /// The cumulative buckets.
    ///
    /// Each bucket has an upper bound in seconds and the number of flushes within it.
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
    fn buckets_are_cumulative_and_the_count_includes_longer_flushes() {
        let mut durations = FlushDurations::new();
        [5, 6, 700, 60_000].map(Duration::from_millis).into_iter().for_each(|duration| durations.add(duration));
        let counts = durations.buckets.map(|(_, count)| count);
        assert_eq!(counts, [1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
        assert_eq!(durations.count, 4);
        assert!((durations.sum_seconds - 60.711).abs() < 1e-9);
    }
}
