//! A collection: closes the period, and answers what it held.
//!
//! One transaction takes the cutover lock alone, so that no flush is half in this period and half in the next (R8),
//! deletes all rows, writes the summary of exactly those, and commits (C1, D7). From then on the summary waits in
//! the table of periods until its delivery is acknowledged.
//!
//! This is native code on purpose: the sandbox of a proxy never holds the power to delete other replicas' rows.

mod schedule;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tracing::Instrument;
use tracing::field::Empty;

use crate::database::{Database, Lock, LockMode, Purpose, Transaction};
use crate::error::{Error, chain};
use crate::records::{DeletedRow, OpenPeriod};
use crate::summary::{Summary, SummaryBuilder};

/// How to collect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectOptions {
    /// Leave out rows that were not updated for longer than this; the summary says how many. Default: leave out none.
    pub max_staleness: Option<Duration>,
    /// Close the period only if it is at least this old; so that of several collectors the first one closes it, and the
    /// others find it closed. Default: close it whatever its age.
    pub min_age: Option<Duration>,
}

/// What a collection did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    /// It closed the period; the summary waits for its delivery to be acknowledged.
    Closed(Summary),
    /// The period was younger than asked for: another collector has just closed the one before.
    NotDue {
        /// How old the open period is.
        age: Duration,
    },
}

impl Database {
    /// Closes the period and answers its summary: zeros when there was nothing.
    ///
    /// # Errors
    ///
    /// When the database is unavailable, when a flush holds the lock for too long, or when a stored sketch is damaged;
    /// nothing is deleted then. After [`Error::CommitUnknown`] the period may be closed: then its summary is among the
    /// undelivered ones of the [`status`](Self::status).
    pub async fn collect(&self, options: CollectOptions) -> Result<Collection, Error> {
        let span = tracing::info_span!("collection", period = Empty, replicas = Empty, outcome = Empty, error = Empty);
        let outcome = self.close_period(options).instrument(span.clone()).await;
        match &outcome {
            Ok(Collection::Closed(summary)) => span
                .record("period", summary.period_id)
                .record("replicas", summary.replicas)
                .record("outcome", "closed"),
            Ok(Collection::NotDue { .. }) => span.record("outcome", "not due"),
            Err(Error::CommitUnknown { .. }) => span.record("outcome", "unknown"),
            Err(_) => span.record("outcome", "failed"),
        };
        if let Err(error) = &outcome {
            span.record("error", chain(error));
        }
        outcome
    }

    async fn close_period(&self, options: CollectOptions) -> Result<Collection, Error> {
        let mut transaction = self.backend().begin(Purpose::Collection).await?;
        transaction.acquire(Lock::Cutover, LockMode::Exclusive).await?;
        // Only under the lock: another collector may have closed the period while we waited.
        let mut period = transaction.open_period().await?;
        let age = (period.now - period.start).to_std();
        match age {
            Ok(age) if options.min_age.is_some_and(|min_age| age < min_age) => {
                transaction.rollback().await;
                return Ok(Collection::NotDue { age });
            }
            Ok(_) => {}
            // No age says when such a period is due, and a period that ended at its start would pass the start on.
            Err(_) => {
                let (start, now) = (period.start, period.now);
                tracing::warn!(%start, %now, "the open period starts in the future: the clock was ahead; closing it now");
                period.start = now;
            }
        }
        let mut summary = take_all(&mut *transaction, period, options.max_staleness).await?;
        summary.period_id = transaction.insert_period(&summary).await?;
        transaction.commit().await?;
        Ok(Collection::Closed(summary))
    }

    /// Collects whenever the period is `interval` old, until cancelled. Failures are logged as warnings; the loop goes on.
    ///
    /// Any number of collectors may do so: whoever comes first when a period is due closes it (C3), and the others find
    /// the next one open. `options.min_age` is raised to the interval.
    pub async fn collect_every(&self, interval: Duration, options: CollectOptions, clock: crate::Clock) {
        let mut schedule = schedule::Schedule::new(interval);
        let min_age = Some(options.min_age.unwrap_or_default().max(interval));
        loop {
            let outcome = self.collect(CollectOptions { min_age, ..options }).await;
            log(&outcome);
            clock.sleep(schedule.wait_after(&outcome, rand::random())).await;
        }
    }
}

/// A batch is full when its rows take this many bytes: so many that handing it to another thread costs nothing beside
/// their union, and so few that two batches are little memory.
const BATCH_BYTES: usize = 1 << 20;

/// Deletes the rows and sums them. To receive large sketches takes about as long as their union: so while one batch is
/// summed on a thread of its own, the next one comes in. Most periods are less than one, and need no other thread.
async fn take_all(
    transaction: &mut dyn Transaction,
    period: OpenPeriod,
    max_staleness: Option<Duration>,
) -> Result<Summary, Error> {
    let mut summary = SummaryBuilder::new(period, max_staleness);
    let mut rows = transaction.delete_rows();
    let mut batch = next_batch(&mut rows).await?;
    while batch.is_full() {
        let summed = tokio::task::spawn_blocking(move || batch.sum(summary));
        let next = next_batch(&mut rows).await;
        summary = summed.await.expect("to sum rows does not panic")?;
        batch = next?;
    }
    Ok(batch.sum(summary)?.finish())
}

/// Rows that are summed together.
#[derive(Default)]
struct Batch {
    rows: Vec<DeletedRow>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    fn push(&mut self, row: DeletedRow) {
        // Rows without a sketch worth mentioning take room, too.
        self.bytes += size_of::<DeletedRow>() + row.uniques.workspaces.bytes.len() + row.uniques.users.bytes.len();
        self.rows.push(row);
    }

    fn sum(self, mut summary: SummaryBuilder) -> Result<SummaryBuilder, Error> {
        self.rows.iter().try_for_each(|row| summary.add(row))?;
        Ok(summary)
    }
}

/// Only the last batch is not full.
async fn next_batch(rows: &mut BoxStream<'_, Result<DeletedRow, Error>>) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    while !batch.is_full()
        && let Some(row) = rows.next().await
    {
        batch.push(row?);
    }
    Ok(batch)
}

fn log(outcome: &Result<Collection, Error>) {
    match outcome {
        Ok(Collection::Closed(summary)) => tracing::info!(
            period = summary.period_id,
            replicas = summary.replicas,
            unique_workspaces = summary.unique_workspaces,
            unique_users = summary.unique_users,
            "collected"
        ),
        Ok(Collection::NotDue { age }) => tracing::debug!(?age, "the period is not due yet"),
        Err(error) => {
            let cause = std::error::Error::source(error);
            tracing::warn!(%error, cause, "the collection failed; it is tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use uuid::Uuid;

    use super::*;
    use crate::records::{Sketch, Uniques};

    /// A row whose two sketches have these lengths.
    fn row(workspaces: usize, users: usize) -> DeletedRow {
        let set = |length| Sketch { count: 0, bytes: vec![0; length] };
        let uniques = Uniques { workspaces: set(workspaces), users: set(users) };
        DeletedRow { replica: Uuid::nil(), uniques, allowed: 0, denied: 0, updated_at: Utc::now() }
    }

    #[test]
    fn a_batch_counts_the_bytes_of_its_rows_and_sketches() {
        let mut batch = Batch::default();
        batch.push(row(3, 5));
        assert_eq!((batch.rows.len(), batch.bytes), (1, size_of::<DeletedRow>() + 8));
        batch.push(row(0, 0));
        assert_eq!((batch.rows.len(), batch.bytes), (2, 2 * size_of::<DeletedRow>() + 8));
    }

    #[test]
    fn a_batch_is_full_from_a_mebibyte_on() {
        let batch = |bytes| Batch { rows: Vec::new(), bytes };
        assert!(!batch((1 << 20) - 1).is_full());
        assert!(batch(1 << 20).is_full());
    }

    #[tokio::test]
    async fn a_batch_ends_with_the_row_that_fills_it_or_with_the_last_row() {
        let rows = (0..3).map(|_| Ok(row(BATCH_BYTES / 2, 0)));
        let mut rows = futures_util::stream::iter(rows).boxed();
        assert_eq!(next_batch(&mut rows).await.unwrap().rows.len(), 2);
        assert_eq!(next_batch(&mut rows).await.unwrap().rows.len(), 1);
        assert!(next_batch(&mut rows).await.unwrap().rows.is_empty());
    }
}
