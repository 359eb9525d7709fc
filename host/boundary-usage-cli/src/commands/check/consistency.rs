//! The relations between the parts of a database, without I/O.

use std::collections::{BTreeMap, HashMap};

use boundary_usage::{DatabaseStatus, Day, PeriodStatus, Sketch, Summary};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;

/// A fault, and what an operator can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) fault: String,
    pub(super) remedy: &'static str,
}

/// The difference that the rounding of stored times explains.
const ROUNDING: TimeDelta = TimeDelta::milliseconds(1);

/// The difference that clocks of several machines explain.
const CLOCKS: TimeDelta = TimeDelta::minutes(1);

/// The count up to which a set is exact.
const EXACT: u64 = 16_384;

const RESTORE: &str = "the database was changed by hand or is damaged; compare it with a backup";
const SKETCH: &str = "the numbers of unique ids cannot be trusted; restore the row from a backup";

/// Collects the faults of the parts that are added to it. Periods come first, oldest first.
#[derive(Default)]
pub(super) struct Consistency {
    findings: Vec<Finding>,
    periods: u64,
    /// The id and the end of the last period.
    last: Option<(i64, DateTime<Utc>)>,
    of_days: BTreeMap<NaiveDate, PeriodsOfDay>,
    days_without_all_periods: u64,
}

/// The sums over the periods that started on one day and have usage.
#[derive(Default)]
struct PeriodsOfDay {
    periods: u64,
    allowed: u64,
    denied: u64,
    workspaces: Counts,
    users: Counts,
}

/// The unique counts of several periods.
#[derive(Default)]
struct Counts {
    highest: u64,
    sum: u64,
}

impl Counts {
    fn add(&mut self, count: u64) {
        self.highest = self.highest.max(count);
        self.sum = self.sum.saturating_add(count);
    }

    /// Returns whether the union of the sets can have this count.
    ///
    /// Beyond [`EXACT`], counts are estimates, so a twentieth is allowed: six times the relative standard error.
    fn admits(&self, count: u64) -> bool {
        let tolerance = |bound: u64| if bound.max(count) > EXACT { bound / 20 } else { 0 };
        count + tolerance(self.highest) >= self.highest && count <= self.sum.saturating_add(tolerance(self.sum))
    }
}

impl Consistency {
    pub(super) fn periods(&self) -> u64 {
        self.periods
    }

    pub(super) fn days_without_all_periods(&self) -> u64 {
        self.days_without_all_periods
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    fn find(&mut self, fault: String, remedy: &'static str) {
        self.findings.push(Finding { fault, remedy });
    }

    /// Adds a fault of a sketch that cannot be read.
    pub(super) fn damaged(&mut self, message: String) {
        self.find(message, SKETCH);
    }

    pub(super) fn add_period(&mut self, period: &PeriodStatus) {
        let summary = &period.summary;
        self.periods += 1;
        if let Some((id, end)) = self.last {
            self.follow(id, end, summary);
        }
        self.last = Some((summary.period_id, summary.end()));
        self.check_delivery(period);
        if summary.replicas > summary.stale_rows || summary.replica_workspaces_sum > 0 {
            let of_day = self.of_days.entry(summary.period_start.date_naive()).or_default();
            of_day.periods += 1;
            of_day.allowed = of_day.allowed.saturating_add(summary.allowed_requests);
            of_day.denied = of_day.denied.saturating_add(summary.denied_requests);
            of_day.workspaces.add(summary.unique_workspaces);
            of_day.users.add(summary.unique_users);
        }
    }

    /// Checks that a period begins where the one before it ended.
    fn follow(&mut self, id: i64, end: DateTime<Utc>, next: &Summary) {
        let gap = next.period_start - end;
        let next_id = next.period_id;
        if gap > ROUNDING {
            self.find(
                format!("between the periods {id} and {next_id} is a gap of {} ms", gap.num_milliseconds()),
                RESTORE,
            );
        } else if gap < -ROUNDING {
            // A clock that was set back makes a period end before its start, which the database stores as length 0.
            let remedy =
                "a clock of the database was set back, or the periods were changed by hand; their sums are right";
            self.find(format!("the periods {id} and {next_id} overlap by {} ms", -gap.num_milliseconds()), remedy);
        }
    }

    fn check_delivery(&mut self, period: &PeriodStatus) {
        let (id, end) = (period.summary.period_id, period.summary.end());
        let remedy = "a clock was wrong, or the row was changed by hand; ask the receiver whether it has the summary";
        if period.delivered_at.is_some_and(|at| at < end - CLOCKS) {
            self.find(format!("the delivery of period {id} was acknowledged before its end"), remedy);
        }
        if let Some(delivery) = &period.delivery
            && (delivery.attempts == 0 || delivery.attempted_at < end - CLOCKS)
        {
            self.find(format!("the delivery of period {id} was attempted before its end"), remedy);
        }
    }

    pub(super) fn add_day(&mut self, day: &Day) {
        self.check_counts(&day.date.to_string(), day);
        let of_day = self.of_days.remove(&day.date).unwrap_or_default();
        if of_day.periods < day.periods {
            self.days_without_all_periods += 1;
            return;
        }
        let date = day.date;
        if of_day.periods > day.periods {
            let more = of_day.periods - day.periods;
            let remedy = "they were closed with --no-history or by an older release; reports do not include them";
            self.find(format!("the day {date} lacks {more} of its periods"), remedy);
            return;
        }
        if (of_day.allowed, of_day.denied) != (day.allowed, day.denied) {
            let fault = format!(
                "the day {date} has {} allowed and {} denied requests, and its periods have {} and {}",
                day.allowed, day.denied, of_day.allowed, of_day.denied
            );
            self.find(fault, RESTORE);
        }
        for (name, counts, sketch) in
            [("workspaces", &of_day.workspaces, &day.uniques.workspaces), ("users", &of_day.users, &day.uniques.users)]
        {
            if !counts.admits(sketch.count) {
                let fault = format!(
                    "the day {date} has {} {name}, and its periods have {} to {}",
                    sketch.count, counts.highest, counts.sum
                );
                self.findings.push(Finding { fault, remedy: SKETCH });
            }
        }
    }

    pub(super) fn add_pruned_days(&mut self, set: &Day) {
        self.check_counts("set of pruned days", set);
    }

    /// Checks that the stored counts are those of the sketches.
    fn check_counts(&mut self, what: &str, day: &Day) {
        let Day { uniques, .. } = day;
        let sketches: [(&str, &Sketch); 2] = [("workspaces", &uniques.workspaces), ("users", &uniques.users)];
        for (name, sketch) in sketches {
            // A sketch that cannot be read is another fault.
            if let Some(count) = sketch.estimate().filter(|count| *count != sketch.count) {
                self.find(format!("{what}: {} {name} are stored, and the sketch has {count}", sketch.count), SKETCH);
            }
        }
    }

    /// Adds the open period and the replicas.
    pub(super) fn add_status(&mut self, status: &DatabaseStatus) {
        for damaged in &status.damaged {
            self.damaged(damaged.clone());
        }
        let replicas: HashMap<Uuid, _> = status.replicas.iter().map(|replica| (replica.replica, replica)).collect();
        for row in &status.rows {
            let id = row.replica;
            let remedy = "the row did not come from a flush; delete it, or collect to count it in this period";
            match replicas.get(&id) {
                None => self.find(format!("the row of replica {id} belongs to no flush of this replica"), remedy),
                Some(replica) if replica.last_flush == 0 || replica.flushed_at < row.updated_at - CLOCKS => {
                    self.find(format!("the row of replica {id} is newer than its last flush"), remedy);
                }
                Some(_) => {}
            }
            if row.window_start > row.updated_at + CLOCKS {
                self.find(format!("the row of replica {id} ends before it starts"), RESTORE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(period_id: i64, start_ms: i64, length_ms: u64) -> PeriodStatus {
        let summary = Summary {
            period_id,
            period_start: DateTime::from_timestamp_millis(start_ms).unwrap(),
            period_duration_ms: length_ms,
            allowed_requests: 5,
            unique_workspaces: 2,
            unique_users: 1,
            replicas: 1,
            ..Summary::default()
        };
        PeriodStatus { summary, delivered_at: None, delivery: None }
    }

    fn faults(parts: impl FnOnce(&mut Consistency)) -> Vec<String> {
        let mut consistency = Consistency::default();
        parts(&mut consistency);
        consistency.into_findings().into_iter().map(|finding| finding.fault).collect()
    }

    #[test]
    fn periods_that_follow_each_other_have_no_fault() {
        let none = faults(|consistency| {
            [period(1, 0, 100), period(2, 100, 50), period(4, 151, 0)]
                .iter()
                .for_each(|one| consistency.add_period(one));
        });
        assert_eq!(none, [""; 0]);
    }

    #[test]
    fn gaps_and_overlaps_of_periods_are_found() {
        let found = faults(|consistency| {
            [period(1, 0, 100), period(2, 105, 50), period(3, 150, 1)]
                .iter()
                .for_each(|one| consistency.add_period(one));
        });
        assert_eq!(found, ["between the periods 1 and 2 is a gap of 5 ms", "the periods 2 and 3 overlap by 5 ms",]);
    }

    #[test]
    fn an_acknowledgement_before_the_end_of_the_period_is_found() {
        let early = PeriodStatus { delivered_at: DateTime::from_timestamp_millis(0), ..period(1, 0, 100_000) };
        let found = faults(|consistency| consistency.add_period(&early));
        assert_eq!(found, ["the delivery of period 1 was acknowledged before its end"]);
    }

    #[test]
    fn the_union_of_sets_has_at_least_the_highest_and_at_most_the_sum_of_their_counts() {
        let mut counts = Counts::default();
        [3, 5].into_iter().for_each(|count| counts.add(count));
        assert_eq!([4, 5, 8, 9].map(|count| counts.admits(count)), [false, true, true, false]);
        counts.add(100_000);
        assert!(counts.admits(96_000) && !counts.admits(94_000) && !counts.admits(110_000));
    }
}
