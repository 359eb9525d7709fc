//! The intake as its users see it: threads that push, and the owner that sweeps.

#[path = "../../../host/boundary-usage/src/tracker/intake/mod.rs"]
#[allow(dead_code)]
mod intake;
mod threads;

use std::convert::Infallible;

use loom::future::block_on;
use uuid::Uuid;

use self::intake::Intake;
use crate::{Activity, TrackError};

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

    /// Sweeps; returns how many requests were handed on.
    pub fn sweep(&self) -> u64 {
        let mut requests = 0;
        let mut buffer = Vec::new();
        let sweep = self.0.sweep(&mut buffer, async |activities: &[Activity]| {
            requests += activities.iter().map(|activity| activity.allowed).sum::<u64>();
            Ok::<_, Infallible>(())
        });
        let Ok(()) = block_on(sweep);
        requests
    }

    /// Does what the owner does, until that many requests were handed on: waits until something waits, and sweeps.
    pub fn own_until(&self, requests: u64) {
        let mut handed_on = 0;
        while handed_on < requests {
            block_on(self.0.filled());
            handed_on += self.sweep();
        }
    }

    /// Accepts nothing from now on.
    pub fn close(&self) {
        self.0.close();
    }

    /// How many activities were accepted.
    pub fn accepted(&self) -> u64 {
        self.0.accepted()
    }

    /// How many of them the owner handed on.
    pub fn handed_on(&self) -> u64 {
        self.0.handed_on()
    }
}

fn activity(pair: u128) -> Activity {
    Activity { workspace: Uuid::from_u128(pair), owner: Uuid::from_u128(pair), allowed: 1, denied: 0 }
}
