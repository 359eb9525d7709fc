//! The day to which a collection adds its period (H1).

use boundary_usage_tracker::{CompactThetaSketch, SketchError};
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use crate::database::Transaction;
use crate::error::Error;
use crate::records::{Day, Sketch, Uniques};
use crate::summary::{Summary, UniqueSets};

/// The longest time after midnight at which a period may end without a mark.
///
/// A period that ends later marks its day as spanning midnight. A collector needs some time after the cutover, and
/// activity reaches the database up to one flush interval late anyway.
const MIDNIGHT_TOLERANCE: TimeDelta = TimeDelta::seconds(60);

/// Adds a period to the UTC day on which it started, within the transaction of its collection.
pub(crate) async fn add(
    transaction: &mut dyn Transaction,
    summary: &Summary,
    uniques: UniqueSets,
    end: DateTime<Utc>,
) -> Result<(), Error> {
    let stored = transaction.read_day(summary.period_start.date_naive()).await?;
    let day = merge(stored, summary, uniques, end)?;
    transaction.write_day(&day).await
}

fn merge(stored: Option<Day>, summary: &Summary, uniques: UniqueSets, end: DateTime<Utc>) -> Result<Day, Error> {
    let date = summary.period_start.date_naive();
    let next_midnight = date.succ_opt().map(|next| next.and_time(NaiveTime::MIN).and_utc());
    let spans_midnight = next_midnight.is_some_and(|midnight| end - midnight > MIDNIGHT_TOLERANCE);
    let UniqueSets { workspaces, users } = uniques;
    let Some(stored) = stored else {
        return Ok(Day {
            date,
            periods: 1,
            spans_midnight,
            allowed: summary.allowed_requests,
            denied: summary.denied_requests,
            uniques: Uniques { workspaces: serialized(&workspaces), users: serialized(&users) },
        });
    };
    let merged = |name: &str, stored: &Sketch, set: &CompactThetaSketch| {
        let stored = CompactThetaSketch::from_bytes(&stored.bytes).map_err(|error| damaged(date, name, error))?;
        Ok::<_, Error>(serialized(&stored.union(set)))
    };
    Ok(Day {
        date,
        periods: stored.periods.saturating_add(1),
        spans_midnight: stored.spans_midnight || spans_midnight,
        allowed: stored.allowed.saturating_add(summary.allowed_requests),
        denied: stored.denied.saturating_add(summary.denied_requests),
        uniques: Uniques {
            workspaces: merged("workspaces", &stored.uniques.workspaces, &workspaces)?,
            users: merged("users", &stored.uniques.users, &users)?,
        },
    })
}

pub(super) fn serialized(set: &CompactThetaSketch) -> Sketch {
    Sketch { count: set.count(), bytes: set.to_bytes() }
}

/// Returns the error of a damaged sketch of a day.
pub(super) fn damaged(date: NaiveDate, name: &str, error: SketchError) -> Error {
    let what = format!("the {name} sketch of the day {date} is damaged: {error}");
    let hint = "restore the row of boundary_usage_days from a backup, or delete it and lose the day's history";
    Error::Refused { message: format!("{what}; {hint}") }
}

#[cfg(test)]
mod tests {
    use boundary_usage_tracker::{HashingKey, ThetaSketch};

    use super::*;

    fn set(ids: std::ops::Range<u128>) -> CompactThetaSketch {
        let mut set = ThetaSketch::new();
        ids.for_each(|id| set.insert(HashingKey(1, 2), id));
        set.compact()
    }

    fn period(start: &str, ids: std::ops::Range<u128>) -> (Summary, UniqueSets) {
        let summary = Summary {
            period_start: start.parse().unwrap(),
            allowed_requests: 5,
            denied_requests: 2,
            ..Summary::default()
        };
        (summary, UniqueSets { workspaces: set(ids.clone()), users: set(ids.start..ids.start + 1) })
    }

    fn merged(stored: Option<Day>, start: &str, end: &str, ids: std::ops::Range<u128>) -> Day {
        let (summary, uniques) = period(start, ids);
        merge(stored, &summary, uniques, end.parse().unwrap()).unwrap()
    }

    #[test]
    fn h1_a_period_is_added_to_the_day_of_its_start() {
        let day = merged(None, "2026-03-01T23:30:00Z", "2026-03-02T00:00:00Z", 0..10);
        assert_eq!((day.date.to_string(), day.periods, day.allowed, day.denied), ("2026-03-01".into(), 1, 5, 2));
        let day = merged(Some(day), "2026-03-01T10:00:00Z", "2026-03-01T10:30:00Z", 5..20);
        assert_eq!((day.periods, day.allowed, day.denied), (2, 10, 4));
        assert_eq!((day.uniques.workspaces.count, day.uniques.users.count), (20, 2));
        assert_eq!(day.uniques.workspaces.bytes, set(0..20).to_bytes());
    }

    #[test]
    fn h2_a_period_that_spans_midnight_marks_its_day() {
        let start = "2026-03-01T23:30:00Z";
        assert!(!merged(None, start, "2026-03-02T00:01:00Z", 0..1).spans_midnight);
        let day = merged(None, start, "2026-03-02T00:01:01Z", 0..1);
        assert!(day.spans_midnight);
        assert!(merged(Some(day), start, "2026-03-01T23:40:00Z", 0..1).spans_midnight, "the mark stays");
    }

    #[test]
    fn a_damaged_day_is_an_error_that_names_the_day() {
        let mut day = merged(None, "2026-03-01T10:00:00Z", "2026-03-01T10:30:00Z", 0..10);
        day.uniques.users.bytes.truncate(9);
        let (summary, uniques) = period("2026-03-01T11:00:00Z", 0..10);
        let error = merge(Some(day), &summary, uniques, summary.period_start).unwrap_err().to_string();
        assert!(error.contains("2026-03-01") && error.contains("users"), "{error}");
    }
}
