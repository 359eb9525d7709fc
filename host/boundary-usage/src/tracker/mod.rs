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

/// A running tracker. Cheap to clone; all clones are one tracker.
///
/// End it with [`shutdown`](Self::shutdown). When the last clone is dropped without, the tracker flushes once more in the
/// background, and nobody learns whether that worked.
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
    /// Records activity: both ids as active, and both counts added; counts of 0 still record the ids.
    ///
    /// May be called from any thread, and does not wait for the database. It waits only while the intake is full, that
    /// is while activity comes faster than the component takes it; async code that must not wait at all uses
    /// [`try_track`](Self::try_track). What was accepted is in the database after the next flush that succeeds.
    ///
    /// # Errors
    ///
    /// [`TrackError::NilId`] for a nil UUID; [`TrackError::Stopped`] after a shutdown.
    pub fn track(&self, workspace: Uuid, owner: Uuid, allowed: u64, denied: u64) -> Result<(), TrackError> {
        let activity = Activity { workspace, owner, allowed, denied };
        activity.check()?;
        self.shared.intake.push(activity)
    }

    /// Like [`track`](Self::track), but never waits.
    ///
    /// # Errors
    ///
    /// As `track`, and [`TrackError::Full`] when the intake is full: the activity was not accepted.
    pub fn try_track(&self, workspace: Uuid, owner: Uuid, allowed: u64, denied: u64) -> Result<(), TrackError> {
        let activity = Activity { workspace, owner, allowed, denied };
        activity.check()?;
        self.shared.intake.try_push(activity)
    }

    /// Records requests alone: both counts are added, and no workspace and no user becomes active. Waits like
    /// [`track`](Self::track).
    ///
    /// # Errors
    ///
    /// [`TrackError::Stopped`] after a shutdown.
    pub fn track_requests(&self, allowed: u64, denied: u64) -> Result<(), TrackError> {
        self.shared.intake.push(Activity::without_ids(allowed, denied))
    }

    /// Like [`track_requests`](Self::track_requests), but never waits.
    ///
    /// # Errors
    ///
    /// As `track_requests`, and [`TrackError::Full`] when the intake is full: the requests were not accepted.
    pub fn try_track_requests(&self, allowed: u64, denied: u64) -> Result<(), TrackError> {
        self.shared.intake.try_push(Activity::without_ids(allowed, denied))
    }

    /// Writes what was tracked before this call. The tracker does so by itself at every interval.
    ///
    /// # Errors
    ///
    /// When the database does not take it; the activity is kept and goes out with the next flush.
    pub async fn flush(&self) -> Result<Flushed, Error> {
        self.command(Command::Flush).await
    }

    /// Accepts nothing more, flushes for the last time and stops. Any clone may call it, once.
    ///
    /// A last flush that fails is tried again until `shutdown_timeout` is over; so is one whose commit has no reply, which
    /// resolves it. For the disk of a checkpoint, `shutdown` waits as long again.
    ///
    /// # Errors
    ///
    /// The error of the last attempt, or [`Error::TimedOut`] when `shutdown_timeout` was over in the middle of one: what was
    /// tracked since the last flush that succeeded is then not in the database. With a state directory it is in the
    /// checkpoint, unless [`TrackerStatus::checkpoint`] has an error, and the next start goes on from it.
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

    /// Waits until the tracker's work has ended: after a [`shutdown`](Self::shutdown), or because its thread panicked.
    pub async fn stopped(&self) {
        self.commands.closed().await;
    }

    /// What the tracker knows of itself.
    pub fn status(&self) -> TrackerStatus {
        // In this order, so that no more are handed on than accepted.
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
            Err(Error::Component { message: "the component broke during the flush".into(), source: None })
        })
    }
}
