//! The numbers of each window of a report (H4), as Rust types and as JSON.

use chrono::NaiveDate;
use serde::Serialize;

use super::actives::Row;
use super::estimated::Estimated;
use super::window::WindowLength;

/// The usage of each window of a range. Windows without activity are included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The length of the windows.
    pub by: WindowLength,
    /// The last day that was pruned. `None` if no day was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pruned_day: Option<NaiveDate>,
    /// The windows, oldest first.
    pub rows: Vec<ReportRow>,
}

/// The usage of one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportRow {
    /// The first date.
    pub start: NaiveDate,
    /// The date after the last one.
    pub end: NaiveDate,
    /// Whether the window is over and all its periods are closed.
    ///
    /// Replicas may still have activity of the window that they have not flushed.
    pub complete: bool,
    /// Whether a period ended clearly after the midnight that ends its day.
    ///
    /// If so, the day contains activity of the next day.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spans_midnight: bool,
    /// Whether a number of the window lacks pruned days: of the window, of the previous one, or of the last 30 days.
    ///
    /// `active` and `new` are right if the window starts after the last pruned day.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pruned: bool,
    /// Allowed requests.
    pub allowed_requests: u64,
    /// Denied requests.
    pub denied_requests: u64,
    /// The users.
    pub users: WindowActivity,
    /// The workspaces.
    pub workspaces: WindowActivity,
}

/// The activity of users or workspaces in a window.
pub type WindowActivity = Estimated<WindowCounts>;

/// Numbers of users or of workspaces in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WindowCounts {
    /// Ids that were active in the window.
    pub active: u64,
    /// Ids that were active for the first time.
    pub new: u64,
    /// Ids that were active in this window and in the previous one.
    pub returning: u64,
    /// Ids that were active in this window and earlier, but not in the previous one.
    pub resurrected: u64,
    /// Ids that were active in the previous window and not in this one.
    pub lost: u64,
    /// Ids that were active in the 7 days that end with this day. `None` unless the windows are days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_7_days: Option<u64>,
    /// Ids that were active in the 30 days that end with this day. `None` unless the windows are days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_30_days: Option<u64>,
}

impl From<&Row> for WindowActivity {
    fn from(row: &Row) -> Self {
        let all = [row.active, row.new, row.returning, row.resurrected, row.lost];
        Self::new(all.into_iter().chain(row.rolling.into_iter().flatten()), |value| WindowCounts {
            active: value(row.active),
            new: value(row.new),
            returning: value(row.returning),
            resurrected: value(row.resurrected),
            lost: value(row.lost),
            active_7_days: row.rolling.map(|[week, _]| value(week)),
            active_30_days: row.rolling.map(|[_, month]| value(month)),
        })
    }
}
