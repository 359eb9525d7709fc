//! One shard of the intake: the waiting activities of a few threads, ideally of one.
//!
//! Only these threads and the worker contend for the shard's lock.

use std::sync::PoisonError;

use super::capacity::Capacity;
use super::pairs::Pairs;
use crate::activity::Activity;
use crate::error::TrackError;
use crate::threads::{Condvar, Mutex, MutexGuard};

/// One shard, which shares no cache line with another shard.
///
/// The alignment also keeps shards out of the pair of lines that processors fetch together.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Shard {
    state: Mutex<State>,
    /// Notified when capacity was released, and when the shard is closed.
    released: Condvar,
}

#[derive(Default)]
struct State {
    pairs: Pairs,
    /// The capacity that the shard has reserved.
    reserved: usize,
    /// The number of activities accepted since the start.
    accepted: u64,
    /// The number of accepted activities since the last drain, including merged ones.
    pending: u64,
    /// The number of threads that wait for capacity.
    waiters: usize,
    closed: bool,
}

/// The condition under which a push wakes the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wakeup {
    /// The shard was not empty and has not reserved more capacity.
    Never,
    /// The shard was empty, so the worker may be asleep.
    IfAsleep,
    /// The shard was not empty and has reserved more capacity, which may have become scarce.
    IfScarce,
}

impl Shard {
    /// Accepts an activity.
    ///
    /// If the capacity is exhausted, it calls `when_full`, and waits unless `when_full` returns an error.
    pub(super) fn push(
        &self,
        activity: Activity,
        capacity: &Capacity,
        mut when_full: impl FnMut() -> Result<(), TrackError>,
    ) -> Result<Wakeup, TrackError> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(TrackError::Stopped);
            }
            if state.pairs.merge(&activity) {
                state.count_one();
                return Ok(Wakeup::Never);
            }
            let mut wakeup = if state.pending == 0 { Wakeup::IfAsleep } else { Wakeup::Never };
            if state.pairs.len() == state.reserved {
                let block = capacity.reserve();
                if block == 0 {
                    when_full()?;
                    state.waiters += 1;
                    state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.waiters -= 1;
                    continue;
                }
                state.reserved += block;
                if wakeup == Wakeup::Never {
                    wakeup = Wakeup::IfScarce;
                }
            }
            state.pairs.push(activity);
            state.count_one();
            return Ok(wakeup);
        }
    }

    /// Swaps the waiting activities with an empty buffer.
    ///
    /// Returns the number of accepted activities that they represent.
    pub(super) fn swap(&self, buffer: &mut Vec<Activity>, capacity: &Capacity) -> u64 {
        let mut state = self.lock();
        capacity.release(std::mem::take(&mut state.reserved));
        if state.pending > 0 {
            state.pairs.swap(buffer);
        }
        std::mem::take(&mut state.pending)
    }

    /// Wakes the threads that wait for capacity.
    pub(super) fn wake_waiters(&self) {
        if self.lock().waiters > 0 {
            self.released.notify_all();
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.lock().pairs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().pending == 0
    }

    /// Refuses all later activities and wakes the waiting threads.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.released.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn accepted(&self) -> u64 {
        self.lock().accepted
    }

    /// Locks the shard, even if a thread panicked while it held the lock. Such a panic stops the tracker.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count_one(&mut self) {
        self.accepted += 1;
        self.pending += 1;
    }
}
