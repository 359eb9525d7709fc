//! From the rows of a period to its summary; pure.

use std::time::Duration;

use boundary_usage_tracker::CompactThetaSketch;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::records::{DeletedRow, OpenPeriod, Sketch, Uniques};

/// The largest count: that of the databases.
const COUNT_MAX: u64 = i64::MAX as u64;

/// What a period held, over all replicas. The fields up to `period_duration_ms` have the names that consumers of the
/// reference know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Workspaces that were active, each counted once however many replicas saw it. Exact up to 16,384, then an
    /// estimate with a relative standard error of 0.78 %.
    pub unique_workspaces: u64,
    /// Users that were active; counted in the same way.
    pub unique_users: u64,
    /// Requests let through.
    pub allowed_requests: u64,
    /// Requests blocked.
    pub denied_requests: u64,
    /// The cutover that opened the period.
    pub period_start: DateTime<Utc>,
    /// From that cutover to the one that closed the period, in milliseconds.
    pub period_duration_ms: u64,
    /// The period's id, for the acknowledgement of its delivery.
    pub period_id: i64,
    /// The replicas that had a row.
    pub replicas: u64,
    /// The sum of the replicas' unique workspaces: one seen by two replicas counts twice.
    pub replica_workspaces_sum: u64,
    /// The sum of the replicas' unique users: one seen by two replicas counts twice.
    pub replica_users_sum: u64,
    /// Rows deleted but left out of all other numbers, because they had not been updated for longer than the staleness.
    pub stale_rows: u64,
    /// Requests let through that those rows held.
    pub stale_allowed_requests: u64,
    /// Requests blocked that those rows held.
    pub stale_denied_requests: u64,
}

/// Sums rows into a summary. Holds two sketches, however many rows there are.
pub(crate) struct SummaryBuilder {
    period: OpenPeriod,
    max_staleness: Option<Duration>,
    workspaces: CompactThetaSketch,
    users: CompactThetaSketch,
    summary: Summary,
}

impl SummaryBuilder {
    /// A summary of no rows.
    pub(crate) fn new(period: OpenPeriod, max_staleness: Option<Duration>) -> Self {
        let duration = (period.now - period.start).num_milliseconds();
        let summary = Summary {
            period_start: period.start,
            // A clock that was set back makes no period shorter than nothing.
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
    /// [`Error::Refused`] when a sketch of it is damaged or made up.
    pub(crate) fn add(&mut self, row: &DeletedRow) -> Result<(), Error> {
        let summary = &mut self.summary;
        if is_stale(row, self.period.now, self.max_staleness) {
            summary.stale_rows += 1;
            add(&mut summary.stale_allowed_requests, row.allowed);
            add(&mut summary.stale_denied_requests, row.denied);
            return Ok(());
        }
        let Uniques { workspaces, users } = &row.uniques;
        // Both are read before one is added: of a damaged row, nothing counts.
        let sketches = (sketch(row.replica, "workspaces", workspaces)?, sketch(row.replica, "users", users)?);
        self.workspaces = self.workspaces.union(&sketches.0);
        self.users = self.users.union(&sketches.1);
        summary.replicas += 1;
        // By the sketches: the counts beside them are what the replica says.
        add(&mut summary.replica_workspaces_sum, sketches.0.count());
        add(&mut summary.replica_users_sum, sketches.1.count());
        add(&mut summary.allowed_requests, row.allowed);
        add(&mut summary.denied_requests, row.denied);
        Ok(())
    }

    /// The summary; the id of its period is not known yet.
    pub(crate) fn finish(self) -> Summary {
        let (unique_workspaces, unique_users) = (self.workspaces.count(), self.users.count());
        Summary { unique_workspaces, unique_users, ..self.summary }
    }
}

/// Judged by the last flush and not by the window's start (D8): a replica that has flushed for long is no stale one.
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
            "made up: no ids lead to these hashes and this theta, and it would falsify the count of all replicas".into()
        }
        Err(error) => format!("damaged: {error}"),
    };
    let what = format!("the {name} sketch of replica {replica} is {fault}");
    let hint =
        "nothing was deleted. Restore the replica's row of boundary_usage_stats, or delete it and lose its usage";
    Err(Error::Refused { message: format!("{what}; {hint}") })
}

#[cfg(test)]
mod tests {
    use boundary_usage_tracker::{HashingKey, ThetaSketch};
    use chrono::TimeDelta;

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
        SummaryBuilder::new(OpenPeriod { start: minute(0), now: minute(30) }, max_staleness)
    }

    #[test]
    fn nothing_sums_to_zeros_over_the_whole_period() {
        let summary = builder(None).finish();
        assert_eq!((summary.unique_workspaces, summary.unique_users, summary.replicas), (0, 0, 0));
        assert_eq!((summary.period_start, summary.period_duration_ms), (minute(0), 30 * 60 * 1000));
    }

    #[test]
    fn an_id_of_two_replicas_counts_once_and_the_sum_stays_beside_it() {
        let mut builder = builder(None);
        builder.add(&row(1, 0..100, 5, minute(29))).unwrap();
        builder.add(&row(2, 50..150, 7, minute(30))).unwrap();
        let summary = builder.finish();
        assert_eq!((summary.unique_workspaces, summary.unique_users), (150, 75));
        assert_eq!((summary.replica_workspaces_sum, summary.replica_users_sum), (200, 100));
        assert_eq!((summary.allowed_requests, summary.denied_requests, summary.replicas), (12, 2, 2));
    }

    #[test]
    fn sums_saturate_at_the_databases_largest_integer() {
        let mut builder = builder(None);
        builder.add(&row(1, 0..1, COUNT_MAX, minute(30))).unwrap();
        builder.add(&row(2, 0..1, COUNT_MAX, minute(30))).unwrap();
        assert_eq!(builder.finish().allowed_requests, COUNT_MAX);
    }

    #[test]
    fn a_stale_row_is_left_out_and_told_of() {
        let mut builder = builder(Some(Duration::from_secs(600)));
        builder.add(&row(1, 0..10, 5, minute(19))).unwrap();
        builder.add(&row(2, 0..3, 7, minute(20))).unwrap();
        let summary = builder.finish();
        assert_eq!((summary.stale_rows, summary.stale_allowed_requests, summary.stale_denied_requests), (1, 5, 1));
        assert_eq!((summary.replicas, summary.unique_workspaces, summary.allowed_requests), (1, 3, 7));
    }

    #[test]
    fn a_clock_set_back_gives_an_empty_window_and_no_stale_rows() {
        let period = OpenPeriod { start: minute(30), now: minute(0) };
        let mut builder = SummaryBuilder::new(period, Some(Duration::ZERO));
        builder.add(&row(1, 0..1, 1, minute(30))).unwrap();
        let summary = builder.finish();
        assert_eq!((summary.period_duration_ms, summary.stale_rows, summary.replicas), (0, 0, 1));
    }

    #[test]
    fn a_damaged_sketch_is_an_error_that_names_the_replica() {
        let mut damaged = row(7, 0..3, 1, minute(30));
        damaged.uniques.users.bytes.truncate(9);
        let mut builder = builder(None);
        let message = builder.add(&damaged).unwrap_err().to_string();
        assert!(message.contains(&Uuid::from_u128(7).to_string()) && message.contains("users"), "{message}");
        let summary = builder.finish();
        assert_eq!((summary.replicas, summary.unique_workspaces), (0, 0), "nothing of it counts");
    }
}
