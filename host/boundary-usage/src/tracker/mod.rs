//! The handle that a proxy holds.

use uuid::Uuid;

use crate::error::{Error, TrackError};

/// A running tracker. Cheap to clone.
#[derive(Clone)]
pub struct Tracker {}

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing was tracked since the last flush: no transaction was opened.
    Idle,
    /// A flush whose commit had brought no reply was found applied; nothing else was waiting.
    Confirmed {
        /// Its number.
        flush: u64,
    },
    /// The activity since the last flush is in the database.
    Written {
        /// The flush's number.
        flush: u64,
        /// Whether it is the replica's first of the period.
        new_period: bool,
    },
}

/// What a tracker knows of itself; counts since its start.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TrackerStatus {
    /// The replica.
    pub replica: Uuid,
    /// Activities accepted.
    pub activities: u64,
    /// Flushes that wrote or confirmed something.
    pub flushes: u64,
    /// Flushes that failed.
    pub failed_flushes: u64,
    /// Why the last flush failed; `None` after one that did not.
    pub last_error: Option<String>,
    /// How often the component had to be replaced.
    pub restarts: u64,
}

impl Tracker {
    /// Records activity.
    pub fn track(&self, _workspace: Uuid, _owner: Uuid, _allowed: u64, _denied: u64) -> Result<(), TrackError> {
        unimplemented!()
    }

    /// Like `track`, but answers [`TrackError::Full`] instead of waiting.
    pub fn try_track(&self, _workspace: Uuid, _owner: Uuid, _allowed: u64, _denied: u64) -> Result<(), TrackError> {
        unimplemented!()
    }

    /// Writes what was tracked before this call.
    pub async fn flush(&self) -> Result<Flushed, Error> {
        unimplemented!()
    }

    /// What the tracker knows of itself.
    pub fn status(&self) -> TrackerStatus {
        unimplemented!()
    }

    /// Flushes once more and stops.
    pub async fn shutdown(&self) -> Result<Flushed, Error> {
        unimplemented!()
    }
}
