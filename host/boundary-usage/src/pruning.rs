//! Pruning: deletes old periods, idle replicas and old days, so that no table grows without a limit.
//!
//! Each batch is a short transaction of its own, and a pause follows that is as long as the batch. So flushes and
//! collections never wait long. A pruning that fails halfway has deleted complete batches, and the next one continues.
//!
//! Days are deleted under the exclusive cutover lock, because a collection adds its period to a day. The transaction
//! that deletes days also adds them to the merged set of the pruned days (H6). Periods and replicas need no lock: no
//! collection reads an old period, and a flush that is under way gives its replica a new time.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use tokio::time::Instant;

use crate::database::{Database, Lock, LockMode, PruneLimits, Pruned, Purpose};
use crate::error::Error;
use crate::history;
use crate::records::OpenPeriod;

/// The shortest age at which something may be deleted: the longest flush interval.
const AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The number of periods or replicas in a batch, whose deletion takes some hundredths of a second.
const ROWS: u32 = 5_000;

/// The number of days in a batch. Their sketches have at most 4 MB.
const DAYS: u32 = 16;

/// What a pruning deletes. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Age of closed periods, counted from their end. The newest period always stays.
    pub periods_older_than: Option<Duration>,
    /// Whether undelivered periods of that age are deleted, too.
    pub undelivered: bool,
    /// Time since the last flush of a replica.
    ///
    /// The number of the last flush is deleted, too. A checkpoint of the replica that returns later can count a flush
    /// twice, if that flush was in doubt. So the time must be longer than a stopped replica can be away.
    pub replicas_idle_for: Option<Duration>,
    /// Age of days, counted from their end. Reports no longer show these days, and their ids stay known.
    pub days_older_than: Option<Duration>,
}

/// The next batch.
#[derive(Clone, Copy)]
enum Batch {
    Periods { ended_before: DateTime<Utc>, undelivered: bool },
    Replicas { idle_since: DateTime<Utc> },
    Days { before: NaiveDate },
}

impl PruneOptions {
    /// Converts the ages to times.
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if an age is shorter than a day.
    fn limits(&self, open: OpenPeriod) -> Result<PruneLimits, Error> {
        let ages = [self.periods_older_than, self.replicas_idle_for, self.days_older_than];
        if let Some(age) = ages.into_iter().flatten().find(|age| *age < AGE_MIN) {
            let message = format!("nothing younger than 24 h can be pruned, and the given age is {age:?}");
            return Err(Error::Configuration { message });
        }
        // An age that exceeds the calendar deletes nothing.
        let ago = |age: Duration| open.now.checked_sub_signed(TimeDelta::from_std(age).ok()?);
        let days_before = self.days_older_than.and_then(ago).map(|time| time.date_naive());
        Ok(PruneLimits {
            periods_ended_before: self.periods_older_than.and_then(ago),
            undelivered: self.undelivered,
            replicas_idle_since: self.replicas_idle_for.and_then(ago),
            // The next collection adds the open period to the day of its start.
            days_before: days_before.map(|date| date.min(open.start.date_naive())),
        })
    }
}

impl Database {
    /// Deletes old periods, idle replicas and old days, in short transactions.
    ///
    /// Deleted days become one merged set, so that their ids never count as new again.
    ///
    /// # Errors
    ///
    /// After an error, complete batches are deleted. The next call continues.
    ///
    /// - [`Error::Configuration`] if an age is shorter than a day.
    /// - [`Error::Refused`] if a sketch of a day is damaged, or if the role may not prune.
    /// - Any other error of the backend if the database cannot be changed.
    pub async fn prune(&self, options: PruneOptions) -> Result<Pruned, Error> {
        let (limits, prunable) = self.prunable_within(options).await?;
        let mut pruned = Pruned { undelivered_kept: prunable.undelivered_kept, ..Pruned::default() };
        let undelivered = limits.undelivered;
        let periods = limits.periods_ended_before.map(|ended_before| Batch::Periods { ended_before, undelivered });
        let replicas = limits.replicas_idle_since.map(|idle_since| Batch::Replicas { idle_since });
        let days = limits.days_before.map(|before| Batch::Days { before });
        for (batch, deleted) in
            [(periods, &mut pruned.periods), (replicas, &mut pruned.replicas), (days, &mut pruned.days)]
        {
            if let Some(batch) = batch {
                *deleted = self.delete_all(batch).await?;
            }
        }
        Ok(pruned)
    }

    /// Counts what [`Database::prune`] would delete, and deletes nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if an age is shorter than a day.
    /// - Any error of the backend if the database cannot be read.
    pub async fn prunable(&self, options: PruneOptions) -> Result<Pruned, Error> {
        Ok(self.prunable_within(options).await?.1)
    }

    async fn prunable_within(&self, options: PruneOptions) -> Result<(PruneLimits, Pruned), Error> {
        let mut transaction = self.backend().begin(Purpose::Report).await?;
        let limits = options.limits(transaction.open_period().await?)?;
        let prunable = transaction.count_prunable(&limits).await?;
        transaction.rollback().await;
        Ok((limits, prunable))
    }

    /// Deletes batches until one is not full, and returns the number of deleted rows.
    async fn delete_all(&self, batch: Batch) -> Result<u64, Error> {
        let mut all = 0;
        loop {
            let start = Instant::now();
            let deleted = self.delete(batch).await?;
            all += deleted;
            if deleted < u64::from(batch.size()) {
                return Ok(all);
            }
            // Other transactions get the locks in half of the time.
            tokio::time::sleep(start.elapsed()).await;
        }
    }

    async fn delete(&self, batch: Batch) -> Result<u64, Error> {
        let mut transaction = self.backend().begin(Purpose::Collection).await?;
        let deleted = match batch {
            Batch::Periods { ended_before, undelivered } => {
                transaction.delete_periods(ended_before, undelivered, batch.size()).await?
            }
            Batch::Replicas { idle_since } => transaction.delete_replicas(idle_since, batch.size()).await?,
            Batch::Days { before } => {
                transaction.acquire(Lock::Cutover, LockMode::Exclusive).await?;
                history::merge_days(&mut *transaction, before, batch.size()).await?
            }
        };
        transaction.commit().await?;
        Ok(deleted)
    }
}

impl Batch {
    fn size(self) -> u32 {
        match self {
            Self::Periods { .. } | Self::Replicas { .. } => ROWS,
            Self::Days { .. } => DAYS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn limits(options: PruneOptions, start: &str) -> Result<PruneLimits, Error> {
        let now = "2026-03-10T12:00:00Z".parse().unwrap();
        options.limits(OpenPeriod { start: start.parse().unwrap(), now, has_usage: true })
    }

    #[test]
    fn ages_become_times_of_the_database() {
        let age = Some(2 * DAY);
        let options =
            PruneOptions { periods_older_than: age, undelivered: true, replicas_idle_for: age, days_older_than: age };
        let limits = limits(options, "2026-03-10T11:30:00Z").unwrap();
        let time = "2026-03-08T12:00:00Z".parse().ok();
        assert_eq!((limits.periods_ended_before, limits.replicas_idle_since), (time, time));
        // The day before 8 March ended more than two days ago.
        assert_eq!((limits.days_before, limits.undelivered), ("2026-03-08".parse().ok(), true));
    }

    #[test]
    fn the_day_of_the_open_period_and_later_ones_are_never_pruned() {
        let options = PruneOptions { days_older_than: Some(2 * DAY), ..PruneOptions::default() };
        let limits = limits(options, "2026-02-01T23:00:00Z").unwrap();
        assert_eq!(limits.days_before, "2026-02-01".parse().ok());
    }

    #[test]
    fn nothing_is_deleted_by_default_and_nothing_younger_than_a_day() {
        assert_eq!(limits(PruneOptions::default(), "2026-03-10T00:00:00Z").unwrap(), PruneLimits::default());
        for age in [Duration::ZERO, DAY - Duration::from_millis(1)] {
            let too_short = [
                PruneOptions { periods_older_than: Some(age), ..PruneOptions::default() },
                PruneOptions { replicas_idle_for: Some(age), ..PruneOptions::default() },
                PruneOptions { days_older_than: Some(age), ..PruneOptions::default() },
            ];
            for options in too_short {
                assert!(matches!(limits(options, "2026-03-10T00:00:00Z"), Err(Error::Configuration { .. })));
            }
        }
        let endless = PruneOptions { replicas_idle_for: Some(Duration::MAX), ..PruneOptions::default() };
        assert_eq!(limits(endless, "2026-03-10T00:00:00Z").unwrap(), PruneLimits::default());
    }
}
