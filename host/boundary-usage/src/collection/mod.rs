//! The collection, which closes a period and returns its summary.
//!
//! One transaction acquires the exclusive cutover lock, so every flush belongs to exactly one period (R8). The
//! transaction deletes all rows, inserts the summary of exactly these rows, and commits (C1, D7). The summary then
//! waits in the table of periods for the acknowledgement of its delivery.
//!
//! The collection also adds the period to its day of the history (H1), unless the history is switched off.
//!
//! The collection is native code, because the sandbox of a proxy must not be able to delete other replicas' rows.

mod cutover;
mod log;
mod schedule;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tracing::Instrument;
use tracing::field::Empty;
use uuid::Uuid;

use self::log::Log;
use crate::database::{Database, Lock, LockMode, Purpose, Transaction};
use crate::error::{Error, chain};
use crate::history;
use crate::pruning::PruneOptions;
use crate::records::{DeletedRow, OpenPeriod};
use crate::summary::{ClosedPeriod, Summary, SummaryBuilder};

/// Options of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectOptions {
    /// Maximum time since a row's last update. Default: no limit.
    ///
    /// Older rows are deleted but excluded from the sum. The summary reports their number.
    pub max_staleness: Option<Duration>,
    /// Time between cutovers, counted from midnight UTC. Default: none, the period is closed regardless of its age.
    ///
    /// The period stays open unless a multiple of the interval, or midnight, has passed since its start (H2). So only
    /// the first of several collectors closes the period.
    pub interval: Option<Duration>,
    /// Whether to leave the history unchanged. Default: no, the period is added to its day.
    ///
    /// Every collector of a database should have the same value. Otherwise a day lacks some of its periods.
    pub without_history: bool,
    /// The replica that runs [`collect_every`](Database::collect_every), for its log lines. Default: none.
    pub replica: Option<Uuid>,
}

/// The result of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    /// The period was closed, and its summary awaits delivery.
    Closed(Summary),
    /// No cutover has passed since the period's start. Another collector has probably closed the previous period.
    NotDue {
        /// The age of the open period.
        age: Duration,
        /// The time until the next cutover.
        due_in: Duration,
    },
}

impl Database {
    /// Closes the period and returns its summary, with zeros if there are no rows.
    ///
    /// # Errors
    ///
    /// After any error except `CommitUnknown`, the period is open and no row is deleted.
    ///
    /// - [`Error::Unavailable`] if the database is unavailable.
    /// - [`Error::Conflict`] if flushes or another collection hold the lock for too long.
    /// - [`Error::Refused`] if a stored sketch of a row or of the day is damaged, or if the role may not collect.
    /// - [`Error::CommitUnknown`] if the commit has no reply.
    ///   If the period is closed, the [`status`](Self::status) shows its summary as undelivered.
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
        // Another collector may have closed the period during the wait for the lock.
        let mut period = transaction.open_period().await?;
        if period.start > period.now {
            // The next cutover after a start in the future would be too far away. This period therefore starts and ends
            // now, and the next period starts now.
            let (start, now) = (period.start, period.now);
            tracing::warn!(%start, %now, "closing a period that starts in the future, because the clock was ahead");
            period.start = now;
        } else if let Some(due_in) = options.interval.and_then(|interval| cutover::due_in(period, interval)) {
            transaction.rollback().await;
            let age = (period.now - period.start).to_std().unwrap_or_default();
            return Ok(Collection::NotDue { age, due_in });
        }
        let ClosedPeriod { mut summary, uniques } =
            delete_and_sum(&mut *transaction, period, options.max_staleness).await?;
        summary.client_dropped_logs = transaction.delete_client_drops().await?;
        summary.period_id = transaction.insert_period(&summary).await?;
        if !options.without_history && summary.replicas > 0 {
            history::add(&mut *transaction, &summary, uniques, period.now).await?;
        }
        transaction.commit().await?;
        Ok(Collection::Closed(summary))
    }

    /// Collects at each cutover, until the future is dropped.
    ///
    /// The cutovers are the multiples of `interval` counted from midnight UTC, and midnight (H2), by the clock of the
    /// database. Failures are logged as warnings, at most one a minute, and the loop continues. `options.interval` has
    /// no effect. Any number of collectors may run: the first one closes a period that is due (C3), and the others see
    /// that the next one is not due.
    ///
    /// After each collection that closes the last period of a UTC day, the loop prunes. So one collector prunes once a
    /// day. With the default of `prune`, it deletes nothing.
    pub async fn collect_every(
        &self,
        interval: Duration,
        options: CollectOptions,
        prune: PruneOptions,
        clock: crate::Clock,
    ) {
        let mut schedule = schedule::Schedule::new(interval);
        let mut log = Log::new(options.replica);
        loop {
            let outcome = self.collect(CollectOptions { interval: Some(interval), ..options }).await;
            let wait = schedule.wait_after(&outcome, rand::random());
            log.collected(&outcome, wait);
            let prune = async {
                if prune != PruneOptions::default() && ends_a_day(&outcome) {
                    log.pruned(&self.prune(prune).await);
                }
            };
            // A long pruning does not delay the next collection, unless it takes longer than the wait.
            tokio::join!(clock.sleep(wait), prune);
        }
    }
}

/// The size of a full batch, in bytes. Two batches take little memory, and the union of a batch takes far longer than
/// passing the batch to another thread.
const BATCH_BYTES: usize = 1 << 20;

/// Deletes all rows and sums them.
///
/// Receiving large sketches takes about as long as their union. Therefore one batch is summed on another thread while
/// the next one arrives. Most periods fit into one batch and need no other thread.
async fn delete_and_sum(
    transaction: &mut dyn Transaction,
    period: OpenPeriod,
    max_staleness: Option<Duration>,
) -> Result<ClosedPeriod, Error> {
    let mut summary = SummaryBuilder::new(period, max_staleness);
    let mut rows = transaction.delete_rows();
    let mut batch = next_batch(&mut rows).await?;
    while batch.is_full() {
        let summed = tokio::task::spawn_blocking(move || batch.sum(summary));
        let next = next_batch(&mut rows).await;
        summary = summed.await.expect("the sum does not panic")?;
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
        // A row takes memory even with empty sketches.
        self.bytes += size_of::<DeletedRow>() + row.uniques.workspaces.bytes.len() + row.uniques.users.bytes.len();
        self.rows.push(row);
    }

    fn sum(self, mut summary: SummaryBuilder) -> Result<SummaryBuilder, Error> {
        self.rows.iter().try_for_each(|row| summary.add(row))?;
        Ok(summary)
    }
}

/// Receives rows until the batch is full or there are no more. Only the last batch is not full.
async fn next_batch(rows: &mut BoxStream<'_, Result<DeletedRow, Error>>) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    while !batch.is_full()
        && let Some(row) = rows.next().await
    {
        batch.push(row?);
    }
    Ok(batch)
}

/// Returns whether a collection closed the last period of a UTC day. Midnight is a cutover, so every day has one.
fn ends_a_day(outcome: &Result<Collection, Error>) -> bool {
    let Ok(Collection::Closed(summary)) = outcome else { return false };
    summary.period_start.date_naive() < summary.end().date_naive()
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use uuid::Uuid;

    use super::*;
    use crate::records::{Sketch, Uniques};

    /// Returns a row with sketches of these lengths.
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
    fn a_batch_is_full_at_one_mebibyte() {
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
