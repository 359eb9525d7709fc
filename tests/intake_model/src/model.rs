//! The operations of the intake's users: threads that push, and the worker that drains.

use std::convert::Infallible;

use loom::future::block_on;
use uuid::Uuid;

use crate::intake::Intake;
use crate::{Activity, TrackError, threads};

/// An intake under test.
pub struct Model(Intake);

impl Model {
    /// Creates an intake for this number of pairs, with this number of shards (a power of two).
    pub fn new(capacity: usize, shards: usize) -> Self {
        threads::set_shard_count(shards);
        Self(Intake::new(capacity))
    }

    /// Pushes an activity of a pair from the thread with this number, and waits while the intake is full.
    ///
    /// # Errors
    ///
    /// Returns [`TrackError::Stopped`] if the intake is closed.
    pub fn push(&self, thread: usize, pair: u128) -> Result<(), TrackError> {
        threads::set_thread_number(thread);
        self.0.push(activity(pair))
    }

    /// Pushes an activity of a pair without waiting.
    ///
    /// # Errors
    ///
    /// Returns [`TrackError::Full`] if the intake is full, and [`TrackError::Stopped`] if it is closed.
    pub fn try_push(&self, thread: usize, pair: u128) -> Result<(), TrackError> {
        threads::set_thread_number(thread);
        self.0.try_push(activity(pair))
    }

    /// Drains the intake and returns the number of forwarded requests.
    pub fn drain(&self) -> u64 {
        let mut requests = 0;
        let mut buffer = Vec::new();
        let drain = self.0.drain(&mut buffer, async |activities: &[Activity]| {
            requests += activities.iter().map(|activity| activity.allowed).sum::<u64>();
            Ok::<_, Infallible>(())
        });
        let Ok(()) = block_on(drain);
        requests
    }

    /// Waits for activity and drains it, like the worker, until this number of requests are forwarded.
    pub fn work_until(&self, requests: u64) {
        let mut forwarded = 0;
        while forwarded < requests {
            block_on(self.0.ready());
            forwarded += self.drain();
        }
    }

    /// Closes the intake, which then accepts nothing.
    pub fn close(&self) {
        self.0.close();
    }

    /// Returns the number of accepted activities.
    pub fn accepted(&self) -> u64 {
        self.0.accepted()
    }

    /// Returns the number of forwarded activities.
    pub fn forwarded(&self) -> u64 {
        self.0.forwarded()
    }
}

fn activity(pair: u128) -> Activity {
    Activity { workspace: Uuid::from_u128(pair), owner: Uuid::from_u128(pair), allowed: 1, denied: 0 }
}
