//! The bounded queue between a proxy's threads and the one task that owns the component.
//!
//! ```text
//! thread ── push ──▶ shard ──┐
//! thread ── push ──▶ shard ──┼── sweep, every 10 ms ──▶ owner
//! thread ── push ──▶ shard ──┘
//! ```
//!
//! Each thread pushes into a shard of its own, as long as there are no more threads than shards: what it locks there, it
//! shares with the owner alone, who comes by a hundred times a second to exchange a buffer. Equal pairs are added up in the
//! shard. When all room is taken, `push` waits for the owner and `try_push` answers that the intake is full: nothing is
//! dropped, and memory stays bounded.

mod pairs;
mod room;
mod shard;

use std::time::Duration;

use self::room::Room;
use self::shard::{Pushed, Shard};
use super::threads::{AtomicBool, AtomicU64, Instant, Mutex, Notify, Ordering, shard_count, thread_number, timeout_at};
use crate::activity::Activity;
use crate::error::TrackError;

/// From one sweep to the next, as long as there is room. To hand over a few activities costs the component as much as to
/// hand over hundreds, and a thread that has to wake the owner each time pays as much again.
const SWEEP_INTERVAL: Duration = Duration::from_millis(10);

pub(super) struct Intake {
    /// A power of two of them.
    shards: Box<[Shard]>,
    room: Room,
    /// The owner sleeps until someone wakes it, because nothing waits. Set before the owner looks into the shards, and read
    /// after a push into one, so that one of the two sees the other.
    asleep: AtomicBool,
    /// Told when the owner is to come at once.
    call: Notify,
    /// The owner's last sweep; only the owner looks at it.
    swept: Mutex<Option<Instant>>,
    /// Activities that the owner has handed on.
    handed_on: AtomicU64,
}

impl Intake {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            shards: (0..shard_count()).map(|_| Shard::default()).collect(),
            room: Room::new(capacity),
            asleep: AtomicBool::new(false),
            call: Notify::new(),
            swept: Mutex::default(),
            handed_on: AtomicU64::new(0),
        }
    }

    /// Accepts an activity; waits while there is no room.
    pub(super) fn push(&self, activity: Activity) -> Result<(), TrackError> {
        self.push_or(activity, || {
            self.call.notify_one();
            Ok(())
        })
    }

    /// Accepts an activity, unless there is no room.
    pub(super) fn try_push(&self, activity: Activity) -> Result<(), TrackError> {
        self.push_or(activity, || Err(TrackError::Full { capacity: self.room.capacity() }))
    }

    #[inline]
    fn push_or(&self, activity: Activity, when_full: impl FnMut() -> Result<(), TrackError>) -> Result<(), TrackError> {
        let shard = &self.shards[thread_number() & (self.shards.len() - 1)];
        let calls = match shard.push(activity, &self.room, when_full)? {
            Pushed::More => false,
            Pushed::First => self.asleep.load(Ordering::Relaxed),
            Pushed::MoreRoom => self.room.is_scarce(),
        };
        if calls {
            self.call.notify_one();
        }
        Ok(())
    }

    /// Takes what waits, one shard after the other, and hands each shard's to `hand_on` with the number of activities that
    /// it stands for. All that was accepted before the call is taken.
    pub(super) async fn sweep<E>(
        &self,
        buffer: &mut Vec<Activity>,
        mut hand_on: impl AsyncFnMut(&[Activity]) -> Result<(), E>,
    ) -> Result<(), E> {
        *self.swept.lock().expect("only the owner locks it") = Some(Instant::now());
        for shard in &self.shards {
            let activities = shard.swap(buffer, &self.room);
            if activities == 0 {
                continue;
            }
            // Those who wait may wait at any shard: it is all one room.
            self.shards.iter().for_each(Shard::wake_waiters);
            // Also when this future is dropped half way, because the component breaks: it is in the ledger by then.
            let counted = Counted { counter: &self.handed_on, activities };
            let handed_on = hand_on(buffer).await;
            drop(counted);
            // Memory follows use: a buffer goes from shard to shard, and one burst is to leave no large one at each.
            if buffer.len() < buffer.capacity() / 4 {
                buffer.shrink_to(2 * buffer.len());
            }
            buffer.clear();
            handed_on?;
        }
        Ok(())
    }

    /// Waits until it is time for a sweep. For one waiter, the owner; safe to cancel.
    pub(super) async fn filled(&self) {
        let swept = *self.swept.lock().expect("only the owner locks it");
        if let Some(swept) = swept {
            // A call left over from before the last sweep only makes this one come early.
            let _ = timeout_at(swept + SWEEP_INTERVAL, self.call.notified()).await;
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
    pub(super) fn close(&self) {
        self.shards.iter().for_each(Shard::close);
    }

    /// Whether the tracker has been told to stop.
    pub(super) fn is_closed(&self) -> bool {
        // The last one to be closed.
        self.shards.last().is_none_or(Shard::is_closed)
    }

    /// How many activities were accepted since the start.
    pub(super) fn accepted(&self) -> u64 {
        self.shards.iter().map(Shard::accepted).sum()
    }

    /// How many pairs wait.
    pub(super) fn depth(&self) -> usize {
        self.shards.iter().map(Shard::depth).sum()
    }

    pub(super) fn capacity(&self) -> usize {
        self.room.capacity()
    }

    /// How many of those accepted the owner has handed on.
    pub(super) fn handed_on(&self) -> u64 {
        self.handed_on.load(Ordering::Relaxed)
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
