//! One shard: what waits of a few threads, at best of one, under a lock that no other thread asks for but the owner's.

use std::sync::PoisonError;

use super::capacity::Capacity;
use super::pairs::Pairs;
use crate::activity::Activity;
use crate::error::TrackError;
use crate::threads::{Condvar, Mutex, MutexGuard};

/// Aligned so that two shards share no cache line, nor the pair of lines that processors fetch together.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Shard {
    state: Mutex<State>,
    /// Told when there is room again, or when the shard is closed.
    room_again: Condvar,
}

#[derive(Default)]
struct State {
    pairs: Pairs,
    /// How many may wait before the shard has to take more room.
    allowance: usize,
    /// Activities accepted since the start.
    accepted: u64,
    /// Those of them that wait.
    pending: u64,
    /// Threads that wait for room.
    waiters: usize,
    closed: bool,
}

/// What a push has to do at the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wakeup {
    /// The shard had something waiting already.
    More,
    /// The first that waits, since the owner came by.
    First,
    /// It took more room.
    MoreRoom,
}

impl Shard {
    /// Accepts an activity. When there is no room, `when_full` says how to go on.
    pub(super) fn push(
        &self,
        activity: Activity,
        room: &Capacity,
        mut when_full: impl FnMut() -> Result<(), TrackError>,
    ) -> Result<Wakeup, TrackError> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(TrackError::Stopped);
            }
            if state.pairs.merge(&activity) {
                state.count_one();
                return Ok(Wakeup::More);
            }
            let mut pushed = if state.pending == 0 { Wakeup::First } else { Wakeup::More };
            if state.pairs.len() == state.allowance {
                let taken = room.take();
                if taken == 0 {
                    when_full()?;
                    state.waiters += 1;
                    state = self.room_again.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.waiters -= 1;
                    continue;
                }
                state.allowance += taken;
                if pushed == Wakeup::More {
                    pushed = Wakeup::MoreRoom;
                }
            }
            state.pairs.push(activity);
            state.count_one();
            return Ok(pushed);
        }
    }

    /// Takes all that waits; `buffer`, empty, takes its place. Answers how many activities that stands for.
    pub(super) fn swap(&self, buffer: &mut Vec<Activity>, room: &Capacity) -> u64 {
        let mut state = self.lock();
        room.give_back(std::mem::take(&mut state.allowance));
        if state.pending > 0 {
            state.pairs.swap(buffer);
        }
        std::mem::take(&mut state.pending)
    }

    /// Has those who wait for room look again.
    pub(super) fn wake_waiters(&self) {
        if self.lock().waiters > 0 {
            self.room_again.notify_all();
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.lock().pairs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().pending == 0
    }

    /// Accepts nothing from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room_again.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn accepted(&self) -> u64 {
        self.lock().accepted
    }

    /// A holder that panicked ends the tracker, which closes the shard.
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
