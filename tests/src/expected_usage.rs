//! The usage that trackers accepted, for comparison with the sum of all periods.
//!
//! Each activity has its own workspace and user. So a lost activity, or one that is counted twice, changes the unique
//! counts and the request counts, even if the two counts are in different periods. The tests have few enough ids that
//! sketches are exact.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use boundary_usage::{Clock, CollectOptions, Database, DatabaseStatus, Options, Tracker};
use tokio::time::timeout;
use uuid::Uuid;

use crate::plugin;

/// Time limit for a wait. A test that reaches it fails.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Unique workspaces, unique users, allowed requests and denied requests.
pub type Totals = [u64; 4];

/// The totals of the activity that trackers accepted.
#[derive(Debug, Default)]
pub struct ExpectedUsage {
    accepted: Totals,
}

impl ExpectedUsage {
    /// Tracks one activity.
    ///
    /// # Panics
    ///
    /// Panics if the tracker does not accept it immediately. The state of the database must not matter.
    pub fn track(&mut self, tracker: &Tracker) {
        let number = self.accepted[0] + 1;
        let (allowed, denied) = (number % 7, number % 3);
        let (workspace, owner) = (Uuid::from_u128(number.into()), Uuid::from_u128(u128::from(number) << 64));
        tracker.try_track(workspace, owner, allowed, denied).expect("a tracker accepts activity in any outage");
        for (total, count) in self.accepted.iter_mut().zip([1, 1, allowed, denied]) {
            *total += count;
        }
    }

    /// Tracks `each` activities in every tracker, in turn.
    pub fn track_many(&mut self, trackers: &[Tracker], each: usize) {
        for _ in 0..each {
            trackers.iter().for_each(|tracker| self.track(tracker));
        }
    }

    /// Tracks and collects until the flushes of all trackers fail with this message.
    ///
    /// A tracker receives its next activity after it has flushed the previous one. The flushes fill the space that a
    /// full disk still has inside its files. So the number of activities does not depend on the speed of the machine.
    ///
    /// # Errors
    ///
    /// Returns an error if the flushes do not fail within the time limit.
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

    /// Collects until the periods contain all accepted activity, and retries after failures.
    ///
    /// # Errors
    ///
    /// Returns an error if the periods contain more than the accepted activity, or less at the time limit.
    pub async fn settle(&self, database: &Database) -> Result<()> {
        let settled = timeout(WAIT_LIMIT, async {
            loop {
                match collected_if_used(database).await {
                    Ok(totals) if totals == self.accepted => return Ok(()),
                    Ok(totals) => {
                        let too_much = totals.iter().zip(self.accepted).any(|(total, accepted)| *total > accepted);
                        ensure!(!too_much, "counted twice: the periods have {totals:?} of {:?}", self.accepted);
                    }
                    Err(error) if error.is_retryable() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        });
        match settled.await {
            Ok(settled) => settled,
            Err(_) => bail!("lost: the periods have {:?} of {:?}", collected(database).await, self.accepted),
        }
    }

    /// Closes the open period, and checks the sum of all periods.
    ///
    /// # Errors
    ///
    /// Returns an error if the sum differs from the accepted activity.
    pub async fn check(&self, database: &Database) -> Result<()> {
        let totals = collected(database).await?;
        ensure!(totals == self.accepted, "the periods have {totals:?} of {:?}", self.accepted);
        Ok(())
    }
}

/// Closes the open period if it has a row, and returns the sum of all closed periods.
///
/// A loop that also closed empty periods would fill a small disk before the first flush of a slow machine.
async fn collected_if_used(database: &Database) -> Result<Totals, boundary_usage::Error> {
    let status = database.full_status().await?;
    if status.rows.is_empty() { Ok(totals(&status)) } else { collected(database).await }
}

/// Closes the open period, and returns the sum of all closed periods.
///
/// The sum comes from the database instead of the returned summaries, because a reply can be lost.
async fn collected(database: &Database) -> Result<Totals, boundary_usage::Error> {
    database.collect(CollectOptions::default()).await?;
    Ok(totals(&database.full_status().await?))
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

/// Starts a tracker that flushes only on request.
///
/// # Errors
///
/// Returns the library's error if the tracker cannot start.
pub async fn manual_tracker(replica: u128, database: &Database) -> Result<Tracker, boundary_usage::Error> {
    let options = Options { clock: Clock::manual().0, ..Options::default() };
    plugin().start(Uuid::from_u128(replica), database.clone(), options).await
}

/// Starts a tracker that flushes every 20 ms.
///
/// # Errors
///
/// Returns the library's error if the tracker cannot start.
pub async fn automatic_tracker(replica: u128, database: &Database) -> Result<Tracker, boundary_usage::Error> {
    let options = Options { flush_interval: Duration::from_millis(20), ..Options::default() };
    plugin().start(Uuid::from_u128(replica), database.clone(), options).await
}

/// Waits until a condition is true.
///
/// The description completes the sentence "still waiting until …".
///
/// # Errors
///
/// Returns an error if the condition fails, or if it is still false at the time limit.
pub async fn until(description: &str, mut is_true: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let waited = timeout(WAIT_LIMIT, async {
        while !is_true().await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    });
    waited.await.unwrap_or_else(|_| bail!("after {WAIT_LIMIT:?}, still waiting until {description}"))
}
