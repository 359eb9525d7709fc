//! The union of the last days, which costs about three unions for each new day.

use super::id_set::IdSet;

/// The union of the sets of the last days.
///
/// Sets cannot be subtracted from a union, so the days are in two stacks. `newer` collects days and their union.
/// `older` has, for each of its days, the union of that day and the later ones of the stack. Removing the oldest day
/// pops `older`. If `older` is empty, all days of `newer` move there first.
pub(super) struct SlidingUnion {
    days: usize,
    older: Vec<IdSet>,
    newer: Vec<IdSet>,
    newer_union: IdSet,
}

impl SlidingUnion {
    /// Creates the union of the last `days` days, all of them empty.
    pub(super) fn new(days: usize) -> Self {
        Self { days, older: Vec::new(), newer: Vec::new(), newer_union: IdSet::empty() }
    }

    /// Adds the next day, and removes the day that is now too old.
    pub(super) fn push(&mut self, day: &IdSet) {
        self.newer_union = self.newer_union.union(day);
        self.newer.push(day.clone());
        if self.older.len() + self.newer.len() <= self.days {
            return;
        }
        if self.older.is_empty() {
            let mut union = IdSet::empty();
            for day in self.newer.drain(..).rev() {
                union = union.union(&day);
                self.older.push(union.clone());
            }
            self.newer_union = IdSet::empty();
        }
        self.older.pop();
    }

    /// Returns the union.
    pub(super) fn union(&self) -> IdSet {
        match self.older.last() {
            Some(older) => older.union(&self.newer_union),
            None => self.newer_union.clone(),
        }
    }
}
