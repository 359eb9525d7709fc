//! The days of a run's model, which checks the history (H1).

use std::collections::BTreeMap;

use boundary_usage::{Day, HashingKey};
use chrono::NaiveDate;

use super::model::Period;

/// The usage of each UTC day, by the starts of its periods.
#[derive(Clone, Default)]
pub(super) struct Days(BTreeMap<NaiveDate, (u64, Period)>);

impl Days {
    /// Adds a period that started on this date. A period without usage adds nothing.
    pub(super) fn add(&mut self, date: NaiveDate, period: &Period) {
        if period.replicas.is_empty() {
            return;
        }
        let (periods, day) = self.0.entry(date).or_default();
        *periods += 1;
        day.ids.extend(&period.ids);
        day.allowed += period.allowed;
        day.denied += period.denied;
    }

    /// Returns how the database's days differ.
    pub(super) fn violations(&self, key: HashingKey, found: &BTreeMap<NaiveDate, Day>) -> Vec<String> {
        let unexpected = found.keys().filter(|date| !self.0.contains_key(date));
        let unexpected = unexpected.map(|date| format!("the history has the day {date} without activity"));
        let different = self.0.iter().filter_map(|(date, (periods, day))| {
            let Some(found) = found.get(date) else { return Some(format!("the history lacks the day {date}")) };
            let expected = (*periods, day.allowed, day.denied);
            if expected != (found.periods, found.allowed, found.denied) {
                let found = (found.periods, found.allowed, found.denied);
                return Some(format!("the day {date} has (periods, A, D) {found:?} instead of {expected:?}"));
            }
            (!day.ids.are(key, &found.uniques)).then(|| format!("the sketches of the day {date} have other ids"))
        });
        unexpected.chain(different).collect()
    }
}
