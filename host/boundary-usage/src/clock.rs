//! The clock of the schedules: the system's, or one that a test advances.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The clock of a tracker's flushes and a collector's collections.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System { origin: Instant },
    Manual(Arc<Manual>),
}

struct Manual {
    now: watch::Sender<Duration>,
    sleepers: watch::Sender<usize>,
}

impl Clock {
    /// Returns the system's monotonic clock.
    ///
    /// On a Tokio runtime with paused time, this clock follows that time.
    pub fn system() -> Self {
        Self(Source::System { origin: Instant::now() })
    }

    /// Returns a clock that stands still until [`ManualClock::advance`].
    pub fn manual() -> (Self, ManualClock) {
        let manual = Arc::new(Manual { now: watch::Sender::new(Duration::ZERO), sleepers: watch::Sender::new(0) });
        (Self(Source::Manual(manual.clone())), ManualClock(manual))
    }

    /// Returns the time since the clock was created.
    pub fn now(&self) -> Duration {
        match &self.0 {
            Source::System { origin } => origin.elapsed(),
            Source::Manual(manual) => *manual.now.borrow(),
        }
    }

    /// Waits for a duration. The future is cancel safe.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Source::System { .. } => tokio::time::sleep(duration).await,
            Source::Manual(manual) => manual.sleep(duration).await,
        }
    }
}

impl Manual {
    async fn sleep(&self, duration: Duration) {
        let mut now = self.now.subscribe();
        let wake = now.borrow().saturating_add(duration);
        let _sleeper = Sleeper::new(&self.sleepers);
        let reached = now.wait_for(|now| *now >= wake).await;
        reached.expect("the sender lives as long as the clock that sleeps");
    }
}

/// A guard that counts one running sleep.
struct Sleeper<'a>(&'a watch::Sender<usize>);

impl<'a> Sleeper<'a> {
    fn new(sleepers: &'a watch::Sender<usize>) -> Self {
        sleepers.send_modify(|count| *count += 1);
        Self(sleepers)
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// The handle that advances a manual clock.
pub struct ManualClock(Arc<Manual>);

impl ManualClock {
    /// Advances the clock and wakes the sleeps that are over.
    pub fn advance(&self, duration: Duration) {
        self.0.now.send_modify(|now| *now = now.saturating_add(duration));
    }

    /// Waits until at least `count` tasks sleep on this clock.
    ///
    /// The next [`advance`](Self::advance) then affects all these tasks.
    pub async fn sleepers(&self, count: usize) {
        let mut sleepers = self.0.sleepers.subscribe();
        sleepers.wait_for(|sleeping| *sleeping >= count).await.expect("the sender lives in self");
    }
}
