//! A tracker on a thread of its own, which also works for its database.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use boundary_usage::{
    CompileCache, CompileOptions, Connecting, Database, Error, FailedAttempts, FirstConnection, Plugin, TrackerStatus,
    stored_replica,
};
use serde::Serialize;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::options::Options;
use crate::slots::Slot;
use crate::status::{Failure, Status};
use crate::{log, process};

/// A running tracker.
pub struct Tracker {
    /// The process that has started it.
    generation: u32,
    tracker: boundary_usage::Tracker,
    connection: Connection,
    runtime: Handle,
    /// The thread ends after this is dropped.
    release: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// The database, and the progress of its first connection.
#[derive(Clone)]
struct Connection {
    database: Database,
    progress: Arc<Connecting>,
}

/// The status of a tracker and of its database.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    #[serde(flatten)]
    tracker: TrackerStatus,
    database_connected: bool,
    /// The error of the last failed attempt, until the first connection.
    connection_error: Option<String>,
}

impl Tracker {
    /// Starts a tracker. Blocks until it runs.
    pub(crate) fn start(options: &Options) -> Result<Self, Failure> {
        log::start();
        process::watch_forks();
        options.check()?;
        let options = options.clone();
        let (ready, started) = oneshot::channel();
        let name = || std::thread::Builder::new().name("boundary-usage".into());
        let thread = process::without_signals(|| name().spawn(move || run_thread(&options, ready)));
        let thread = thread.map_err(|error| Failure::internal(format!("cannot start a thread: {error}")))?;
        let started = started.blocking_recv().unwrap_or_else(|_| Err(Failure::internal("the thread has panicked")));
        match started {
            Ok((tracker, connection, runtime, release)) => {
                Ok(Self { generation: process::generation(), tracker, connection, runtime, release, thread })
            }
            Err(failure) => {
                let _ = thread.join();
                Err(failure)
            }
        }
    }

    /// Returns whether this process has started the tracker, and not its parent.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.generation == process::generation()
    }

    pub(crate) fn track(&self, workspace: Uuid, owner: Uuid, allowed: u64, denied: u64) -> Result<(), Failure> {
        Ok(self.tracker.track(workspace, owner, allowed, denied)?)
    }

    pub(crate) fn try_track(&self, workspace: Uuid, owner: Uuid, allowed: u64, denied: u64) -> Result<(), Failure> {
        Ok(self.tracker.try_track(workspace, owner, allowed, denied)?)
    }

    pub(crate) fn flush(&self) -> Result<(), Failure> {
        Ok(self.runtime.block_on(self.tracker.flush()).map(drop)?)
    }

    pub(crate) fn shutdown(&self) -> Result<(), Failure> {
        Ok(self.runtime.block_on(self.tracker.shutdown()).map(drop)?)
    }

    pub(crate) fn status_json(&self) -> Result<String, Failure> {
        let database_connected = self.connection.database.is_connected();
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            tracker: self.tracker.status(),
            database_connected,
            connection_error: self.connection.progress.failure().filter(|_| !database_connected),
        };
        serde_json::to_string(&report).map_err(Failure::internal)
    }

    /// Stops the tracker and waits for its threads.
    pub(crate) fn free(self: Box<Self>) {
        if !self.is_of_this_process() {
            // Its threads, and the locks that they may hold, are in the parent process.
            std::mem::forget(self);
            return;
        }
        // After a shutdown this is an error and does nothing. Otherwise a failure is in the log.
        let _ = self.shutdown();
        let Self { tracker, connection, runtime, release, thread, .. } = *self;
        drop((tracker, connection, runtime, release));
        let _ = thread.join();
    }
}

type Started = (boundary_usage::Tracker, Connection, Handle, oneshot::Sender<()>);

/// Runs a tracker on the current thread until it ends.
fn run_thread(options: &Options, ready: oneshot::Sender<Result<Started, Failure>>) {
    let runtime = Builder::new_current_thread().enable_all().thread_name("boundary-usage").build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(options, ready)),
        Err(error) => {
            let _ = ready.send(Err(Failure::internal(format!("cannot create the runtime: {error}"))));
        }
    }
}

async fn run(options: &Options, ready: oneshot::Sender<Result<Started, Failure>>) {
    let parts = match Parts::prepare(options).await {
        Ok(parts) => parts,
        Err(failure) => {
            let _ = ready.send(Err(failure));
            return;
        }
    };
    let Parts { plugin, connection, unconnected, replica, slot, tracker_options } = parts;
    let database = connection.database.clone();
    let recovery_options = tracker_options.clone();
    let (tracker, work) = match plugin.start_local(replica, database.clone(), tracker_options).await {
        Ok(started) => started,
        Err(error) => {
            database.close().await;
            let _ = ready.send(Err(error.into()));
            return;
        }
    };
    let (release, released) = oneshot::channel();
    let _ = ready.send(Ok((tracker, connection, Handle::current(), release)));
    let beside = async {
        if let Some(unconnected) = unconnected
            && let Err(error) = unconnected.connect_to(&database).await
        {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::error!(error, "cannot use the database; activity is kept in the checkpoint until a restart");
            return pending().await;
        }
        match (&slot, &options.state_directory) {
            (Some(_), Some(directory)) => flush_other_slots(&plugin, &database, directory, &recovery_options).await,
            _ => pending().await,
        }
    };
    tokio::select! {
        biased;
        () = work => {}
        () = beside => {}
    }
    database.close().await;
    // After the work has ended, a shutdown on the caller's thread still writes its last checkpoint on this runtime.
    let _ = released.await;
}

/// The parts of a tracker before its start.
struct Parts {
    plugin: Plugin,
    connection: Connection,
    unconnected: Option<FirstConnection>,
    replica: Uuid,
    slot: Option<Slot>,
    tracker_options: boundary_usage::Options,
}

impl Parts {
    async fn prepare(options: &Options) -> Result<Self, Failure> {
        let url = options.database()?;
        let plugin = load(options)?;
        let shared_directory = options.state_directory.as_deref();
        let slot = shared_directory.filter(|_| options.has_slots).map(claim).transpose()?;
        let directory = slot.as_ref().map(Slot::directory).or(shared_directory);
        let replica = match (options.replica, directory) {
            (Some(replica), _) => replica,
            (None, Some(directory)) => stored_replica(directory)?,
            (None, None) => Uuid::new_v4(),
        };
        let mut tracker_options = options.tracker.clone();
        tracker_options.state_directory = directory.map(Path::to_owned);
        let progress = Arc::<Connecting>::default();
        let first = FirstConnection::start(url, shared_directory, progress.clone(), || {})?;
        let connected = tokio::select! {
            biased;
            connected = first.database() => connected?,
            () = progress.down() => return Err(unreachable_database(&progress)),
        };
        let (database, unconnected) = connected;
        let connection = Connection { database, progress };
        Ok(Self { plugin, connection, unconnected, replica, slot, tracker_options })
    }
}

fn claim(state_directory: &Path) -> Result<Slot, Failure> {
    Slot::claim(state_directory).map_err(|error| Failure {
        status: Status::BoundaryUsageState,
        message: format!("cannot use {} for slots: {error}", state_directory.display()),
    })
}

/// Compiles the component, or loads it from the cache.
fn load(options: &Options) -> Result<Plugin, Failure> {
    // A server's user often has no home directory.
    let cache = match &options.state_directory {
        Some(directory) => CompileCache::Directory(directory.join("compiled")),
        None => CompileCache::User,
    };
    let compile_options = CompileOptions { cache, signal_handlers: false };
    let bytes = match &options.component {
        None => return Ok(Plugin::with_options(Plugin::embedded_bytes(), &compile_options)?),
        Some(path) => std::fs::read(path).map_err(|error| Failure {
            status: Status::BoundaryUsageComponent,
            message: format!("cannot read the component {}: {error}", path.display()),
        })?,
    };
    Ok(Plugin::with_options(&bytes, &compile_options)?)
}

fn unreachable_database(progress: &Connecting) -> Failure {
    let reason = progress.failure().unwrap_or_else(|| "no reply within 2 s".to_owned());
    let message = format!("{reason}; state-dir has no hashing key of an earlier connection, so try again later");
    Failure { status: Status::BoundaryUsageUnavailable, message }
}

/// The shortest time between two searches for slots with unflushed activity.
const SEARCH_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Flushes the activity of processes that have ended without a last flush, again and again.
async fn flush_other_slots(plugin: &Plugin, database: &Database, directory: &Path, options: &boundary_usage::Options) {
    let mut failures = FailedAttempts::default();
    loop {
        match Slot::claim_unflushed(directory) {
            Ok(Some(slot)) => {
                let flushed = flush_slot(plugin, database, &slot, options).await;
                let slot = slot.directory().display();
                match flushed {
                    Ok(()) => {
                        failures.succeeded();
                        tracing::info!(%slot, "flushed the activity of a process that has ended");
                        continue;
                    }
                    Err(error) => {
                        if let Some(attempt) = failures.failed() {
                            let error = format!("{:#}", anyhow::Error::from(error));
                            tracing::warn!(%slot, attempt, error, "cannot flush a slot; repeating it later");
                        }
                    }
                }
            }
            Ok(None) => {}
            Err(error) => {
                if let Some(attempt) = failures.failed() {
                    let directory = directory.display();
                    tracing::warn!(%directory, attempt, %error, "cannot search the slots; repeating it later");
                }
            }
        }
        tokio::time::sleep(options.flush_interval.max(SEARCH_INTERVAL_MIN)).await;
    }
}

/// Starts the tracker of a slot, which restores its activity, and stops it after a flush.
async fn flush_slot(
    plugin: &Plugin,
    database: &Database,
    slot: &Slot,
    options: &boundary_usage::Options,
) -> Result<(), Error> {
    let mut options = options.clone();
    options.state_directory = Some(slot.directory().to_owned());
    let replica = stored_replica(slot.directory())?;
    let (tracker, work) = plugin.start_local(replica, database.clone(), options).await?;
    let ((), stopped) = tokio::join!(work, tracker.shutdown());
    stopped.map(drop)
}
