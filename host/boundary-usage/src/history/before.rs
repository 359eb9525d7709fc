//! The merged set of the pruned days (H6).
//!
//! Pruned days are gone, but the set of their ids stays, so an id that returns later never counts as new again.

use boundary_usage_tracker::{CompactThetaSketch, SketchError};
use chrono::NaiveDate;

use super::day::{damaged, serialized};
use super::id_set::IdSet;
use crate::database::Transaction;
use crate::error::Error;
use crate::records::{Day, Uniques};

/// Deletes up to `limit` of the oldest days before a date, and adds them to the merged set. Returns their number.
///
/// The caller holds the exclusive cutover lock, so no collection uses the days.
pub(crate) async fn merge_days(transaction: &mut dyn Transaction, before: NaiveDate, limit: u32) -> Result<u64, Error> {
    let days = transaction.delete_days(before, limit).await?;
    if days.is_empty() {
        return Ok(0);
    }
    let stored = transaction.read_before().await?;
    transaction.write_before(&merge(stored, &days)?).await?;
    Ok(days.len() as u64)
}

/// Adds days to the merged set. There is at least one day.
fn merge(stored: Option<Day>, days: &[Day]) -> Result<Day, Error> {
    let (mut workspaces, mut users) = (CompactThetaSketch::empty(), CompactThetaSketch::empty());
    if let Some(before) = &stored {
        workspaces = read(&before.uniques.workspaces.bytes).map_err(|error| damaged_set("workspaces", error))?;
        users = read(&before.uniques.users.bytes).map_err(|error| damaged_set("users", error))?;
    }
    for Day { date, uniques, .. } in days {
        let set = |name, bytes| read(bytes).map_err(|error| damaged(*date, name, error));
        workspaces = workspaces.union(&set("workspaces", &uniques.workspaces.bytes)?);
        users = users.union(&set("users", &uniques.users.bytes)?);
    }
    let all = || stored.iter().chain(days);
    let sum = |number: fn(&Day) -> u64| all().map(number).fold(0, u64::saturating_add);
    Ok(Day {
        date: all().map(|day| day.date).max().expect("there is a day"),
        periods: sum(|day| day.periods),
        spans_midnight: false,
        allowed: sum(|day| day.allowed),
        denied: sum(|day| day.denied),
        uniques: Uniques { workspaces: serialized(&workspaces), users: serialized(&users) },
    })
}

fn read(bytes: &[u8]) -> Result<CompactThetaSketch, SketchError> {
    CompactThetaSketch::from_bytes(bytes)
}

/// The ids of the pruned days of several databases.
pub(super) struct Before {
    /// The last pruned day. `None` if no day was pruned.
    pub(super) last_day: Option<NaiveDate>,
    pub(super) users: IdSet,
    pub(super) workspaces: IdSet,
}

impl Before {
    /// Returns the ids of no days.
    pub(super) fn empty() -> Self {
        Self { last_day: None, users: IdSet::empty(), workspaces: IdSet::empty() }
    }

    /// Adds the pruned days of a database.
    pub(super) fn add(&mut self, Day { date, uniques, .. }: &Day) -> Result<(), Error> {
        let set = |name, bytes| IdSet::from_bytes(bytes).map_err(|error| damaged_set(name, error));
        self.last_day = self.last_day.max(Some(*date));
        self.users = self.users.union(&set("users", &uniques.users.bytes)?);
        self.workspaces = self.workspaces.union(&set("workspaces", &uniques.workspaces.bytes)?);
        Ok(())
    }
}

/// Returns the error of a damaged sketch of the pruned days.
pub(super) fn damaged_set(name: &str, error: SketchError) -> Error {
    let what = format!("the {name} sketch of the pruned days is damaged: {error}");
    let hint = "restore the row of boundary_usage_before from a backup, or delete it: ids of pruned days then count \
                as new when they return";
    Error::Refused { message: format!("{what}; {hint}") }
}

#[cfg(test)]
mod tests {
    use boundary_usage_tracker::{HashingKey, ThetaSketch};

    use super::*;
    use crate::records::Sketch;

    fn set(ids: std::ops::Range<u128>) -> Sketch {
        let mut set = ThetaSketch::new();
        ids.for_each(|id| set.insert(HashingKey(1, 2), id));
        serialized(&set.compact())
    }

    fn day(date: &str, ids: std::ops::Range<u128>) -> Day {
        let uniques = Uniques { workspaces: set(ids.clone()), users: set(ids.start..ids.start + 1) };
        Day { date: date.parse().unwrap(), periods: 2, spans_midnight: true, allowed: 5, denied: 1, uniques }
    }

    #[test]
    fn h6_pruned_days_become_one_set_with_their_sums() {
        let first = merge(None, &[day("2026-03-02", 0..10), day("2026-03-01", 5..20)]).unwrap();
        assert_eq!(
            (first.date.to_string(), first.periods, first.allowed, first.denied),
            ("2026-03-02".into(), 4, 10, 2)
        );
        assert_eq!(first.uniques, Uniques { workspaces: set(0..20), users: serialized_union(&[set(0..1), set(5..6)]) });
        let second = merge(Some(first), &[day("2026-02-27", 15..30)]).unwrap();
        assert_eq!((second.date.to_string(), second.periods, second.allowed), ("2026-03-02".into(), 6, 15));
        assert_eq!((second.uniques.workspaces, second.uniques.users.count), (set(0..30), 3));
    }

    fn serialized_union(sets: &[Sketch]) -> Sketch {
        let union = sets.iter().map(|set| read(&set.bytes).unwrap()).reduce(|one, other| one.union(&other));
        serialized(&union.unwrap())
    }

    #[test]
    fn damaged_days_and_sets_are_named() {
        let mut damaged = day("2026-03-01", 0..10);
        damaged.uniques.users.bytes.truncate(9);
        let error = merge(None, std::slice::from_ref(&damaged)).unwrap_err().to_string();
        assert!(error.contains("2026-03-01") && error.contains("users sketch"), "{error}");
        let error = merge(Some(damaged), &[day("2026-03-02", 0..10)]).unwrap_err().to_string();
        assert!(error.contains("boundary_usage_before") && error.contains("users sketch"), "{error}");
    }
}
