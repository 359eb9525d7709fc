//! The summary of a period, and its computation from the deleted rows, without I/O.

use std::time::Duration;

use boundary_usage_tracker::CompactThetaSketch;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::records::{DeletedRow, OpenPeriod, Sketch, Uniques};

/// The largest count that the databases can store.
const COUNT_MAX: u64 = i64::MAX as u64;

/// The usage of one period over all replicas.
///
/// The fields up to `period_duration_ms` have the names of the reference implementation, which `docs/architecture.md`
/// describes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Active workspaces. A workspace counts once, even if several replicas saw it.
    ///
    /// The number is exact up to 16,384. Above that, it is an estimate with a relative standard error of 0.78 %.
    pub unique_workspaces: u64,
    /// Active users, counted like the workspaces.
    pub unique_users: u64,
    /// Allowed requests.
    pub allowed_requests: u64,
    /// Denied requests.
    pub denied_requests: u64,
    /// The cutover that opened the period.
    pub period_start: DateTime<Utc>,
    /// The time from that cutover to the next one, in milliseconds.
    pub period_duration_ms: u64,
    /// The period's id, for the acknowledgement of its delivery.
    pub period_id: i64,
    /// The number of replicas that had a row.
    pub replicas: u64,
    /// The sum of the replicas' unique workspaces.
    ///
    /// A workspace of two replicas counts twice.
    pub replica_workspaces_sum: u64,
    /// The sum of the replicas' unique users. A user of two replicas counts twice.
    pub replica_users_sum: u64,
    /// Rows that exceeded the staleness limit, which no number above includes.
    pub stale_rows: u64,
    /// Allowed requests of the stale rows.
    pub stale_allowed_requests: u64,
    /// Denied requests of the stale rows.
    pub stale_denied_requests: u64,
    /// Logs that clients reported as dropped, which no number above includes.
    ///
    /// A lower bound, because not every report arrives and is recorded.
    pub client_dropped_logs: u64,
}

impl Summary {
    /// Returns the cutover that closed the period.
    pub fn end(&self) -> DateTime<Utc> {
        let length = TimeDelta::try_milliseconds(self.period_duration_ms.try_into().unwrap_or(i64::MAX));
        let end = length.and_then(|length| self.period_start.checked_add_signed(length));
        end.unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// A closed period: its summary, and the sets that the summary counts.
pub(crate) struct ClosedPeriod {
    pub(crate) summary: Summary,
    pub(crate) uniques: UniqueSets,
}

/// The unique workspaces and users as sets.
pub(crate) struct UniqueSets {
    pub(crate) workspaces: CompactThetaSketch,
    pub(crate) users: CompactThetaSketch,
}

/// Sums rows into a summary, in memory that does not grow with their number.
pub(crate) struct SummaryBuilder {
    period: OpenPeriod,
    max_staleness: Option<Duration>,
    workspaces: CompactThetaSketch,
    users: CompactThetaSketch,
    summary: Summary,
}

impl SummaryBuilder {
    /// Creates a summary of no rows.
    pub(crate) fn new(period: OpenPeriod, max_staleness: Option<Duration>) -> Self {
        let duration = (period.now - period.start).num_milliseconds();
        let summary = Summary {
            period_start: period.start,
            // The database's clock may have been set back.
            period_duration_ms: u64::try_from(duration).unwrap_or(0),
            ..Summary::default()
        };
        Self {
            period,
            max_staleness,
            workspaces: CompactThetaSketch::empty(),
            users: CompactThetaSketch::empty(),
            summary,
        }
    }

    /// Adds a row, or counts it as stale.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if a sketch of the row is damaged or forged.
    pub(crate) fn add(&mut self, row: &DeletedRow) -> Result<(), Error> {
        let summary = &mut self.summary;
        if is_stale(row, self.period.now, self.max_staleness) {
            summary.stale_rows += 1;
            add(&mut summary.stale_allowed_requests, row.allowed);
            add(&mut summary.stale_denied_requests, row.denied);
            return Ok(());
        }
        let Uniques { workspaces, users } = &row.uniques;
        // Both sketches are read before either is added, so a damaged row adds nothing.
        let sketches = (sketch(row.replica, "workspaces", workspaces)?, sketch(row.replica, "users", users)?);
        self.workspaces = self.workspaces.union(&sketches.0);
        self.users = self.users.union(&sketches.1);
        summary.replicas += 1;
        // The sketches are authoritative. The replica wrote the stored counts, and a count alone cannot be checked.
        add(&mut summary.replica_workspaces_sum, sketches.0.count());
        add(&mut summary.replica_users_sum, sketches.1.count());
        add(&mut summary.allowed_requests, row.allowed);
        add(&mut summary.denied_requests, row.denied);
        Ok(())
    }

    /// Returns the summary and its sets. The summary does not have the id of its period yet.
    pub(crate) fn finish(self) -> ClosedPeriod {
        let Self { workspaces, users, summary, .. } = self;
        let (unique_workspaces, unique_users) = (workspaces.count(), users.count());
        let summary = Summary { unique_workspaces, unique_users, ..summary };
        ClosedPeriod { summary, uniques: UniqueSets { workspaces, users } }
    }
}

/// Returns whether the replica's last flush is older than the limit (D8).
fn is_stale(row: &DeletedRow, now: DateTime<Utc>, max_staleness: Option<Duration>) -> bool {
    let idle = (now - row.updated_at).to_std().unwrap_or_default();
    max_staleness.is_some_and(|max_staleness| idle > max_staleness)
}

fn add(sum: &mut u64, count: u64) {
    *sum = sum.saturating_add(count).min(COUNT_MAX);
}

fn sketch(replica: Uuid, name: &str, set: &Sketch) -> Result<CompactThetaSketch, Error> {
    let fault = match CompactThetaSketch::from_bytes(&set.bytes) {
        Ok(sketch) if sketch.is_plausible() => return Ok(sketch),
        Ok(_) => {
            "forged: no ids lead to these hashes and this theta, and it would falsify the count of all replicas".into()
        }
        Err(error) => format!("damaged: {error}"),
    };
    let what = format!("the {name} sketch of replica {replica} is {fault}");
    let hint =
        "nothing was deleted; restore the replica's row of boundary_usage_stats, or delete it and lose its usage";
    Err(Error::Refused { message: format!("{what}; {hint}") })
}

#[cfg(test)]
mod tests {
    use boundary_usage_tracker::{HashingKey, ThetaSketch};

    use super::*;

    fn minute(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    fn set(ids: impl IntoIterator<Item = u128>) -> Sketch {
        let mut set = ThetaSketch::new();
        ids.into_iter().for_each(|id| set.insert(HashingKey(1, 2), id));
        let sketch = set.compact();
        Sketch { count: sketch.count(), bytes: sketch.to_bytes() }
    }

    fn row(replica: u128, ids: std::ops::Range<u128>, allowed: u64, updated_at: DateTime<Utc>) -> DeletedRow {
        let uniques = Uniques { workspaces: set(ids.clone()), users: set(ids.map(|id| id / 2)) };
        DeletedRow { replica: Uuid::from_u128(replica), uniques, allowed, denied: 1, updated_at }
    }

    fn builder(max_staleness: Option<Duration>) -> SummaryBuilder {
        SummaryBuilder::new(OpenPeriod { start: minute(0), now: minute(30), has_usage: true }, max_staleness)
    }

    #[test]
    fn a_period_without_rows_sums_to_zeros() {
        let summary = builder(None).finish().summary;
        assert_eq!((summary.unique_workspaces, summary.unique_users, summary.replicas), (0, 0, 0));
        assert_eq!((summary.period_start, summary.period_duration_ms), (minute(0), 30 * 60 * 1000));
    }

    #[test]
    fn an_id_of_two_replicas_counts_once_in_the_total_and_twice_in_the_sum() {
        let mut builder = builder(None);
        builder.add(&row(1, 0..100, 5, minute(29))).unwrap();
        builder.add(&row(2, 50..150, 7, minute(30))).unwrap();
        let summary = builder.finish().summary;
        assert_eq!((summary.unique_workspaces, summary.unique_users), (150, 75));
        assert_eq!((summary.replica_workspaces_sum, summary.replica_users_sum), (200, 100));
        assert_eq!((summary.allowed_requests, summary.denied_requests, summary.replicas), (12, 2, 2));
    }

    #[test]
    fn sums_saturate_at_the_databases_largest_integer() {
        let mut builder = builder(None);
        builder.add(&row(1, 0..1, COUNT_MAX, minute(30))).unwrap();
        builder.add(&row(2, 0..1, COUNT_MAX, minute(30))).unwrap();
        assert_eq!(builder.finish().summary.allowed_requests, COUNT_MAX);
    }

    #[test]
    fn a_stale_row_is_excluded_and_reported() {
        let mut builder = builder(Some(Duration::from_secs(600)));
        builder.add(&row(1, 0..10, 5, minute(19))).unwrap();
        builder.add(&row(2, 0..3, 7, minute(20))).unwrap();
        let summary = builder.finish().summary;
        assert_eq!((summary.stale_rows, summary.stale_allowed_requests, summary.stale_denied_requests), (1, 5, 1));
        assert_eq!((summary.replicas, summary.unique_workspaces, summary.allowed_requests), (1, 3, 7));
    }

    #[test]
    fn a_clock_that_was_set_back_gives_a_zero_duration_and_no_stale_rows() {
        let period = OpenPeriod { start: minute(30), now: minute(0), has_usage: true };
        let mut builder = SummaryBuilder::new(period, Some(Duration::ZERO));
        builder.add(&row(1, 0..1, 1, minute(30))).unwrap();
        let summary = builder.finish().summary;
        assert_eq!((summary.period_duration_ms, summary.stale_rows, summary.replicas), (0, 0, 1));
    }

    #[test]
    fn a_damaged_sketch_is_an_error_that_names_the_replica() {
        let mut damaged = row(7, 0..3, 1, minute(30));
        damaged.uniques.users.bytes.truncate(9);
        let mut builder = builder(None);
        let message = builder.add(&damaged).unwrap_err().to_string();
        assert!(message.contains(&Uuid::from_u128(7).to_string()) && message.contains("users"), "{message}");
        let summary = builder.finish().summary;
        assert_eq!((summary.replicas, summary.unique_workspaces), (0, 0), "a damaged row adds nothing");
    }
}
