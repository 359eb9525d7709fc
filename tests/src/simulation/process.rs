//! A replica, whose process starts, flushes, ends in several ways, and starts again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Activity, Clock, Database, Error, Flushed, Options, Plugin, TrackError, Tracker};
use tokio::task::{JoinError, JoinHandle, spawn_local};
use tokio::time::timeout;
use uuid::Uuid;

use super::database::{Client, Server};
use super::run::Run;
use super::schedule::Fault;

/// The memory limit of a component.
///
/// It suffices for the component's sketches and snapshots with a small margin.
const MEMORY_LIMIT_BYTES: usize = 4 << 20;

pub(super) struct Replica {
    id: Uuid,
    run: Arc<Run>,
    server: Arc<Server>,
    plugin: &'static Plugin,
    options: Options,
    /// The number of earlier processes.
    processes_before: Cell<u32>,
    /// The highest allowed number of restarts of this process's component.
    restarts_max: Cell<u64>,
    process: RefCell<Option<Process>>,
    /// Whether the process is starting or ending.
    busy: Cell<bool>,
}

struct Process {
    tracker: Tracker,
    work: JoinHandle<()>,
}

impl Replica {
    pub(super) fn new(number: u64, server: &Arc<Server>, plugin: &'static Plugin) -> Rc<Self> {
        let run = server.run.clone();
        let options = {
            let mut schedule = run.schedule();
            Options {
                flush_interval: Duration::from_secs(5) + schedule.milliseconds(60_000),
                flush_jitter: 0.0,
                flush_timeout: Duration::from_secs(10),
                shutdown_timeout: Duration::from_secs(10),
                intake_capacity: schedule.pick(&[4, 64, 65_536]),
                memory_limit_bytes: MEMORY_LIMIT_BYTES,
                // The real clock must not interrupt a computation, because the run would not be repeatable.
                cpu_limit: Duration::from_secs(24 * 3600),
                clock: Clock::system(),
                ..Options::default()
            }
        };
        Rc::new(Self {
            id: Uuid::from_u128(u128::from(number)),
            run,
            server: server.clone(),
            plugin,
            options,
            processes_before: Cell::default(),
            restarts_max: Cell::default(),
            process: RefCell::default(),
            busy: Cell::default(),
        })
    }

    fn client(&self) -> Client {
        Client::Replica { id: self.id, process: self.processes_before.get() }
    }

    fn database(&self) -> Database {
        self.server.connect(self.client())
    }

    fn tracker(&self) -> Option<Tracker> {
        self.process.borrow().as_ref().map(|process| process.tracker.clone())
    }

    pub(super) async fn start(&self) {
        if self.busy.replace(true) {
            return;
        }
        if self.process.borrow().is_none() {
            match self.plugin.start_local(self.id, self.database(), self.options.clone()).await {
                Ok((tracker, work)) => {
                    self.run.note(self.client(), "started");
                    let process = Process { tracker, work: spawn_local(work) };
                    self.process.replace(Some(process));
                }
                Err(error) => self.run.model().violated(format!("{}: cannot start: {error}", self.id)),
            }
        }
        self.busy.set(false);
    }

    /// Waits until the process is neither starting nor ending.
    pub(super) async fn settled(&self) {
        let settled = async {
            while self.busy.get() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        if timeout(Duration::from_secs(3_600), settled).await.is_err() {
            self.run.model().violated(format!("{}: its process did not finish its start or end", self.id));
        }
    }

    /// Tracks an activity, and records it in the model if the tracker accepts it.
    pub(super) fn track(&self, activity: Activity) {
        let Some(tracker) = self.tracker() else { return };
        let Activity { workspace, owner, allowed, denied } = activity;
        match tracker.try_track(workspace, owner, allowed, denied) {
            Ok(()) => {
                self.run.note(self.client(), format_args!("track A{allowed} D{denied}"));
                self.run.model().accepted(self.id, activity);
            }
            Err(TrackError::Full { .. }) => {
                self.run.note(self.client(), "FAULT IntakeFull");
                self.run.schedule().struck(Fault::IntakeFull);
            }
            Err(error) => self.run.model().violated(format!("{}: track failed: {error}", self.id)),
        }
    }

    /// Allows one more restart of the component.
    pub(super) fn allow_restart(&self) {
        self.restarts_max.set(self.restarts_max.get() + 1);
    }

    /// Flushes. Returns `None` if no process runs.
    pub(super) async fn flush(&self) -> Option<Result<Flushed, Error>> {
        let tracker = self.tracker()?;
        let accepted = self.run.model().accepted_so_far(self.id);
        let flushed = tracker.flush().await;
        self.record_flush(&flushed, accepted, "flush");
        Some(flushed)
    }

    /// Shuts the tracker down, and ends the process.
    pub(super) async fn shut_down(&self) {
        let Some(process) = self.take() else { return };
        let accepted = self.run.model().accepted_so_far(self.id);
        let flushed = process.tracker.shutdown().await;
        self.record_flush(&flushed, accepted, "shutdown");
        self.end(process).await;
    }

    /// Ends the process without a shutdown.
    pub(super) async fn kill(&self) {
        if let Some(process) = self.take() {
            self.end(process).await;
        }
    }

    /// Drops the handle of the tracker, which then flushes and ends.
    pub(super) async fn drop_handle(&self) {
        let Some(Process { tracker, mut work }) = self.take() else { return };
        // A task that waits for a flush still has a handle until its flush ends.
        drop(tracker);
        let ended = timeout(Duration::from_secs(120), &mut work).await;
        let ended = match ended {
            Ok(ended) => ended,
            Err(_) => {
                work.abort();
                work.await
            }
        };
        self.ended(&ended);
    }

    fn take(&self) -> Option<Process> {
        if self.busy.get() {
            return None;
        }
        let process = self.process.take();
        self.busy.set(process.is_some());
        process
    }

    async fn end(&self, Process { tracker, work }: Process) {
        let restarts = tracker.status().restarts;
        if restarts > self.restarts_max.get() {
            let reason = tracker.status().last_restart;
            self.run.model().violated(format!("{}: {restarts} restarts, the last one unexpected: {reason:?}", self.id));
        }
        work.abort();
        self.ended(&work.await);
    }

    fn ended(&self, end: &Result<(), JoinError>) {
        if end.as_ref().is_err_and(JoinError::is_panic) {
            self.run.model().violated(format!("{}: the tracker panicked", self.id));
        }
        self.run.note(self.client(), "ended");
        // The simulation has no checkpoints, so only committed activity survives.
        self.run.model().process_ended(self.id, 0);
        self.processes_before.set(self.processes_before.get() + 1);
        self.restarts_max.set(0);
        self.busy.set(false);
    }

    /// Records the result of a flush.
    ///
    /// After a success, the database must contain the first `accepted` activities.
    fn record_flush(&self, flushed: &Result<Flushed, Error>, accepted: usize, action: &str) {
        match flushed {
            Ok(flushed) => {
                self.run.note(self.client(), format_args!("{action}: {flushed:?}"));
                self.run.model().flushed(self.id, accepted);
            }
            Err(error) => self.run.note(self.client(), format_args!("{action}: {error}")),
        }
    }
}
