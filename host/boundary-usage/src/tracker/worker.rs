//! The one task that owns the component: takes what the intake holds, and flushes when told.
//!
//! It runs on a thread of its own, with a runtime of its own: a component that computes too long, until it is
//! interrupted, delays nobody else. A host that has one thread only runs it there, and takes that delay.

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
use crate::options::Options;
use crate::records::Flushed;

/// How many activities cross into the component at once.
const BATCH_MAX: usize = 4_096;

/// The first wait after a last flush that failed; it doubles with every further one. Short, because the process waits.
const LAST_FLUSH_RETRY_MIN: Duration = Duration::from_millis(50);
const LAST_FLUSH_RETRY_MAX: Duration = Duration::from_secs(1);

pub(super) type Reply = oneshot::Sender<Result<Flushed, Error>>;

pub(super) enum Command {
    /// Flush what was accepted before this command.
    Flush(Reply),
    /// Flush until that succeeds, or until the deadline, and end.
    Stop(Stop),
}

pub(super) struct Stop {
    pub(super) deadline: Instant,
    /// `None` if nothing waits for the outcome.
    pub(super) reply: Option<Reply>,
}

pub(super) struct Worker {
    pub(super) plugin: Plugin,
    pub(super) context: Arc<ReplicaContext>,
    pub(super) options: Options,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Set once the tracker is to end.
    pub(super) stop: Option<Stop>,
}

/// Whatever ends the owner, a panic among them: nothing would take what is accepted after that.
impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.intake.close();
        if std::thread::panicking() {
            tracing::error!(
                replica = %self.shared.replica,
                "the tracker's thread panicked; it accepts nothing more, and what it had not flushed is in its checkpoint \
                 or lost: restart the process, and report the panic"
            );
        }
    }
}

/// How a stretch of work with one instance ended.
enum End {
    Stopped,
}

impl Worker {
    /// The first instance.
    pub(super) async fn instantiate(&self) -> Result<Instance, Error> {
        self.plugin.instantiate(self.context.clone(), &self.options).await
    }

    /// Runs until told to stop, or until the last handle is gone.
    pub(super) async fn run(mut self, instance: Instance) {
        let mut instance = Ok(instance);
        if self.is_waiting() {
            if !self.wait_for_the_database().await {
                return;
            }
            // The first one began from nothing.
            instance = self.instantiate().await;
        }
        loop {
            let run = match instance {
                Ok(instance) => instance.run(async |calls| self.work(calls).await).await,
                Err(error) => Err(error),
            };
            let error = match run {
                Ok(End::Stopped) => return,
                Err(error) => error,
            };
            self.context.ledger().flush_ends();
            let wait = self.shared.crashed(&error);
            let cause = &error as &dyn std::error::Error;
            tracing::error!(
                replica = %self.context.replica, error = cause, ?wait,
                "the component broke, and is replaced after a wait"
            );
            if let Some(stop) = self.stop.take_if(|stop| Instant::now() + wait >= stop.deadline) {
                answer(stop.reply, Err(error));
                return;
            }
            self.record_meanwhile(wait).await;
            instance = self.instantiate().await;
            if instance.is_ok() {
                self.shared.restarted();
            }
        }
    }

    /// Waits, and lets the ledger have what is tracked meanwhile: the next instance starts from that.
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

    /// Lets the ledger alone have all that the intake holds now.
    pub(super) async fn record(&self, buffer: &mut Vec<Activity>) {
        let recorded = self.shared.intake.drain(buffer, async |activities| {
            self.context.ledger().record(activities);
            Ok::<_, Infallible>(())
        });
        let Ok(()) = recorded.await;
    }

    /// One event after the other: the end of a flush, a command, activity.
    async fn work(&mut self, calls: &InstanceHandle<'_>) -> Result<End, Error> {
        let mut buffer = Vec::new();
        while self.stop.is_none() {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Flush(reply)) => {
                        let flushed = self.flush(calls, &mut buffer).await?;
                        answer(Some(reply), flushed);
                        // On one thread, whoever asked goes on first.
                        tokio::task::yield_now().await;
                    }
                    Some(Command::Stop(stop)) => self.stop = Some(stop),
                    // The last handle is gone: flush what it left.
                    None => {
                        let deadline = Instant::now() + self.options.shutdown_timeout;
                        self.stop = Some(Stop { deadline, reply: None });
                    }
                },
                () = self.shared.intake.ready() => {
                    self.forward(calls, &mut buffer).await?;
                }
            }
        }
        self.shared.intake.close();
        self.flush_until_the_deadline(calls, &mut buffer).await?;
        Ok(End::Stopped)
    }

    /// Flushes for the last time, as often as it takes. The error is the component's end; the next instance tries again.
    async fn flush_until_the_deadline(
        &mut self,
        calls: &InstanceHandle<'_>,
        buffer: &mut Vec<Activity>,
    ) -> Result<(), Error> {
        let mut wait = LAST_FLUSH_RETRY_MIN;
        loop {
            let flushed = self.flush(calls, buffer).await?;
            let Some(Stop { deadline, .. }) = self.stop else { return Ok(()) };
            match flushed {
                Err(error) if error.is_retryable() && Instant::now() + wait < deadline => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(replica = %self.shared.replica, error, retry_in = ?wait, "the last flush failed");
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2).min(LAST_FLUSH_RETRY_MAX);
                }
                flushed => {
                    let flushed = flushed.map_err(|error| self.with_doubt(error));
                    answer(self.stop.take().and_then(|stop| stop.reply), flushed);
                    return Ok(());
                }
            }
        }
    }

    /// Returns the error of the last flush. An earlier commit without a reply makes its outcome unknown, whatever failed later.
    fn with_doubt(&self, error: Error) -> Error {
        match error {
            Error::CommitUnknown { .. } => error,
            _ if self.context.ledger().account().unflushed.in_doubt.is_none() => error,
            _ => Error::CommitUnknown { source: Box::new(error) },
        }
    }

    /// A flush and its span. The outer error is the component's end.
    async fn flush(
        &self,
        calls: &InstanceHandle<'_>,
        buffer: &mut Vec<Activity>,
    ) -> Result<Result<Flushed, Error>, Error> {
        let span = span::of_flush(self.shared.replica);
        let flushed = self.flush_accepted(calls, buffer).instrument(span.clone()).await;
        span::end(&span, &flushed);
        flushed
    }

    /// Flushes what was accepted before. The outer error is the component's end.
    async fn flush_accepted(
        &self,
        calls: &InstanceHandle<'_>,
        buffer: &mut Vec<Activity>,
    ) -> Result<Result<Flushed, Error>, Error> {
        let begun = self.options.clock.now();
        self.forward(calls, buffer).await?;
        // All that the component has now, and nothing of what it gets meanwhile, is in this flush.
        let activities = self.shared.intake.forwarded();
        let flushed = self.flush_beside_tracking(calls, buffer).await?;
        self.shared.flushed(activities, &flushed, self.options.clock.now().saturating_sub(begun));
        Ok(flushed)
    }

    /// Flushes, and meanwhile hands the component what is tracked. The outer error is the component's end.
    async fn flush_beside_tracking(
        &self,
        calls: &InstanceHandle<'_>,
        buffer: &mut Vec<Activity>,
    ) -> Result<Result<Flushed, Error>, Error> {
        let (tell_taken, mut snapshot_taken) = oneshot::channel();
        let mut flush = pin!(calls.flush(tell_taken));
        let mut may_track = false;
        let flushed = loop {
            tokio::select! {
                biased;
                flushed = &mut flush => break flushed,
                Ok(()) = &mut snapshot_taken, if !may_track => may_track = true,
                // Nothing that was taken from the intake may be dropped half way: once begun, a drain is finished.
                () = self.shared.intake.ready(), if may_track => self.forward(calls, buffer).await?,
            }
        };
        match flushed {
            Err(error @ Error::Component { .. }) => Err(error),
            flushed => Ok(flushed),
        }
    }

    /// Hands the component all that the intake holds now.
    async fn forward(&self, calls: &InstanceHandle<'_>, buffer: &mut Vec<Activity>) -> Result<(), Error> {
        let drained = self.shared.intake.drain(buffer, async |activities| {
            // All of it first: if the component breaks at one batch, its successor starts from the ledger.
            self.context.ledger().record(activities);
            for batch in activities.chunks(BATCH_MAX) {
                calls.track(batch).await?;
            }
            Ok(())
        });
        drained.await
    }
}

/// Replies to the caller of a command, who may no longer wait.
pub(super) fn answer(reply: Option<Reply>, flushed: Result<Flushed, Error>) {
    if let Some(reply) = reply {
        let _ = reply.send(flushed);
    }
}

/// Asks for a flush at every interval, and sooner after one that failed, as long as anyone holds the tracker.
pub(super) async fn flush_loop(commands: mpsc::WeakSender<Command>, options: Options, replica: uuid::Uuid) {
    let mut schedule = Schedule::new(options.flush_interval, options.flush_jitter);
    let mut wait = schedule.after_success(rand::random());
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
                schedule.after_success(rand::random())
            }
            Ok(Err(error)) => {
                let wait = schedule.after_failure(rand::random());
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%replica, error, retry_in = ?wait, "flush failed; its activity goes out with the next one");
                wait
            }
            // The component broke, and the owner has said so.
            Err(_) => schedule.after_failure(rand::random()),
        }
    }
}
