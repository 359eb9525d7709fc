//! The options of a tracker.

use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::Error;

/// The longest time limit, short enough that sums of times do not overflow.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest interval, 100 years.
const INTERVAL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The options of one tracker. `Options::default()` suits a proxy in production.
#[derive(Clone)]
pub struct Options {
    /// Time between flushes, from 1 ms to 100 years. Default: 60 s.
    ///
    /// After a failed flush the wait is 1 s. This wait doubles after each further failure, up to the interval. Set 100
    /// years if only the host flushes.
    pub flush_interval: Duration,
    /// Random deviation of each wait, as a fraction from 0 to 1. Default: 0.1.
    ///
    /// This deviation spreads the flushes of replicas that start together. The default yields waits from 54 s to 66 s.
    pub flush_jitter: f64,
    /// Time limit of a flush with all its waits, at most 24 hours. Default: 30 s.
    ///
    /// A component that exceeds this limit is replaced.
    pub flush_timeout: Duration,
    /// Time limit of `shutdown`, at most 24 hours. Default: 10 s.
    pub shutdown_timeout: Duration,
    /// Directory of the tracker's checkpoint. Default: none.
    ///
    /// After a crash, the next start restores the checkpoint. Without a checkpoint, a crash loses all activity since
    /// the last flush. A missing directory is created for this user only. Trackers of several replicas can share a
    /// directory.
    pub state_directory: Option<PathBuf>,
    /// Time between checkpoints, from 1 ms to 24 hours. Default: 1 s.
    ///
    /// A crash loses at most the activity of this time. Without new activity, no checkpoint is written.
    pub checkpoint_interval: Duration,
    /// Number of activities (48 bytes each) that may wait for the component.
    ///
    /// Default: 65,536.
    ///
    /// If the intake is full, `track` waits and `try_track` fails.
    pub intake_capacity: usize,
    /// Limit of the component's linear memory, in bytes. Default: 16 MiB.
    pub memory_limit_bytes: usize,
    /// Time limit of one computation of the component, at most 24 hours. Default: 2 s.
    ///
    /// A component that exceeds this limit is replaced.
    pub cpu_limit: Duration,
    /// Clock of the flush loop. Default: the system's clock.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(60),
            flush_jitter: 0.1,
            flush_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(10),
            state_directory: None,
            checkpoint_interval: Duration::from_secs(1),
            intake_capacity: 65_536,
            memory_limit_bytes: 16 << 20,
            cpu_limit: Duration::from_secs(2),
            clock: Clock::system(),
        }
    }
}

impl Options {
    /// Returns an error that lists all options out of range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let mut faults = Vec::new();
        for (name, value, most) in [
            ("flush_interval", self.flush_interval, INTERVAL_MAX),
            ("flush_timeout", self.flush_timeout, DAY),
            ("shutdown_timeout", self.shutdown_timeout, DAY),
            ("checkpoint_interval", self.checkpoint_interval, DAY),
            ("cpu_limit", self.cpu_limit, DAY),
        ] {
            if value < Duration::from_millis(1) {
                faults.push(format!("{name} is {value:?}, must be at least 1ms"));
            }
            if value > most {
                faults.push(format!("{name} is {value:?}, must be at most {most:?}"));
            }
        }
        if !(0.0..=1.0).contains(&self.flush_jitter) {
            faults.push(format!("flush_jitter is {}, must be from 0 to 1", self.flush_jitter));
        }
        if self.intake_capacity == 0 {
            faults.push("intake_capacity is 0, must be at least 1".into());
        }
        if self.memory_limit_bytes < 1 << 20 {
            faults.push(format!("memory_limit_bytes is {}, must be at least 1 MiB", self.memory_limit_bytes));
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::Configuration { message: format!("options out of range: {}", faults.join("; ")) })
    }
}
