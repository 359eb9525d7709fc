//! The range of a report: which windows it has.

use chrono::{DateTime, NaiveDate, Utc};

use super::window::{Window, WindowLength};
use crate::error::Error;

/// The largest number of windows of a report: more than a century of days.
const WINDOWS_MAX: usize = 50_000;

/// The windows of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportRange {
    /// All windows from the first day with activity until now.
    #[default]
    All,
    /// The last windows, including the current one.
    Last(u32),
    /// The windows that overlap a range of dates.
    Dates {
        /// The first date. `None` for the first day with activity.
        from: Option<NaiveDate>,
        /// The date after the last one. `None` for now.
        to: Option<NaiveDate>,
    },
}

/// A range as its first and its last window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    pub(super) length: WindowLength,
    pub(super) first: Window,
    pub(super) last: Window,
}

impl ReportRange {
    /// Returns the windows of the range. `first_day` is the first day with activity.
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if the range is empty, too long, or exceeds the calendar.
    pub(super) fn windows(
        self,
        length: WindowLength,
        now: DateTime<Utc>,
        first_day: Option<NaiveDate>,
    ) -> Result<Windows, Error> {
        let invalid = |message: String| Error::Configuration { message };
        let outside = || invalid("the range of the report exceeds the calendar; choose later dates".to_owned());
        let today = now.date_naive();
        let current = length.window_of(today).ok_or_else(outside)?;
        let (first, last) = match self {
            Self::All => (length.window_of(first_day.unwrap_or(today)).ok_or_else(outside)?.min(current), current),
            Self::Last(0) => return Err(invalid("the report has no window; the number must be at least 1".to_owned())),
            Self::Last(count) => (length.before(current, count - 1).ok_or_else(outside)?, current),
            Self::Dates { from, to } => {
                if let (Some(from), Some(to)) = (from, to)
                    && from >= to
                {
                    return Err(invalid(format!("the range from {from} to {to} has no day; `to` is exclusive")));
                }
                let last_day = to.map(|to| to.pred_opt().ok_or_else(outside)).transpose()?;
                let last = length.window_of(last_day.unwrap_or(today)).ok_or_else(outside)?;
                let first = length.window_of(from.or(first_day).unwrap_or(today)).ok_or_else(outside)?;
                match (from, to) {
                    (Some(_), None) => (first, last.max(first)),
                    _ => (first.min(last), last),
                }
            }
        };
        let windows = Windows { length, first, last };
        match windows.iter().nth(WINDOWS_MAX) {
            None => Ok(windows),
            Some(_) => Err(invalid(format!("the report has more than {WINDOWS_MAX} windows; choose a shorter range"))),
        }
    }
}

impl Windows {
    /// Returns the windows, oldest first.
    pub(super) fn iter(self) -> impl Iterator<Item = Window> {
        let next = move |window: &Window| self.length.after(*window).filter(|next| *next <= self.last);
        std::iter::successors(Some(self.first), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn windows(range: ReportRange, length: WindowLength, first_day: Option<&str>) -> Result<Vec<String>, String> {
        let now = "2026-01-14T12:00:00Z".parse().unwrap();
        let windows = range.windows(length, now, first_day.map(date)).map_err(|error| error.to_string())?;
        Ok(windows.iter().map(|window| window.start.to_string()).collect())
    }

    #[test]
    fn all_windows_are_from_the_first_day_until_now() {
        let days = windows(ReportRange::All, WindowLength::Day, Some("2026-01-12")).unwrap();
        assert_eq!(days, ["2026-01-12", "2026-01-13", "2026-01-14"]);
        assert_eq!(windows(ReportRange::All, WindowLength::Week, None).unwrap(), ["2026-01-12"]);
    }

    #[test]
    fn the_last_windows_include_the_current_one() {
        let last = windows(ReportRange::Last(3), WindowLength::Month, Some("2026-01-12")).unwrap();
        assert_eq!(last, ["2025-11-01", "2025-12-01", "2026-01-01"]);
        assert!(windows(ReportRange::Last(0), WindowLength::Day, None).unwrap_err().contains("at least 1"));
    }

    #[test]
    fn dates_select_the_windows_that_overlap_the_half_open_range() {
        let range =
            |from: Option<&str>, to: Option<&str>| ReportRange::Dates { from: from.map(date), to: to.map(date) };
        let weeks = |from, to| windows(range(from, to), WindowLength::Week, Some("2025-12-20"));
        assert_eq!(weeks(Some("2026-01-11"), Some("2026-01-12")).unwrap(), ["2026-01-05"]);
        assert_eq!(weeks(Some("2026-01-11"), Some("2026-01-13")).unwrap(), ["2026-01-05", "2026-01-12"]);
        assert_eq!(weeks(Some("2026-01-06"), None).unwrap(), ["2026-01-05", "2026-01-12"]);
        assert_eq!(weeks(None, Some("2025-12-30")).unwrap(), ["2025-12-15", "2025-12-22", "2025-12-29"]);
        assert!(weeks(Some("2026-01-11"), Some("2026-01-11")).unwrap_err().contains("no day"));
        assert_eq!(weeks(Some("2027-01-01"), None).unwrap(), ["2026-12-28"]);
    }

    #[test]
    fn a_range_that_is_too_long_is_an_error() {
        let range = ReportRange::Dates { from: Some(date("0001-01-01")), to: None };
        assert!(windows(range, WindowLength::Day, None).unwrap_err().contains("50000"));
        assert!(windows(ReportRange::Last(u32::MAX), WindowLength::Day, None).is_err());
        let last = ReportRange::Dates { from: None, to: Some(NaiveDate::MAX) };
        assert!(windows(last, WindowLength::Month, None).is_err());
    }
}
