//! The bounded queue between a proxy's threads and the one thread that owns the component.
//!
//! A push appends to a buffer under a lock that is held for nanoseconds; the owner takes the whole buffer by swapping an
//! empty one in. When the buffer is full, `push` waits for that swap and `try_push` answers that it is full: nothing is
//! dropped, and memory stays bounded.

use std::sync::{Condvar, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::activity::Activity;
use crate::error::TrackError;

pub(super) struct Intake {
    capacity: usize,
    queue: Mutex<Queue>,
    /// Told when the queue was full and has been emptied.
    room: Condvar,
    /// Told when the queue was empty and no longer is.
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    activities: Vec<Activity>,
    accepted: u64,
    closed: bool,
}

impl Intake {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, queue: Mutex::default(), room: Condvar::new(), filled: Notify::new() }
    }

    /// Accepts an activity; waits while the queue is full.
    pub(super) fn push(&self, activity: Activity) -> Result<(), TrackError> {
        activity.check()?;
        let full = |queue: &mut Queue| !queue.closed && queue.activities.len() >= self.capacity;
        let queue = self.room.wait_while(self.lock(), full);
        self.accept(queue.expect("no holder of this lock panics"), activity)
    }

    /// Accepts an activity, unless the queue is full.
    pub(super) fn try_push(&self, activity: Activity) -> Result<(), TrackError> {
        activity.check()?;
        let queue = self.lock();
        if !queue.closed && queue.activities.len() >= self.capacity {
            return Err(TrackError::Full { capacity: self.capacity });
        }
        self.accept(queue, activity)
    }

    fn accept(&self, mut queue: MutexGuard<'_, Queue>, activity: Activity) -> Result<(), TrackError> {
        if queue.closed {
            return Err(TrackError::Stopped);
        }
        queue.activities.push(activity);
        queue.accepted += 1;
        let first = queue.activities.len() == 1;
        drop(queue);
        if first {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes everything that waits; `buffer`, empty, takes its place.
    pub(super) fn swap(&self, buffer: &mut Vec<Activity>) {
        debug_assert!(buffer.is_empty(), "what was taken before has been handed on");
        let mut queue = self.lock();
        std::mem::swap(&mut queue.activities, buffer);
        drop(queue);
        if buffer.len() >= self.capacity {
            self.room.notify_all();
        }
    }

    /// Waits until something waits. For one waiter, the owner; safe to cancel.
    pub(super) async fn filled(&self) {
        while self.lock().activities.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Accepts nothing from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
    }

    /// Whether the tracker has been told to stop.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many activities were accepted since the start.
    pub(super) fn accepted(&self) -> u64 {
        self.lock().accepted
    }

    /// How many activities wait for the component.
    pub(super) fn depth(&self) -> usize {
        self.lock().activities.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn activity() -> Activity {
        Activity { workspace: Uuid::from_u128(1), owner: Uuid::from_u128(2), allowed: 1, denied: 0 }
    }

    #[test]
    fn a_full_intake_refuses_and_accepts_again_once_emptied() {
        let intake = Intake::new(2);
        assert_eq!(intake.try_push(activity()), Ok(()));
        assert_eq!(intake.try_push(activity()), Ok(()));
        assert_eq!(intake.try_push(activity()), Err(TrackError::Full { capacity: 2 }));
        assert_eq!(intake.depth(), 2);
        let mut taken = Vec::new();
        intake.swap(&mut taken);
        assert_eq!((taken.len(), intake.depth()), (2, 0));
        assert_eq!(intake.try_push(activity()), Ok(()));
        assert_eq!(intake.accepted(), 3);
    }

    #[test]
    fn a_push_into_a_full_intake_waits_for_room_and_loses_nothing() {
        let intake = Intake::new(1);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| intake.push(activity()).unwrap()));
            }
            let (mut total, mut taken) = (0, Vec::new());
            while total < 400 {
                intake.swap(&mut taken);
                assert!(taken.len() <= 1);
                total += taken.drain(..).count();
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn a_closed_intake_refuses_also_those_who_wait() {
        let intake = Intake::new(1);
        intake.push(activity()).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| intake.push(activity()));
            intake.close();
            assert_eq!(waiting.join().unwrap(), Err(TrackError::Stopped));
        });
    }

    #[test]
    fn nil_ids_are_refused() {
        let intake = Intake::new(1);
        let nil = Activity { owner: Uuid::nil(), ..activity() };
        assert_eq!(intake.push(nil), Err(TrackError::NilId { field: "owner" }));
        assert_eq!(intake.try_push(nil), Err(TrackError::NilId { field: "owner" }));
        assert_eq!(intake.accepted(), 0);
    }
}
