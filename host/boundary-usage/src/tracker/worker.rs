//! The task that owns the component: it forwards activity from the intake and flushes.
//!
//! This task has its own thread and runtime, so a component that computes for too long delays no other work until it is
//! interrupted. A host with a single thread runs the task on that thread and accepts this delay.
//!
//! [`Error::Component`] means that the component has crashed. This error ends the work with this instance.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument;

use super::flush_schedule::Schedule;
use super::{Shared, span};
use crate::activity::Activity;
use crate::capabilities::ReplicaContext;
use crate::component::{Instance, InstanceHandle, Plugin};
use crate::error::Error;
use crate::failed_attempts::FailedAttempts;
use crate::options::Options;
use crate::records::Flushed;

/// The largest number of activities in one call of the component.
const BATCH_MAX: usize = 4_096;

/// The first wait after a failed last flush, which doubles with each failure. This wait is short, because the process
/// waits for the flush before it exits.
const LAST_FLUSH_RETRY_MIN: Duration = Duration::from_millis(50);
const LAST_FLUSH_RETRY_MAX: Duration = Duration::from_secs(1);

pub(super) type Reply = oneshot::Sender<Result<Flushed, Error>>;

pub(super) enum Command {
    /// Flush the activity that was accepted before this command.
    Flush(Reply),
    /// Flush until a flush succeeds or the deadline passes, then end.
    Stop(Stop),
}

pub(super) struct Stop {
    pub(super) deadline: Instant,
    /// `None` if no caller waits for the result.
    pub(super) reply: Option<Reply>,
}

pub(super) struct Worker {
    pub(super) plugin: Plugin,
    pub(super) context: Arc<ReplicaContext>,
    pub(super) options: Options,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Set when the tracker must end.
    pub(super) stop: Option<Stop>,
}

/// Closes the intake, even after a panic, because no task would forward the activity that it accepts later.
impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.intake.close();
        if std::thread::panicking() {
            tracing::error!(
                replica = %self.shared.replica,
                "the tracker's thread panicked and accepts no more activity; unflushed activity is in the checkpoint, \
                 or lost without one; restart the process and report the panic"
            );
        }
    }
}

impl Worker {
    /// Creates an instance of the component.
    pub(super) async fn instantiate(&self) -> Result<Instance, Error> {
        self.plugin.instantiate(self.context.clone(), &self.options).await
    }

    /// Runs until a stop command, or until the last handle is dropped.
    pub(super) async fn run(mut self, instance: Instance) {
        let mut instance = Ok(instance);
        if self.is_waiting() {
            if !self.wait_for_the_database().await {
                return;
            }
            // The first instance started before the checkpoint was validated.
            instance = self.instantiate().await;
        }
        loop {
            let run = match instance {
                Ok(instance) => instance.run(async |component| self.work(component).await).await,
                Err(error) => Err(error),
            };
            let Err(error) = run else { return };
            self.context.ledger().flush_ends();
            let (attempt, wait) = self.shared.crashed(&error);
            let cause = &error as &dyn std::error::Error;
            tracing::error!(
                replica = %self.context.replica, attempt, error = cause, retry_in = ?wait,
                "the component crashed and will be restarted; its activity is kept"
            );
            if let Some(stop) = self.stop.take_if(|stop| Instant::now() + wait >= stop.deadline) {
                send_reply(stop.reply, Err(error));
                return;
            }
            self.record_meanwhile(wait).await;
            instance = self.instantiate().await;
            if instance.is_ok() {
                self.shared.restarted();
            }
        }
    }

    /// Waits before a restart and records activity in the ledger meanwhile. The next instance starts from the ledger.
    async fn record_meanwhile(&self, wait: Duration) {
        let mut buffer = Vec::new();
        let mut waited = pin!(tokio::time::sleep(wait));
        loop {
            tokio::select! {
                biased;
                () = &mut waited => return,
                () = self.shared.intake.ready() => self.record(&mut buffer).await,
            }
        }
    }

    /// Records all activity of the intake in the ledger only.
    pub(super) async fn record(&self, buffer: &mut Vec<Activity>) {
        let recorded = self.shared.intake.drain(buffer, async |activities| {
            self.context.ledger().record(activities);
            Ok::<_, Infallible>(())
        });
        let Ok(()) = recorded.await;
    }

    /// Handles commands and activity until the tracker ends.
    async fn work(&mut self, component: &InstanceHandle<'_>) -> Result<(), Error> {
        let mut buffer = Vec::new();
        while self.stop.is_none() {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Flush(reply)) => {
                        match self.flush(component, &mut buffer).await {
                            Err(crash @ Error::Component { .. }) => return Err(crash),
                            flushed => send_reply(Some(reply), flushed),
                        }
                        // If the caller of the flush runs on this thread, that caller continues first.
                        tokio::task::yield_now().await;
                    }
                    Some(Command::Stop(stop)) => self.stop = Some(stop),
                    // The last handle was dropped without a shutdown.
                    None => {
                        let deadline = Instant::now() + self.options.shutdown_timeout;
                        self.stop = Some(Stop { deadline, reply: None });
                    }
                },
                () = self.shared.intake.ready() => {
                    self.forward(component, &mut buffer).await?;
                }
            }
        }
        self.shared.intake.close();
        self.flush_until_the_deadline(component, &mut buffer).await
    }

    /// Repeats the last flush until it succeeds or the deadline passes. After a crash the next instance continues.
    async fn flush_until_the_deadline(
        &mut self,
        component: &InstanceHandle<'_>,
        buffer: &mut Vec<Activity>,
    ) -> Result<(), Error> {
        let mut wait = LAST_FLUSH_RETRY_MIN;
        let mut failures = FailedAttempts::default();
        loop {
            let flushed = self.flush(component, buffer).await;
            let Some(Stop { deadline, .. }) = self.stop else { return Ok(()) };
            match flushed {
                Err(crash @ Error::Component { .. }) => return Err(crash),
                Err(error) if can_pass(&error) && Instant::now() + wait < deadline => {
                    if let Some(attempt) = failures.failed() {
                        let (replica, error) = (self.shared.replica, &error as &dyn std::error::Error);
                        let left = deadline.saturating_duration_since(Instant::now());
                        tracing::warn!(%replica, attempt, error, ?left, "the last flush failed; it is repeated");
                    }
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2).min(LAST_FLUSH_RETRY_MAX);
                }
                flushed => {
                    let flushed = flushed.map_err(|error| self.with_doubt(error));
                    send_reply(self.stop.take().and_then(|stop| stop.reply), flushed);
                    return Ok(());
                }
            }
        }
    }

    /// Returns the error of the last flush. While an earlier commit is in doubt, the outcome is unknown.
    fn with_doubt(&self, error: Error) -> Error {
        match error {
            Error::CommitUnknown { .. } => error,
            _ if self.context.ledger().state().unflushed.in_doubt.is_none() => error,
            _ => Error::CommitUnknown { source: Box::new(error) },
        }
    }

    /// Flushes the activity that was accepted before the call, within a span.
    async fn flush(&self, component: &InstanceHandle<'_>, buffer: &mut Vec<Activity>) -> Result<Flushed, Error> {
        let span = span::of_flush(self.shared.replica);
        let flushed = self.flush_accepted(component, buffer).instrument(span.clone()).await;
        span::end(&span, &flushed);
        flushed
    }

    async fn flush_accepted(
        &self,
        component: &InstanceHandle<'_>,
        buffer: &mut Vec<Activity>,
    ) -> Result<Flushed, Error> {
        let started = self.options.clock.now();
        self.forward(component, buffer).await?;
        // The flush carries exactly the activities that the component has received so far.
        let activities = self.shared.intake.forwarded();
        let flushed = self.flush_beside_tracking(component, buffer).await;
        if !matches!(flushed, Err(Error::Component { .. })) {
            self.shared.flushed(activities, &flushed, self.options.clock.now().saturating_sub(started));
        }
        flushed
    }

    /// Flushes, and forwards activity to the component while the flush waits.
    async fn flush_beside_tracking(
        &self,
        component: &InstanceHandle<'_>,
        buffer: &mut Vec<Activity>,
    ) -> Result<Flushed, Error> {
        let (notify_taken, mut snapshot_taken) = oneshot::channel();
        let mut flush = pin!(component.flush(notify_taken));
        let mut may_track = false;
        loop {
            tokio::select! {
                biased;
                flushed = &mut flush => return flushed,
                Ok(()) = &mut snapshot_taken, if !may_track => may_track = true,
                // Activity that has left the intake must not be dropped, so a started `forward` always completes.
                () = self.shared.intake.ready(), if may_track => self.forward(component, buffer).await?,
            }
        }
    }

    /// Forwards all activity of the intake to the component.
    async fn forward(&self, component: &InstanceHandle<'_>, buffer: &mut Vec<Activity>) -> Result<(), Error> {
        let drained = self.shared.intake.drain(buffer, async |activities| {
            // The ledger comes first. If the component crashes during a batch, the next instance starts from the
            // ledger.
            self.context.ledger().record(activities);
            for batch in activities.chunks(BATCH_MAX) {
                component.track(batch).await?;
            }
            Ok(())
        });
        drained.await
    }
}

/// Returns whether a later flush can succeed.
fn can_pass(error: &Error) -> bool {
    // A disk that rejects a checkpoint may recover.
    error.is_retryable() || matches!(error, Error::State { .. })
}

/// Sends the result of a command. The caller may have stopped waiting.
pub(super) fn send_reply(reply: Option<Reply>, flushed: Result<Flushed, Error>) {
    if let Some(reply) = reply {
        let _ = reply.send(flushed);
    }
}

/// Requests a flush at every interval, and sooner after a failure, until the last handle is dropped.
pub(super) async fn flush_loop(commands: mpsc::WeakSender<Command>, options: Options, replica: uuid::Uuid) {
    let mut schedule = Schedule::new(options.flush_interval, options.flush_jitter);
    let mut wait = schedule.after_success(rand::random());
    let mut failures = FailedAttempts::default();
    loop {
        options.clock.sleep(wait).await;
        let Some(commands) = commands.upgrade() else { return };
        let (reply, flushed) = oneshot::channel();
        if commands.send(Command::Flush(reply)).await.is_err() {
            return;
        }
        drop(commands);
        wait = match flushed.await {
            Ok(Ok(flushed)) => {
                tracing::debug!(%replica, ?flushed, "flushed");
                if let Some(failed_attempts) = failures.succeeded() {
                    tracing::info!(%replica, failed_attempts, "the flushes succeed again");
                }
                schedule.after_success(rand::random())
            }
            Ok(Err(error)) => {
                let wait = schedule.after_failure(rand::random());
                if let Some(attempt) = failures.failed() {
                    let error = &error as &dyn std::error::Error;
                    let retry_in = wait;
                    tracing::warn!(
                        %replica, attempt, error, ?retry_in,
                        "flush failed; the next flush carries its activity"
                    );
                }
                wait
            }
            // The component crashed, and the worker has logged the crash.
            Err(_) => schedule.after_failure(rand::random()),
        }
    }
}
