//! The bounded queue between a proxy's threads and the tracker's worker.
//!
//! ```text
//! thread ── push ──▶ shard ──┐
//! thread ── push ──▶ shard ──┼── drain, every 10 ms ──▶ worker
//! thread ── push ──▶ shard ──┘
//! ```
//!
//! Each thread has its own shard, unless there are more threads than shards. Such a thread shares the shard's lock only
//! with the worker, which swaps a buffer a hundred times per second. The shard merges activities of the same pair.
//!
//! If the capacity is exhausted, `push` waits for the worker and `try_push` fails. Nothing is dropped, and memory is
//! bounded.

mod capacity;
mod pairs;
mod shard;

use std::time::Duration;

use self::capacity::Capacity;
use self::shard::{Shard, Wakeup};
use crate::activity::Activity;
use crate::error::TrackError;
use crate::threads::{AtomicBool, AtomicU64, Instant, Mutex, Notify, Ordering, shard_count, thread_number, timeout_at};

/// Time between drains, unless the capacity becomes scarce.
///
/// A call of the component costs the same for a few activities and for hundreds. Waking the worker costs the pushing
/// thread about as much as such a call.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

pub(crate) struct Intake {
    /// The shards, whose number is a power of two.
    shards: Box<[Shard]>,
    capacity: Capacity,
    /// Whether the worker sleeps until a push wakes it.
    ///
    /// The worker sets this flag before it checks the shards, and a push reads the flag after it changes a shard. So no
    /// push is missed.
    asleep: AtomicBool,
    /// Wakes the worker.
    wakeup: Notify,
    /// The time of the worker's last drain. Only the worker locks this mutex.
    last_drain: Mutex<Option<Instant>>,
    /// The number of activities that the worker has forwarded to the component.
    forwarded: AtomicU64,
}

impl Intake {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            shards: (0..shard_count()).map(|_| Shard::default()).collect(),
            capacity: Capacity::new(capacity),
            asleep: AtomicBool::new(false),
            wakeup: Notify::new(),
            last_drain: Mutex::default(),
            forwarded: AtomicU64::new(0),
        }
    }

    /// Accepts an activity. Blocks while the intake is full.
    pub(crate) fn push(&self, activity: Activity) -> Result<(), TrackError> {
        self.push_or(activity, || {
            self.wakeup.notify_one();
            Ok(())
        })
    }

    /// Accepts an activity. Fails if the intake is full.
    pub(crate) fn try_push(&self, activity: Activity) -> Result<(), TrackError> {
        self.push_or(activity, || Err(TrackError::Full { capacity: self.capacity.capacity() }))
    }

    #[inline]
    fn push_or(&self, activity: Activity, when_full: impl FnMut() -> Result<(), TrackError>) -> Result<(), TrackError> {
        let shard = &self.shards[thread_number() & (self.shards.len() - 1)];
        let wakes = match shard.push(activity, &self.capacity, when_full)? {
            Wakeup::Never => false,
            Wakeup::IfAsleep => self.asleep.load(Ordering::Relaxed),
            Wakeup::IfScarce => self.capacity.is_scarce(),
        };
        if wakes {
            self.wakeup.notify_one();
        }
        Ok(())
    }

    /// Forwards all activities that were accepted before this call, one shard after the other.
    pub(crate) async fn drain<E>(
        &self,
        buffer: &mut Vec<Activity>,
        mut forward: impl AsyncFnMut(&[Activity]) -> Result<(), E>,
    ) -> Result<(), E> {
        *self.last_drain.lock().expect("only the worker locks it") = Some(Instant::now());
        for shard in &self.shards {
            let activities = shard.swap(buffer, &self.capacity);
            if activities == 0 {
                continue;
            }
            // Threads of any shard may wait, because all shards share the capacity.
            self.shards.iter().for_each(Shard::wake_waiters);
            // The activities count as forwarded even if the component crashes and this future is dropped, because the
            // ledger contains them.
            let counted = Counted { counter: &self.forwarded, activities };
            let forwarded = forward(buffer).await;
            drop(counted);
            // Buffers move from shard to shard. Without shrinking, one burst would leave a large buffer at each shard.
            if buffer.len() < buffer.capacity() / 4 {
                buffer.shrink_to(2 * buffer.len());
            }
            buffer.clear();
            forwarded?;
        }
        Ok(())
    }

    /// Waits until a drain is due. Only the worker calls this function, which is cancel safe.
    pub(crate) async fn ready(&self) {
        let last_drain = *self.last_drain.lock().expect("only the worker locks it");
        if let Some(last_drain) = last_drain {
            // A stale wakeup from before the last drain only makes this drain early.
            let _ = timeout_at(last_drain + DRAIN_INTERVAL, self.wakeup.notified()).await;
        }
        loop {
            self.asleep.store(true, Ordering::Relaxed);
            if !self.shards.iter().all(Shard::is_empty) {
                break;
            }
            self.wakeup.notified().await;
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Refuses all later activities.
    pub(crate) fn close(&self) {
        self.shards.iter().for_each(Shard::close);
    }

    /// Returns whether the intake is closed.
    pub(crate) fn is_closed(&self) -> bool {
        // `close` closes this shard last.
        self.shards.last().is_none_or(Shard::is_closed)
    }

    /// Returns the number of activities accepted since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.shards.iter().map(Shard::accepted).sum()
    }

    /// Returns the number of waiting activities after merging.
    pub(crate) fn depth(&self) -> usize {
        self.shards.iter().map(Shard::depth).sum()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity.capacity()
    }

    /// Returns the number of accepted activities that the worker has forwarded.
    pub(crate) fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }
}

/// Adds to a counter when it is dropped.
struct Counted<'a> {
    counter: &'a AtomicU64,
    activities: u64,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.counter.fetch_add(self.activities, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
