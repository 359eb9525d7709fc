//! A tracker that is started while its database is away.
//!
//! What an earlier process left cannot be judged without the database's number of the replica's last flush. So no component
//! runs yet: the ledger records activity, the checkpoint keeps it beside what was left, and every flush fails.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use super::owner::{Command, Owner, Reply, answer};
use crate::error::Error;
use crate::plugin::Grants;
use crate::tracker::Flushed;

/// The pause after the first failed attempt to judge what was left. It doubles after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Owner {
    /// Whether the database is yet to tell what of an earlier process counts.
    pub(super) fn is_waiting(&self) -> bool {
        match &self.grants.keeper {
            Some(keeper) => keeper.is_unjudged(),
            None => !self.grants.database.is_connected(),
        }
    }

    /// Records into the ledger until the database is there. Returns whether to begin: not if the tracker is to end.
    pub(super) async fn wait_for_the_database(&mut self) -> bool {
        let mut judged = pin!(judge_when_connected(self.grants.clone()));
        let mut buffer = Vec::new();
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Flush(reply)) => self.refuse_to_flush(Some(reply), &mut buffer).await,
                    Some(Command::Stop(stop)) => {
                        self.shared.intake.close();
                        let deadline = stop.deadline;
                        if self.grants.database.is_connected() && timeout_at(deadline, &mut judged).await.is_ok() {
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
                () = self.shared.intake.filled() => self.record(&mut buffer).await,
                () = &mut judged => return true,
            }
        }
    }

    /// Records what was accepted before a flush, which fails if there is anything to flush.
    async fn refuse_to_flush(&self, reply: Option<Reply>, buffer: &mut Vec<crate::Activity>) {
        self.record(buffer).await;
        let activities = self.shared.intake.handed_on();
        let left = self.grants.keeper.as_ref().is_some_and(|keeper| keeper.has_unjudged_activity());
        let flushed = if left || self.grants.ledger().has_to_flush() {
            let source = "it has not been reached since the start";
            Err(Error::Unavailable { action: "connecting", source: source.into() })
        } else {
            Ok(Flushed::Idle)
        };
        self.shared.flushed(activities, &flushed, Duration::ZERO);
        answer(reply, flushed);
    }
}

/// Waits for the database, and has the ledger go on from what an earlier process left.
async fn judge_when_connected(grants: Arc<Grants>) {
    let mut pause = FIRST_PAUSE;
    grants.database.connected().await;
    let Some(keeper) = &grants.keeper else { return };
    loop {
        let (keeper, database) = (keeper.clone(), grants.database.clone());
        // The database's work needs the runtime of its connections.
        let judging = grants.database.runtime().spawn(async move { keeper.judge(&database).await });
        let error = match judging.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => Error::Unavailable { action: "reading the last flush", source: panic.into() },
        };
        tracing::warn!(
            replica = %grants.replica, error = &error as &dyn std::error::Error, retry_in = ?pause,
            "cannot judge the checkpoint yet; nothing is flushed until then, and tracking continues"
        );
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
