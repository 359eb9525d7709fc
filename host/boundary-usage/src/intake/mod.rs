//! The bounded queue between a proxy's threads and the one task that owns the component.
//!
//! ```text
//! thread ── push ──▶ shard ──┐
//! thread ── push ──▶ shard ──┼── drain, every 10 ms ──▶ owner
//! thread ── push ──▶ shard ──┘
//! ```
//!
//! Each thread pushes into a shard of its own, as long as there are no more threads than shards: what it locks there, it
//! shares with the owner alone, who comes by a hundred times a second to exchange a buffer. Equal pairs are added up in the
//! shard. When all room is taken, `push` waits for the owner and `try_push` answers that the intake is full: nothing is
//! dropped, and memory stays bounded.

mod capacity;
mod pairs;
mod shard;

use std::time::Duration;

use self::capacity::Capacity;
use self::shard::{Shard, Wakeup};
use crate::activity::Activity;
use crate::error::TrackError;
use crate::threads::{AtomicBool, AtomicU64, Instant, Mutex, Notify, Ordering, shard_count, thread_number, timeout_at};

/// From one drain to the next, as long as there is room. To hand over a few activities costs the component as much as to
/// hand over hundreds, and a thread that has to wake the owner each time pays as much again.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

pub(crate) struct Intake {
    /// A power of two of them.
    shards: Box<[Shard]>,
    capacity: Capacity,
    /// The owner sleeps until someone wakes it, because nothing waits. Set before the owner looks into the shards, and read
    /// after a push into one, so that one of the two sees the other.
    asleep: AtomicBool,
    /// Told when the owner is to come at once.
    call: Notify,
    /// The owner's last drain; only the owner looks at it.
    swept: Mutex<Option<Instant>>,
    /// Activities that the owner has handed on.
    forwarded: AtomicU64,
}

impl Intake {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            shards: (0..shard_count()).map(|_| Shard::default()).collect(),
            capacity: Capacity::new(capacity),
            asleep: AtomicBool::new(false),
            call: Notify::new(),
            swept: Mutex::default(),
            forwarded: AtomicU64::new(0),
        }
    }

    /// Accepts an activity; waits while there is no room.
    pub(crate) fn push(&self, activity: Activity) -> Result<(), TrackError> {
        self.push_or(activity, || {
            self.call.notify_one();
            Ok(())
        })
    }

    /// Accepts an activity, unless there is no room.
    pub(crate) fn try_push(&self, activity: Activity) -> Result<(), TrackError> {
        self.push_or(activity, || Err(TrackError::Full { capacity: self.capacity.capacity() }))
    }

    #[inline]
    fn push_or(&self, activity: Activity, when_full: impl FnMut() -> Result<(), TrackError>) -> Result<(), TrackError> {
        let shard = &self.shards[thread_number() & (self.shards.len() - 1)];
        let calls = match shard.push(activity, &self.capacity, when_full)? {
            Wakeup::More => false,
            Wakeup::First => self.asleep.load(Ordering::Relaxed),
            Wakeup::MoreRoom => self.capacity.is_scarce(),
        };
        if calls {
            self.call.notify_one();
        }
        Ok(())
    }

    /// Takes what waits, one shard after the other, and hands each shard's to `hand_on` with the number of activities that
    /// it stands for. All that was accepted before the call is taken.
    pub(crate) async fn drain<E>(
        &self,
        buffer: &mut Vec<Activity>,
        mut hand_on: impl AsyncFnMut(&[Activity]) -> Result<(), E>,
    ) -> Result<(), E> {
        *self.swept.lock().expect("only the owner locks it") = Some(Instant::now());
        for shard in &self.shards {
            let activities = shard.swap(buffer, &self.capacity);
            if activities == 0 {
                continue;
            }
            // Those who wait may wait at any shard: it is all one room.
            self.shards.iter().for_each(Shard::wake_waiters);
            // Also when this future is dropped half way, because the component breaks: it is in the ledger by then.
            let counted = Counted { counter: &self.forwarded, activities };
            let forwarded = hand_on(buffer).await;
            drop(counted);
            // Memory follows use: a buffer goes from shard to shard, and one burst is to leave no large one at each.
            if buffer.len() < buffer.capacity() / 4 {
                buffer.shrink_to(2 * buffer.len());
            }
            buffer.clear();
            forwarded?;
        }
        Ok(())
    }

    /// Waits until it is time for a drain. For one waiter, the owner; safe to cancel.
    pub(crate) async fn ready(&self) {
        let swept = *self.swept.lock().expect("only the owner locks it");
        if let Some(swept) = swept {
            // A call left over from before the last drain only makes this one come early.
            let _ = timeout_at(swept + DRAIN_INTERVAL, self.call.notified()).await;
        }
        loop {
            self.asleep.store(true, Ordering::Relaxed);
            if !self.shards.iter().all(Shard::is_empty) {
                break;
            }
            self.call.notified().await;
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Accepts nothing from now on.
    pub(crate) fn close(&self) {
        self.shards.iter().for_each(Shard::close);
    }

    /// Whether the tracker has been told to stop.
    pub(crate) fn is_closed(&self) -> bool {
        // The last one to be closed.
        self.shards.last().is_none_or(Shard::is_closed)
    }

    /// How many activities were accepted since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.shards.iter().map(Shard::accepted).sum()
    }

    /// How many pairs wait.
    pub(crate) fn depth(&self) -> usize {
        self.shards.iter().map(Shard::depth).sum()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity.capacity()
    }

    /// How many of those accepted the owner has handed on.
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
