//! The intake as its users see it: threads that push, and the worker that drains.

use std::convert::Infallible;

use loom::future::block_on;
use uuid::Uuid;

use crate::intake::Intake;
use crate::{Activity, TrackError, threads};

/// An intake, and how many shards it has.
pub struct Model(Intake);

impl Model {
    /// An intake that holds as many pairs, in as many shards: a power of two.
    pub fn new(capacity: usize, shards: usize) -> Self {
        threads::set_shard_count(shards);
        Self(Intake::new(capacity))
    }

    /// Pushes an activity of a pair, from a thread of this number; waits while there is no room.
    ///
    /// # Errors
    ///
    /// When the intake is closed.
    pub fn push(&self, thread: usize, pair: u128) -> Result<(), TrackError> {
        threads::set_thread_number(thread);
        self.0.push(activity(pair))
    }

    /// Pushes an activity of a pair, unless there is no room.
    ///
    /// # Errors
    ///
    /// When the intake is full or closed.
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

    /// Does what the worker does until it has forwarded this number of requests: waits for activity, then drains.
    pub fn work_until(&self, requests: u64) {
        let mut forwarded = 0;
        while forwarded < requests {
            block_on(self.0.ready());
            forwarded += self.drain();
        }
    }

    /// Accepts nothing from now on.
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
