//! The worker before the first connection to the database.
//!
//! The checkpoint of an earlier process cannot be validated without the replica's last flush number in the database.
//! Until then no component runs. The ledger records activity, the checkpoint stores it as offline activity, and every
//! flush fails.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use super::worker::{Command, Reply, Worker, send_reply};
use crate::capabilities::ReplicaContext;
use crate::error::Error;
use crate::failed_attempts::FailedAttempts;
use crate::records::Flushed;

/// The wait after the first failed attempt to validate the checkpoint. This wait doubles after each further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest wait between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Worker {
    /// Returns whether the tracker still waits for the database.
    ///
    /// A tracker with a checkpoint also waits until the checkpoint is validated.
    pub(super) fn is_waiting(&self) -> bool {
        match &self.context.checkpoint_writer {
            Some(writer) => writer.is_unvalidated(),
            None => !self.context.database.is_connected(),
        }
    }

    /// Records activity in the ledger while the tracker waits. Returns `false` if the tracker must stop before that.
    pub(super) async fn wait_for_the_database(&mut self) -> bool {
        let mut validated = pin!(validate_when_connected(self.context.clone()));
        let mut buffer = Vec::new();
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Flush(reply)) => self.refuse_to_flush(Some(reply), &mut buffer).await,
                    Some(Command::Stop(stop)) => {
                        self.shared.intake.close();
                        let deadline = stop.deadline;
                        if self.context.database.is_connected() && timeout_at(deadline, &mut validated).await.is_ok() {
                            self.stop = Some(stop);
                            return true;
                        }
                        self.refuse_to_flush(stop.reply, &mut buffer).await;
                        return false;
                    }
                    None => {
                        self.shared.intake.close();
                        self.refuse_to_flush(None, &mut buffer).await;
                        return false;
                    }
                },
                () = self.shared.intake.ready() => self.record(&mut buffer).await,
                () = &mut validated => return true,
            }
        }
    }

    /// Records accepted activity and replies to a flush. The flush fails if there is anything to write.
    async fn refuse_to_flush(&self, reply: Option<Reply>, buffer: &mut Vec<crate::Activity>) {
        self.record(buffer).await;
        let activities = self.shared.intake.forwarded();
        let left = self.context.checkpoint_writer.as_ref().is_some_and(|writer| writer.has_unvalidated_activity());
        let flushed = if left || self.context.ledger().has_to_flush() {
            let source = "it has been unreachable since the start";
            Err(Error::Unavailable { action: "connecting", source: source.into() })
        } else {
            Ok(Flushed::Idle)
        };
        self.shared.flushed(activities, &flushed, Duration::ZERO);
        send_reply(reply, flushed);
    }
}

/// Waits for the database, and adds the valid part of an earlier process's checkpoint to the ledger.
async fn validate_when_connected(context: Arc<ReplicaContext>) {
    let mut pause = FIRST_PAUSE;
    let mut failures = FailedAttempts::default();
    context.database.connected().await;
    let Some(writer) = &context.checkpoint_writer else { return };
    loop {
        let (writer, database) = (writer.clone(), context.database.clone());
        // The database's work needs the runtime of its connections.
        let validation = context.database.runtime().spawn(async move { writer.validate(&database).await });
        let error = match validation.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => Error::Unavailable { action: "reading the last flush", source: panic.into() },
        };
        if let Some(attempt) = failures.failed() {
            tracing::warn!(
                replica = %context.replica, attempt, error = &error as &dyn std::error::Error, retry_in = ?pause,
                "cannot validate the checkpoint yet; nothing is flushed until then, and tracking continues"
            );
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
