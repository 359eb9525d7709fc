//! The tracker over its whole path: threads → intake → component.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use boundary_usage::{Clock, Database, Options, Tracker};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::plugin;
use uuid::Uuid;

use crate::inputs::Input;
use crate::rounds::{Round, race};

/// A tracker on a SQLite file, flushed by hand between rounds.
pub(crate) struct Ours {
    pub(crate) tracker: Tracker,
    _database: Database,
    _files: TestDatabase,
}

impl Ours {
    pub(crate) async fn start() -> Result<Self> {
        let files = TestDatabase::sqlite()?;
        let database = files.connect().await?;
        let options = Options { clock: Clock::manual().0, ..Options::default() };
        let tracker = plugin().start(Uuid::from_u128(1), database.clone(), options).await?;
        Ok(Self { tracker, _database: database, _files: files })
    }

    /// Returns the time until the component has all activity of the round.
    ///
    /// It excludes the flush that follows.
    pub(crate) async fn round(&self, round: &Round) -> Result<Duration> {
        let refused = AtomicU64::new(0);
        let start = Instant::now();
        race(round, |workspace, owner| {
            if self.tracker.track(workspace, owner, 1, 0).is_err() {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        });
        while self.tracker.status().waiting_activities > 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
        let took = start.elapsed();
        ensure!(refused.into_inner() == 0, "the tracker refused activity");
        self.tracker.flush().await?;
        Ok(took)
    }

    /// Returns the median and the 99.9th percentile of one `track` call without contention, in nanoseconds.
    ///
    /// The time to read the clock is measured after each call. The median excludes it, and the percentile includes it.
    pub(crate) async fn caller_cost(&self) -> Result<[f64; 2]> {
        const CALLS: usize = 1_000_000;
        let mut calls: Vec<u64> = Vec::with_capacity(CALLS);
        let mut nothing: Vec<u64> = Vec::with_capacity(CALLS);
        for number in 0..CALLS as u64 {
            let (workspace, owner) = Input::Hot.ids(number);
            let start = Instant::now();
            self.tracker.track(workspace, owner, 1, 0)?;
            let end = Instant::now();
            let idle = Instant::now();
            calls.push(nanoseconds(end - start));
            nothing.push(nanoseconds(idle - end));
        }
        self.tracker.flush().await?;
        calls.sort_unstable();
        nothing.sort_unstable();
        let clock = nothing[CALLS / 2];
        Ok([calls[CALLS / 2].saturating_sub(clock) as f64, calls[CALLS - CALLS / 1_000] as f64])
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
