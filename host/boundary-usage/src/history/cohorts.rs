//! Cohorts and their retention (H5): the ids that were new in a window, and how many of them are active later.

use chrono::{Days, NaiveDate};

use super::id_set::{Count, IdSet};
use super::walk::Visitor;
use super::window::Window;

/// The days after which a report states how many ids are still active.
pub(super) const AFTER_DAYS: [u64; 3] = [7, 30, 90];

/// The ids that were new in one window, and when they were active.
pub(super) struct Cohort {
    window: Window,
    new: IdSet,
    /// The number of active ids in each window, from the cohort's own window on.
    pub(super) active: Vec<Count>,
    /// The numbers of ids that stayed active, in the order of [`AFTER_DAYS`].
    ///
    /// Each number counts the ids that were active at least that many days after their first day.
    pub(super) active_after: [Count; AFTER_DAYS.len()],
}

/// The ids that were new on one day.
///
/// The sets of all days together have few hashes. The more ids are known, the smaller theta is, and the fewer of the
/// new ids a sketch retains. All days together retain about 16,384 × (1 + ln(all ids / ids of the first day)).
struct NewIds {
    date: NaiveDate,
    ids: IdSet,
    active_after: [IdSet; AFTER_DAYS.len()],
}

/// Computes the cohorts of one kind of id.
pub(super) struct Cohorts {
    first: Window,
    before: IdSet,
    new_ids: Vec<NewIds>,
    cohorts: Vec<Cohort>,
}

impl Cohorts {
    /// Creates a computation that returns the cohorts from the window `first` on. `before` has the ids of the pruned
    /// days.
    pub(super) fn new(first: Window, before: IdSet) -> Self {
        Self { first, before, new_ids: Vec::new(), cohorts: Vec::new() }
    }

    /// Returns one cohort for each window.
    pub(super) fn into_cohorts(self) -> Vec<Cohort> {
        let Self { mut cohorts, new_ids, .. } = self;
        for cohort in &mut cohorts {
            let days: Vec<_> = new_ids.iter().filter(|day| cohort.window.contains(day.date)).collect();
            for (index, count) in cohort.active_after.iter_mut().enumerate() {
                let active = days.iter().fold(IdSet::empty(), |union, day| union.union(&day.active_after[index]));
                *count = active.count();
            }
        }
        cohorts
    }
}

impl Visitor for Cohorts {
    fn day(&mut self, date: NaiveDate, active: &IdSet) {
        for NewIds { date: first, ids, active_after } in &mut self.new_ids {
            let age = (date - *first).num_days().unsigned_abs();
            if age < AFTER_DAYS[0] {
                continue;
            }
            let returned = ids.intersection(active);
            for (days, set) in AFTER_DAYS.iter().zip(active_after) {
                if *days <= age {
                    *set = set.union(&returned);
                }
            }
        }
        if self.first.start <= date {
            let ids = active.without(&self.before);
            self.new_ids.push(NewIds { date, ids, active_after: AFTER_DAYS.map(|_| IdSet::empty()) });
        }
        self.before = self.before.union(active);
    }

    fn window(&mut self, window: Window, active: &IdSet) {
        for cohort in &mut self.cohorts {
            cohort.active.push(cohort.new.intersection(active).count());
        }
        if window >= self.first {
            let days = self.new_ids.iter().filter(|day| window.contains(day.date));
            let new = days.fold(IdSet::empty(), |union, day| union.union(&day.ids));
            let size = new.count();
            let active_after = [Count::default(); AFTER_DAYS.len()];
            self.cohorts.push(Cohort { window, new, active: vec![size], active_after });
        }
    }
}

impl Cohort {
    /// Returns whether this many days have passed since the first day of every id.
    pub(super) fn has_come(&self, days: u64, today: NaiveDate) -> bool {
        let last_day = self.window.end.checked_sub_days(Days::new(1));
        last_day.and_then(|last| last.checked_add_days(Days::new(days))).is_some_and(|date| date <= today)
    }
}
