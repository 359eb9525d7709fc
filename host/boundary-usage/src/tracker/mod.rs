//! The handle that a proxy holds, and what runs behind it: on a thread of its own, or on a task of the caller's.
//!
//! `intake` takes activity from any thread, `owner` is the task that has the component, `schedule` says when to flush.

mod durations;
mod intake;
mod owner;
mod schedule;
mod span;
mod threads;
mod waiting;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

pub use self::durations::FlushDurations;
use self::intake::Intake;
use self::owner::{Command, Owner, Reply, Stop, flush_loop};
use crate::activity::Activity;
use crate::checkpoint::{CheckpointStatus, Keeper};
use crate::error::{Error, TrackError, chain};
use crate::ledger::Ledger;
use crate::options::Options;
use crate::plugin::{Grants, Instance, Plugin};

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
    keeper: Option<Arc<Keeper>>,
}

struct Counters {
    flushes: u64,
    idle_flushes: u64,
    failed_flushes: u64,
    flush_durations: FlushDurations,
    /// How many of the accepted activities are in the database.
    written_activities: u64,
    last_success: Option<DateTime<Utc>>,
    restarts: u64,
    restarts_in_a_row: u32,
    last_restart: Option<String>,
    restart_wait: Option<Duration>,
    last_error: Option<String>,
}

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
#[derive(Clone, Debug, Serialize)]
pub struct TrackerStatus {
    /// The replica.
    pub replica: Uuid,
    /// Activities accepted.
    pub activities: u64,
    /// Of these, how many the component does not have yet.
    pub waiting_activities: u64,
    /// Activities that wait in the intake; those of one workspace and owner are added up, and count as one.
    pub intake_depth: usize,
    /// How many may wait there before `track` has to.
    pub intake_capacity: usize,
    /// Accepted activities that no flush has brought into the database yet, or not for certain. What a checkpoint has
    /// restored is not among them.
    pub pending_activities: u64,
    /// Flushes that did not fail and had something to do.
    pub flushes: u64,
    /// Flushes that had nothing to do.
    pub idle_flushes: u64,
    /// Flushes that failed.
    pub failed_flushes: u64,
    /// Flushes that the database had confirmed and later no longer had, because a backup was restored or a standby that
    /// lagged behind took over. What they carried is lost, unless a collected period holds it.
    pub forgotten_flushes: u64,
    /// How long they took.
    pub flush_durations: FlushDurations,
    /// When a flush last did not fail, be it that it had nothing to do; by this machine's clock.
    pub last_success: Option<DateTime<Utc>>,
    /// Why the last flush failed, with its causes; `None` after one that did not.
    pub last_error: Option<String>,
    /// How often the component had to be replaced because it broke.
    pub restarts: u64,
    /// How often of these since a flush last went through it.
    pub restarts_in_a_row: u32,
    /// Why it broke the last time.
    pub last_restart: Option<String>,
    /// While it is broken: how long the tracker waits, in milliseconds, before it replaces it: 50 ms at first, and twice
    /// as long at each further one in a row, up to 30 s. Meanwhile activity is accepted as ever, and nothing is flushed.
    /// `None` while a component runs.
    pub restart_wait_ms: Option<u64>,
    /// Whether the tracker's work has ended: after a shutdown, or because its thread panicked. It then accepts nothing more.
    pub stopped: bool,
    /// How the checkpoints fare; `None` without a state directory.
    pub checkpoint: Option<CheckpointStatus>,
}

impl Tracker {
    pub(crate) async fn start(plugin: Plugin, grants: Arc<Grants>, options: Options) -> Result<Self, Error> {
        let (tracker, owner) = Self::new(plugin, grants, options);
        let (ready, started) = oneshot::channel();
        let weak_commands = tracker.commands.downgrade();
        let run = move || run_thread(owner, weak_commands, ready);
        let thread = std::thread::Builder::new().name("boundary-usage".into()).spawn(run);
        thread.map_err(cannot_start)?;
        started.await.unwrap_or(Err(Error::Stopped))?;
        Ok(tracker)
    }

    pub(crate) async fn start_local(
        plugin: Plugin,
        grants: Arc<Grants>,
        options: Options,
    ) -> Result<(Self, impl Future<Output = ()> + use<>), Error> {
        let (tracker, owner) = Self::new(plugin, grants, options);
        let instance = owner.instantiate().await?;
        let run = run(owner, instance, tracker.commands.downgrade());
        Ok((tracker, run))
    }

    fn new(plugin: Plugin, grants: Arc<Grants>, options: Options) -> (Self, Owner) {
        let shared = Arc::new(Shared {
            replica: grants.replica,
            shutdown_timeout: options.shutdown_timeout,
            intake: Intake::new(options.intake_capacity),
            counters: Mutex::new(Counters::new()),
            ledger: grants.ledger.clone(),
            keeper: grants.keeper.clone(),
        });
        if let Some(keeper) = &shared.keeper {
            keeper.start(&options);
        }
        let (commands, receiver) = mpsc::channel(1);
        let owner = Owner { plugin, grants, options, shared: shared.clone(), commands: receiver, stop: None };
        (Self { shared, commands }, owner)
    }

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
        if let Some(keeper) = &self.shared.keeper {
            keeper.close(limit).await;
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
        let handed_on = self.shared.intake.handed_on();
        let activities = self.shared.intake.accepted();
        let forgotten_flushes = self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).forgotten_flushes();
        let counters = self.shared.counters();
        TrackerStatus {
            replica: self.shared.replica,
            activities,
            waiting_activities: activities - handed_on,
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
            restarts_in_a_row: counters.restarts_in_a_row,
            last_restart: counters.last_restart.clone(),
            restart_wait_ms: counters.restart_wait.map(|wait| wait.as_millis().try_into().unwrap_or(u64::MAX)),
            stopped: self.commands.is_closed(),
            checkpoint: self.shared.keeper.as_ref().map(|keeper| keeper.status()),
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

impl Counters {
    fn new() -> Self {
        Self {
            flushes: 0,
            idle_flushes: 0,
            failed_flushes: 0,
            flush_durations: FlushDurations::new(),
            written_activities: 0,
            last_success: None,
            restarts: 0,
            restarts_in_a_row: 0,
            last_restart: None,
            restart_wait: None,
            last_error: None,
        }
    }
}

impl Shared {
    /// A flush of the first so many accepted activities went through the component, whatever the database said.
    fn flushed(&self, activities: u64, flushed: &Result<Flushed, Error>, duration: Duration) {
        let mut counters = self.counters();
        counters.restarts_in_a_row = 0;
        match flushed {
            Ok(Flushed::Idle) => counters.idle_flushes += 1,
            Ok(_) => counters.flushes += 1,
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

    /// Answers how long to wait before the component is replaced.
    fn broke(&self, error: &Error) -> Duration {
        let mut counters = self.counters();
        let wait = schedule::restart_wait(counters.restarts_in_a_row);
        counters.restarts += 1;
        counters.restarts_in_a_row += 1;
        counters.last_restart = Some(error.to_string());
        counters.restart_wait = Some(wait);
        wait
    }

    fn replaced(&self) {
        self.counters().restart_wait = None;
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a tracker's thread.
fn run_thread(owner: Owner, commands: mpsc::WeakSender<Command>, ready: oneshot::Sender<Result<(), Error>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // The caller waits for this very answer.
            let _ = ready.send(Err(cannot_start(error)));
            return;
        }
    };
    runtime.block_on(async {
        match owner.instantiate().await {
            Ok(instance) => {
                let _ = ready.send(Ok(()));
                run(owner, instance, commands).await;
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
}

/// A tracker's work until its end: the owner, and beside it the flush loop.
async fn run(owner: Owner, instance: Instance, commands: mpsc::WeakSender<Command>) {
    let keeper = owner.grants.keeper.clone();
    let limit = owner.options.shutdown_timeout;
    let flushing = flush_loop(commands, owner.options.clone(), owner.grants.replica);
    // The flush loop ends when the last handle is gone; the owner then has its last flush to do.
    let flushing = async {
        flushing.await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        biased;
        () = owner.run(instance) => {}
        () = flushing => {}
    }
    // After a shutdown that is done already; it is for a last handle that was dropped without.
    if let Some(keeper) = keeper {
        keeper.close(limit).await;
    }
}

fn cannot_start(error: std::io::Error) -> Error {
    Error::Component { message: "cannot start the tracker's thread".into(), source: Some(error.into()) }
}
