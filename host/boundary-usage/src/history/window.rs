//! Windows of the calendar: UTC days, ISO weeks and months.

use chrono::{Datelike, Days, Months, NaiveDate};
use serde::Serialize;

/// The length of the windows of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowLength {
    /// UTC days.
    #[default]
    Day,
    /// ISO weeks, which start on Monday.
    Week,
    /// Calendar months.
    Month,
}

/// A window: the dates from `start` until the day before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    pub(super) start: NaiveDate,
    pub(super) end: NaiveDate,
}

impl Window {
    pub(super) fn contains(self, date: NaiveDate) -> bool {
        (self.start..self.end).contains(&date)
    }
}

impl WindowLength {
    /// Returns the window that contains a date. `None` if that window exceeds the calendar.
    pub(super) fn window_of(self, date: NaiveDate) -> Option<Window> {
        let start = match self {
            Self::Day => date,
            Self::Week => date.checked_sub_days(Days::new(date.weekday().num_days_from_monday().into()))?,
            Self::Month => date.with_day(1)?,
        };
        self.starting(start)
    }

    /// Returns the next window. `None` if that window exceeds the calendar.
    pub(super) fn after(self, window: Window) -> Option<Window> {
        self.starting(window.end)
    }

    /// Returns the window that starts this many windows before another one. `None` if that window exceeds the calendar.
    pub(super) fn before(self, window: Window, count: u32) -> Option<Window> {
        let start = match self {
            Self::Day => window.start.checked_sub_days(Days::new(count.into())),
            Self::Week => window.start.checked_sub_days(Days::new(7 * u64::from(count))),
            Self::Month => window.start.checked_sub_months(Months::new(count)),
        };
        self.starting(start?)
    }

    fn starting(self, start: NaiveDate) -> Option<Window> {
        let end = match self {
            Self::Day => start.succ_opt(),
            Self::Week => start.checked_add_days(Days::new(7)),
            Self::Month => start.checked_add_months(Months::new(1)),
        };
        Some(Window { start, end: end? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn window(length: WindowLength, of: &str) -> (String, String) {
        let Window { start, end } = length.window_of(date(of)).unwrap();
        (start.to_string(), end.to_string())
    }

    #[test]
    fn weeks_start_on_monday() {
        for day in ["2026-01-05", "2026-01-08", "2026-01-11"] {
            assert_eq!(window(WindowLength::Week, day), ("2026-01-05".into(), "2026-01-12".into()));
        }
        assert_eq!(window(WindowLength::Week, "2026-01-01"), ("2025-12-29".into(), "2026-01-05".into()));
    }

    #[test]
    fn months_have_their_own_lengths() {
        assert_eq!(window(WindowLength::Month, "2026-12-31"), ("2026-12-01".into(), "2027-01-01".into()));
        assert_eq!(window(WindowLength::Month, "2028-02-29"), ("2028-02-01".into(), "2028-03-01".into()));
    }

    #[test]
    fn windows_follow_each_other_without_gaps() {
        for length in [WindowLength::Day, WindowLength::Week, WindowLength::Month] {
            let first = length.window_of(date("2026-01-31")).unwrap();
            let next = length.after(first).unwrap();
            assert_eq!(first.end, next.start);
            assert_eq!(length.before(next, 1), Some(first));
            assert_eq!(length.window_of(next.start), Some(next));
        }
    }

    #[test]
    fn the_end_of_the_calendar_is_no_panic() {
        for length in [WindowLength::Day, WindowLength::Week, WindowLength::Month] {
            assert_eq!(length.window_of(NaiveDate::MAX), None);
            let first = length.window_of(date("2026-01-31")).unwrap();
            assert_eq!(length.before(first, u32::MAX), None);
        }
    }
}
