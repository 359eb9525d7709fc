//! One replica: its process is started, tracks and flushes, ends in one way or another, and is started again.

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

/// The memory that a component may use: what it needs for its sketches and snapshots, and little more.
const MEMORY_LIMIT_BYTES: usize = 4 << 20;

pub(super) struct Replica {
    id: Uuid,
    run: Arc<Run>,
    server: Arc<Server>,
    plugin: &'static Plugin,
    options: Options,
    /// How many processes there were before the one that runs.
    processes_before: Cell<u32>,
    /// How often the component of this process may have to be replaced.
    breaks: Cell<u64>,
    process: RefCell<Option<Process>>,
    /// A process is starting or ending.
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
                // Real time must not end a computation: the run would not be the same run again.
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
            breaks: Cell::default(),
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

    /// Waits until what starts or ends has done so.
    pub(super) async fn settled(&self) {
        let settled = async {
            while self.busy.get() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        if timeout(Duration::from_secs(3_600), settled).await.is_err() {
            self.run.model().violated(format!("{}: its process neither starts nor ends", self.id));
        }
    }

    /// Tracks; what is accepted, the model knows.
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
            Err(error) => self.run.model().violated(format!("{}: track answered: {error}", self.id)),
        }
    }

    /// The component, or what watches it, may break once more than so far.
    pub(super) fn may_break(&self) {
        self.breaks.set(self.breaks.get() + 1);
    }

    /// Flushes. `None` when no process runs.
    pub(super) async fn flush(&self) -> Option<Result<Flushed, Error>> {
        let tracker = self.tracker()?;
        let accepted = self.run.model().accepted_so_far(self.id);
        let flushed = tracker.flush().await;
        self.heard(&flushed, accepted, "flush");
        Some(flushed)
    }

    /// The process is shut down in order, as far as the database lets it.
    pub(super) async fn shut_down(&self) {
        let Some(process) = self.take() else { return };
        let accepted = self.run.model().accepted_so_far(self.id);
        let flushed = process.tracker.shutdown().await;
        self.heard(&flushed, accepted, "shutdown");
        self.end(process).await;
    }

    /// The process is gone from one moment to the next.
    pub(super) async fn kill(&self) {
        if let Some(process) = self.take() {
            self.end(process).await;
        }
    }

    /// Nobody holds the tracker any more; it flushes once more and ends.
    pub(super) async fn let_go(&self) {
        let Some(Process { tracker, mut work }) = self.take() else { return };
        // Whoever waits for a flush holds it a little longer.
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
        if restarts > self.breaks.get() {
            let why = tracker.status().last_restart;
            self.run.model().violated(format!("{}: {restarts} restarts, the last one unasked: {why:?}", self.id));
        }
        work.abort();
        self.ended(&work.await);
    }

    fn ended(&self, end: &Result<(), JoinError>) {
        if end.as_ref().is_err_and(JoinError::is_panic) {
            self.run.model().violated(format!("{}: the tracker panicked", self.id));
        }
        self.run.note(self.client(), "ended");
        // Without a checkpoint nothing survives that is not in the database.
        self.run.model().process_ended(self.id, 0);
        self.processes_before.set(self.processes_before.get() + 1);
        self.breaks.set(0);
        self.busy.set(false);
    }

    /// A flush was answered: after a success, all that was accepted before it is in the database.
    fn heard(&self, flushed: &Result<Flushed, Error>, accepted: usize, what: &str) {
        match flushed {
            Ok(flushed) => {
                self.run.note(self.client(), format_args!("{what}: {flushed:?}"));
                self.run.model().flushed(self.id, accepted);
            }
            Err(error) => self.run.note(self.client(), format_args!("{what}: {error}")),
        }
    }
}
