//! What can be set on a tracker.

use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::Error;

/// The longest time that anything waits for: far from where sums of times would overflow.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest interval, 100 years.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Settings of one tracker. `Options::default()` suits a proxy in production.
#[derive(Clone)]
pub struct Options {
    /// Time between flushes. Default 60 s; at least 1 ms, at most 100 years, which is a way to flush by hand only. After a
    /// flush that failed the next one comes sooner: after 1 s, and twice as long after every further failure, up to the
    /// interval.
    pub flush_interval: Duration,
    /// How far each wait may deviate, so that replicas started together do not flush together: a fraction of the wait,
    /// 0 to 1. Default 0.1, so 54 s to 66 s.
    pub flush_jitter: f64,
    /// The longest that a flush may take, all its waiting included, before its component is given up. Default 30 s; at most
    /// 24 hours.
    pub flush_timeout: Duration,
    /// How long `shutdown` tries to flush. Default 10 s; at most 24 hours.
    pub shutdown_timeout: Duration,
    /// The directory that keeps the tracker's checkpoint, from which the next start goes on after a crash. Made when
    /// missing, for our own user only; trackers of several replicas can share it. Default `None`: no checkpoint, and a
    /// crash loses what came in since the last flush.
    pub state_directory: Option<PathBuf>,
    /// From one checkpoint to the next, while there is something new: the most that a crash loses. Default 1 s; at
    /// least 1 ms, at most 24 hours.
    pub checkpoint_interval: Duration,
    /// How many activities wait for the component before `track` has to wait. Default 65,536 (48 bytes each).
    pub intake_capacity: usize,
    /// The linear memory that the component may use, in bytes. Default 16 MiB.
    pub memory_limit_bytes: usize,
    /// How long the component may compute in one go before it counts as hanging. Default 2 s; at most 24 hours.
    pub cpu_limit: Duration,
    /// The clock of the flush loop. Default the system's.
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
    /// Reports every setting that is out of range, together.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let mut faults = Vec::new();
        for (name, value, most) in [
            ("flush_interval", self.flush_interval, FOR_EVER),
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
