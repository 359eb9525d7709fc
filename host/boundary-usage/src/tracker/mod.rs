//! The handle of a running tracker, and the work behind it.
//!
//! | file | duty |
//! | --- | --- |
//! | `start.rs` | starts a tracker from a compiled component |
//! | `worker.rs` | the task that owns the component: forwards activity and flushes |
//! | `waiting.rs` | the worker before the first connection to the database |
//! | `flush_schedule.rs` | the times of flushes and restarts |
//! | `status.rs`, `durations.rs`, `span.rs` | counters, flush durations and traces |

mod durations;
mod flush_schedule;
mod span;
mod start;
mod status;
mod waiting;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

pub use self::durations::FlushDurations;
use self::status::Counters;
pub use self::status::TrackerStatus;
use self::worker::{Command, Reply, Stop};
use crate::activity::Activity;
use crate::checkpoint::CheckpointWriter;
use crate::error::{Error, TrackError};
use crate::intake::Intake;
use crate::ledger::Ledger;
use crate::records::Flushed;

/// A running tracker. Clones are cheap and share the tracker.
///
/// Stop a tracker with [`shutdown`](Self::shutdown). If the last clone is dropped without a shutdown, the tracker
/// flushes once more in the background and the result is lost.
#[derive(Clone)]
pub struct Tracker {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

struct Shared {
    replica: Uuid,
    shutdown_timeout: Duration,
    intake: Intake,
    counters: Mutex<Counters>,
    ledger: Arc<Mutex<Ledger>>,
    checkpoint_writer: Option<Arc<CheckpointWriter>>,
}

impl Tracker {
    /// Records activity: marks both ids as active and adds both counts.
    ///
    /// Counts of 0 still record the ids. The next successful flush writes the activity.
    ///
    /// Any thread may call this function. The call never waits for the database. The call blocks while the intake is
    /// full, which means that activity arrives faster than the component takes it. Async code should use
    /// [`try_track`](Self::try_track).
    ///
    /// # Errors
    ///
    /// - [`TrackError::NilId`] if an id is the nil UUID.
    /// - [`TrackError::Stopped`] after a shutdown.
    pub fn track(&self, workspace: Uuid, owner: Uuid, allowed: u64, denied: u64) -> Result<(), TrackError> {
        let activity = Activity { workspace, owner, allowed, denied };
        activity.check()?;
        self.shared.intake.push(activity)
    }

    /// Like [`track`](Self::track), but never blocks.
    ///
    /// # Errors
    ///
    /// - [`TrackError::Full`] if the intake is full. The activity is not accepted.
    /// - Those of [`track`](Self::track).
    pub fn try_track(&self, workspace: Uuid, owner: Uuid, allowed: u64, denied: u64) -> Result<(), TrackError> {
        let activity = Activity { workspace, owner, allowed, denied };
        activity.check()?;
        self.shared.intake.try_push(activity)
    }

    /// Records requests without ids: adds both counts.
    ///
    /// The call blocks while the intake is full, like [`track`](Self::track).
    ///
    /// # Errors
    ///
    /// - [`TrackError::Stopped`] after a shutdown.
    pub fn track_requests(&self, allowed: u64, denied: u64) -> Result<(), TrackError> {
        self.shared.intake.push(Activity::without_ids(allowed, denied))
    }

    /// Like [`track_requests`](Self::track_requests), but never blocks.
    ///
    /// # Errors
    ///
    /// - [`TrackError::Full`] if the intake is full. The requests are not accepted.
    /// - [`TrackError::Stopped`] after a shutdown.
    pub fn try_track_requests(&self, allowed: u64, denied: u64) -> Result<(), TrackError> {
        self.shared.intake.try_push(Activity::without_ids(allowed, denied))
    }

    /// Writes all activity that was accepted before this call.
    ///
    /// The tracker also flushes at every interval.
    ///
    /// # Errors
    ///
    /// After any error, the next flush carries the activity.
    ///
    /// - Any error of the database.
    /// - [`Error::Component`] if the component crashes.
    /// - [`Error::Stopped`] after a shutdown.
    pub async fn flush(&self) -> Result<Flushed, Error> {
        self.command(Command::Flush).await
    }

    /// Refuses later activity, flushes for the last time and stops.
    ///
    /// Any clone may call this function, but only once. A last flush that fails, or whose commit has no reply, is
    /// retried until `shutdown_timeout`. Writing the last checkpoint has another time limit of the same length.
    ///
    /// # Errors
    ///
    /// After an error, the database lacks the activity since the last successful flush. With a state directory, that
    /// activity is in the checkpoint and the next start restores it, unless [`TrackerStatus::checkpoint`] has an error.
    ///
    /// - [`Error::TimedOut`] if `shutdown_timeout` passes during an attempt.
    /// - The error of the last attempt.
    /// - [`Error::Stopped`] if the tracker was shut down before.
    pub async fn shutdown(&self) -> Result<Flushed, Error> {
        let limit = self.shared.shutdown_timeout;
        let deadline = Instant::now() + limit;
        self.shared.intake.close();
        let stop = self.command(|reply| Command::Stop(Stop { deadline, reply: Some(reply) }));
        let stopped = tokio::time::timeout_at(deadline, stop).await;
        let stopped = stopped.unwrap_or(Err(Error::TimedOut { action: "the last flush", limit }));
        if let Some(writer) = &self.shared.checkpoint_writer {
            writer.close(limit).await;
        }
        stopped
    }

    /// Waits until the tracker has stopped.
    ///
    /// A tracker stops after a [`shutdown`](Self::shutdown), or because its thread has panicked.
    pub async fn stopped(&self) {
        self.commands.closed().await;
    }

    /// Returns the tracker's counters and the state of its checkpoint.
    pub fn status(&self) -> TrackerStatus {
        // `forwarded` is read first, because it must not exceed `activities`.
        let forwarded = self.shared.intake.forwarded();
        let activities = self.shared.intake.accepted();
        let forgotten_flushes = self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).forgotten_flushes();
        let counters = self.shared.counters();
        TrackerStatus {
            replica: self.shared.replica,
            activities,
            waiting_activities: activities - forwarded,
            intake_depth: self.shared.intake.depth(),
            intake_capacity: self.shared.intake.capacity(),
            pending_activities: activities.saturating_sub(counters.written_activities),
            flushes: counters.flushes,
            confirmed_flushes: counters.confirmed_flushes,
            idle_flushes: counters.idle_flushes,
            failed_flushes: counters.failed_flushes,
            forgotten_flushes,
            flush_durations: counters.flush_durations,
            last_success: counters.last_success,
            last_error: counters.last_error.clone(),
            restarts: counters.restarts,
            consecutive_restarts: counters.consecutive_restarts,
            last_restart: counters.last_restart.clone(),
            restart_wait_ms: counters.restart_wait.map(|wait| wait.as_millis().try_into().unwrap_or(u64::MAX)),
            stopped: self.commands.is_closed(),
            checkpoint: self.shared.checkpoint_writer.as_ref().map(|writer| writer.status()),
        }
    }

    async fn command(&self, command: impl FnOnce(Reply) -> Command) -> Result<Flushed, Error> {
        let (reply, flushed) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Stopped)?;
        flushed.await.unwrap_or_else(|_| {
            if self.shared.intake.is_closed() {
                return Err(Error::Stopped);
            }
            Err(Error::Component { message: "the component crashed during the flush".into(), source: None })
        })
    }
}
