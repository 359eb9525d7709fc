//! What replicas were told, beside what all periods together hold: the validate of the tests of outages.
//!
//! Each activity has a workspace and a user of its own, so that one that is lost or counted twice, be it within a period
//! or in two, shows in the uniques as in the requests. Sketches are exact for as many ids as a test has.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use boundary_usage::{Clock, CollectOptions, Database, DatabaseStatus, Options, Tracker};
use tokio::time::timeout;
use uuid::Uuid;

use crate::plugin;

/// A safety net: a test that waits for so long for something has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Workspaces, users, allowed, denied.
pub type Totals = [u64; 4];

/// The activity that trackers accepted.
#[derive(Debug, Default)]
pub struct Accounts {
    accepted: Totals,
}

impl Accounts {
    /// Tracks one activity; the tracker must take it at once, whatever its database does.
    pub fn track(&mut self, tracker: &Tracker) {
        let number = self.accepted[0] + 1;
        let (allowed, denied) = (number % 7, number % 3);
        let (workspace, owner) = (Uuid::from_u128(number.into()), Uuid::from_u128(u128::from(number) << 64));
        tracker.try_track(workspace, owner, allowed, denied).expect("a tracker accepts activity in any outage");
        for (total, count) in self.accepted.iter_mut().zip([1, 1, allowed, denied]) {
            *total += count;
        }
    }

    /// Tracks activities in each tracker in turn.
    pub fn track_many(&mut self, trackers: &[Tracker], each: usize) {
        for _ in 0..each {
            trackers.iter().for_each(|tracker| self.track(tracker));
        }
    }

    /// Tracks and collects until every tracker's last flush has failed with this message. A tracker gets its next
    /// activity when the one before is flushed: what is flushed uses up what room a full disk has left in its files, and
    /// no more than that is tracked, however slow the machine.
    ///
    /// # Errors
    ///
    /// When flushes do not come to fail.
    pub async fn track_until_flushes_fail(
        &mut self,
        trackers: &[Tracker],
        database: &Database,
        message: &str,
    ) -> Result<()> {
        let mut tracked_after = vec![None; trackers.len()];
        until("flushes fail", async || {
            for (tracker, tracked_after) in trackers.iter().zip(&mut tracked_after) {
                let flushes = Some(tracker.status().flushes);
                if *tracked_after != flushes {
                    self.track(tracker);
                    *tracked_after = flushes;
                }
            }
            let _ = database.collect(CollectOptions::default()).await;
            let mut errors = trackers.iter().map(|tracker| tracker.status().last_error);
            Ok(errors.all(|error| error.is_some_and(|error| error.contains(message))))
        })
        .await
    }

    /// Collects whenever there is something to, until the periods hold what was accepted; what fails meanwhile is tried
    /// again.
    ///
    /// # Errors
    ///
    /// When they ever hold more than was accepted, or not all of it in the end.
    pub async fn settle(&self, database: &Database) -> Result<()> {
        let settled = timeout(PATIENCE, async {
            loop {
                match collected_if_used(database).await {
                    Ok(totals) if totals == self.accepted => return Ok(()),
                    Ok(totals) => {
                        let too_much = totals.iter().zip(self.accepted).any(|(total, accepted)| *total > accepted);
                        ensure!(!too_much, "counted twice: {totals:?} of {:?}", self.accepted);
                    }
                    Err(error) if error.is_retryable() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        });
        match settled.await {
            Ok(settled) => settled,
            Err(_) => bail!("lost: {:?} of {:?}", collected(database).await, self.accepted),
        }
    }

    /// Checks that the periods hold exactly what was accepted, once the open one is closed.
    ///
    /// # Errors
    ///
    /// When they do not.
    pub async fn check(&self, database: &Database) -> Result<()> {
        let totals = collected(database).await?;
        ensure!(totals == self.accepted, "{totals:?} of {:?}", self.accepted);
        Ok(())
    }
}

/// Closes the open period if a replica has used it, and sums all that are closed. A loop that closed unused ones, too,
/// would fill a small disk with them before a slow machine's first flush.
async fn collected_if_used(database: &Database) -> Result<Totals, boundary_usage::Error> {
    let status = database.status().await?;
    if status.rows.is_empty() { Ok(totals(&status)) } else { collected(database).await }
}

/// Closes the open period, and sums all that are closed. The sum is the database's, and not that of the summaries that
/// were answered: an answer can be lost.
async fn collected(database: &Database) -> Result<Totals, boundary_usage::Error> {
    database.collect(CollectOptions::default()).await?;
    Ok(totals(&database.status().await?))
}

fn totals(status: &DatabaseStatus) -> Totals {
    let mut totals = Totals::default();
    for period in &status.periods {
        let summary = &period.summary;
        let counts =
            [summary.unique_workspaces, summary.unique_users, summary.allowed_requests, summary.denied_requests];
        totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    }
    totals
}

/// A tracker that flushes when it is told to.
///
/// # Errors
///
/// Whatever the library answers.
pub async fn tracker_by_hand(replica: u128, database: &Database) -> Result<Tracker, boundary_usage::Error> {
    let options = Options { clock: Clock::manual().0, ..Options::default() };
    plugin().start(Uuid::from_u128(replica), database.clone(), options).await
}

/// A tracker that flushes by itself, and often.
///
/// # Errors
///
/// Whatever the library answers.
pub async fn tracker_by_itself(replica: u128, database: &Database) -> Result<Tracker, boundary_usage::Error> {
    let options = Options { flush_interval: Duration::from_millis(20), ..Options::default() };
    plugin().start(Uuid::from_u128(replica), database.clone(), options).await
}

/// Waits until something holds.
///
/// # Errors
///
/// When it cannot be looked up, or does not come to hold.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let waited = timeout(PATIENCE, async {
        while !holds().await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    });
    waited.await.unwrap_or_else(|_| bail!("waited in vain until {what}"))
}
