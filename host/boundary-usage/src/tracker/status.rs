//! The status of a tracker, and the counters behind it.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{FlushDurations, Shared, flush_schedule};
use crate::checkpoint::CheckpointStatus;
use crate::error::{Error, chain};
use crate::records::Flushed;

/// The status of a tracker. Counts begin at the tracker's start.
#[derive(Clone, Debug, Serialize)]
pub struct TrackerStatus {
    /// The replica.
    pub replica: Uuid,
    /// Accepted activities.
    pub activities: u64,
    /// Accepted activities that the component has not received yet.
    pub waiting_activities: u64,
    /// Activities in the intake, which merges those of the same workspace and owner.
    pub intake_depth: usize,
    /// The depth at which `track` waits.
    pub intake_capacity: usize,
    /// Accepted activities that may be missing in the database. Restored activity does not count.
    pub pending_activities: u64,
    /// Successful flushes that had something to do.
    pub flushes: u64,
    /// Those of them that found an earlier commit without a reply applied, and had nothing else to write.
    pub confirmed_flushes: u64,
    /// Flushes that had nothing to do.
    pub idle_flushes: u64,
    /// Failed flushes.
    pub failed_flushes: u64,
    /// Flushes that the database confirmed and later lost, because a backup was restored or a lagging standby took
    /// over.
    ///
    /// The usage of these flushes is lost unless a collected period contains it.
    pub forgotten_flushes: u64,
    /// The durations of the flushes that had something to do.
    pub flush_durations: FlushDurations,
    /// Time of the last successful flush, idle ones included, by the clock of this machine.
    pub last_success: Option<DateTime<Utc>>,
    /// The error of the last flush with its causes; `None` if it succeeded.
    pub last_error: Option<String>,
    /// Restarts of the component after a crash.
    pub restarts: u64,
    /// Restarts since a flush last completed in the component.
    pub consecutive_restarts: u32,
    /// The reason for the last restart.
    pub last_restart: Option<String>,
    /// The wait before a crashed component restarts, in milliseconds; `None` while a component runs.
    ///
    /// The first wait is 50 ms. The wait doubles with each consecutive restart, up to 30 s. The tracker accepts
    /// activity meanwhile but does not flush.
    pub restart_wait_ms: Option<u64>,
    /// Whether the tracker has ended, by a shutdown or because its thread panicked.
    ///
    /// A tracker that has ended accepts no activity.
    pub stopped: bool,
    /// The status of the checkpoints; `None` without a state directory.
    pub checkpoint: Option<CheckpointStatus>,
}

/// The counters behind [`TrackerStatus`].
pub(super) struct Counters {
    pub(super) flushes: u64,
    pub(super) confirmed_flushes: u64,
    pub(super) idle_flushes: u64,
    pub(super) failed_flushes: u64,
    pub(super) flush_durations: FlushDurations,
    /// The number of accepted activities that are in the database.
    pub(super) written_activities: u64,
    pub(super) last_success: Option<DateTime<Utc>>,
    pub(super) restarts: u64,
    pub(super) consecutive_restarts: u32,
    pub(super) last_restart: Option<String>,
    pub(super) restart_wait: Option<Duration>,
    pub(super) last_error: Option<String>,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            flushes: 0,
            confirmed_flushes: 0,
            idle_flushes: 0,
            failed_flushes: 0,
            flush_durations: FlushDurations::new(),
            written_activities: 0,
            last_success: None,
            restarts: 0,
            consecutive_restarts: 0,
            last_restart: None,
            restart_wait: None,
            last_error: None,
        }
    }
}

impl Shared {
    /// Counts a flush that completed in the component. `activities` is the number of activities that were accepted
    /// before the flush.
    pub(super) fn flushed(&self, activities: u64, flushed: &Result<Flushed, Error>, duration: Duration) {
        let mut counters = self.counters();
        counters.consecutive_restarts = 0;
        match flushed {
            Ok(Flushed::Idle) => counters.idle_flushes += 1,
            Ok(Flushed::Confirmed { .. }) => {
                counters.flushes += 1;
                counters.confirmed_flushes += 1;
            }
            Ok(Flushed::Written { .. }) => counters.flushes += 1,
            Err(_) => counters.failed_flushes += 1,
        }
        if !matches!(flushed, Ok(Flushed::Idle)) {
            counters.flush_durations.add(duration);
        }
        counters.last_error = flushed.as_ref().err().map(|error| chain(error));
        if flushed.is_ok() {
            counters.written_activities = activities;
            counters.last_success = Some(Utc::now());
        }
    }

    /// Counts a crash of the component. Returns the number of crashes without a flush, and the wait before the restart.
    pub(super) fn crashed(&self, error: &Error) -> (u32, Duration) {
        let mut counters = self.counters();
        let wait = flush_schedule::restart_wait(counters.consecutive_restarts);
        counters.restarts += 1;
        counters.consecutive_restarts += 1;
        counters.last_restart = Some(error.to_string());
        counters.restart_wait = Some(wait);
        (counters.consecutive_restarts, wait)
    }

    pub(super) fn restarted(&self) {
        self.counters().restart_wait = None;
    }

    pub(super) fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
