//! The active, new, returning, resurrected and lost ids of each window (H4).

use chrono::{NaiveDate, TimeDelta};

use super::id_set::{Compared, Count, IdSet};
use super::sliding::SlidingUnion;
use super::walk::Visitor;
use super::window::{Window, WindowLength};

/// The lengths of the rolling windows of a report by day, in days.
pub(super) const ROLLING_DAYS: [usize; 2] = [7, 30];

/// The numbers of one window for one kind of id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) active: Count,
    pub(super) new: Count,
    pub(super) returning: Count,
    pub(super) resurrected: Count,
    pub(super) lost: Count,
    /// The ids of the 7 and 30 days that end with this day. `None` unless the windows are days.
    pub(super) rolling: Option<[Count; 2]>,
}

/// Computes the rows of a report for one kind of id.
pub(super) struct Actives {
    first: Window,
    /// The ids of all windows before the current one, and of the pruned days.
    before: IdSet,
    previous: IdSet,
    rolling: Option<[SlidingUnion; 2]>,
    rows: Vec<Row>,
}

impl Actives {
    /// Creates a computation that returns the rows from the window `first` on. `before` has the ids of the pruned days.
    pub(super) fn new(length: WindowLength, first: Window, before: IdSet) -> Self {
        let rolling = (length == WindowLength::Day).then(|| ROLLING_DAYS.map(SlidingUnion::new));
        Self { first, before, previous: IdSet::empty(), rolling, rows: Vec::new() }
    }

    /// Returns one row for each window.
    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    fn row(&self, active: &IdSet) -> Row {
        let Compared { only_first: not_previous, both: returning, only_second: lost } = active.compare(&self.previous);
        let new = active.without(&self.before);
        Row {
            active: active.count(),
            new: new.count(),
            returning: returning.count(),
            // New ids were not in the previous window either.
            resurrected: not_previous.without(&new).count(),
            lost: lost.count(),
            rolling: self.rolling.as_ref().map(|unions| unions.each_ref().map(|union| union.union().count())),
        }
    }
}

impl Visitor for Actives {
    fn day(&mut self, _: NaiveDate, _: &IdSet) {}

    fn window(&mut self, window: Window, active: &IdSet) {
        // Days before the rolling windows of the first row are skipped.
        if self.first.start - window.start < TimeDelta::days(ROLLING_DAYS[1] as i64) {
            self.rolling.iter_mut().flatten().for_each(|union| union.push(active));
        }
        if window >= self.first {
            self.rows.push(self.row(active));
        }
        self.before = self.before.union(active);
        self.previous = active.clone();
    }
}
