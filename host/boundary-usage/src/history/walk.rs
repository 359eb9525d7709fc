//! The walk over the days of the history, which visits every day with activity and every window.

use chrono::NaiveDate;

use super::id_set::IdSet;
use super::window::{Window, WindowLength};

/// Receives the days and windows of one kind of id, oldest first.
pub(super) trait Visitor {
    /// Visits a day with activity.
    fn day(&mut self, date: NaiveDate, active: &IdSet);

    /// Visits a window after its days. Windows without activity are visited, too.
    fn window(&mut self, window: Window, active: &IdSet);
}

/// Groups days into windows.
pub(super) struct Walk<V> {
    length: WindowLength,
    visitor: V,
    /// The window of the last day. `None` before the first one.
    window: Option<Window>,
    window_set: IdSet,
    /// The last day, which several databases can contain.
    day: Option<(NaiveDate, IdSet)>,
}

impl<V: Visitor> Walk<V> {
    /// Starts a walk with the window `first`, or earlier if there are earlier days.
    pub(super) fn new(length: WindowLength, first: Window, visitor: V) -> Self {
        Self { length, visitor, window: Some(first), window_set: IdSet::empty(), day: None }
    }

    /// Adds a day. The same day may follow again, but no earlier one.
    pub(super) fn push(&mut self, date: NaiveDate, active: IdSet) {
        match &mut self.day {
            Some((last, set)) if *last == date => *set = set.union(&active),
            _ => {
                self.end_day();
                self.day = Some((date, active));
            }
        }
    }

    /// Visits the windows until `last`, and returns the visitor.
    pub(super) fn finish(mut self, last: Window) -> V {
        self.end_day();
        self.end_windows_before(last.end);
        self.visitor
    }

    fn end_day(&mut self) {
        let Some((date, set)) = self.day.take() else { return };
        self.end_windows_before(date);
        self.visitor.day(date, &set);
        self.window_set = self.window_set.union(&set);
    }

    /// Ends all windows that end at or before a date.
    fn end_windows_before(&mut self, date: NaiveDate) {
        while let Some(window) = self.window.filter(|window| window.end <= date) {
            let set = std::mem::replace(&mut self.window_set, IdSet::empty());
            self.visitor.window(window, &set);
            self.window = self.length.after(window);
        }
    }
}
