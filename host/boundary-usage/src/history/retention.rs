//! The retention of cohorts (H5), as Rust types and as JSON.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::Serialize;

use super::cohorts::{AFTER_DAYS, Cohort};
use super::estimated::Estimated;
use super::window::WindowLength;

/// The cohorts of a range, and how many of their ids stayed active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// The length of the windows.
    pub by: WindowLength,
    /// The last day that was pruned. `None` if no day was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pruned_day: Option<NaiveDate>,
    /// One cohort for each window, oldest first.
    pub cohorts: Vec<CohortRow>,
}

/// The ids that were active for the first time in one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CohortRow {
    /// The first date of the window.
    pub start: NaiveDate,
    /// Whether days of the window were pruned, so that its cohort lacks the ids of these days.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pruned: bool,
    /// The users.
    pub users: CohortActivity,
    /// The workspaces.
    pub workspaces: CohortActivity,
}

/// The activity of a cohort of users or of workspaces.
pub type CohortActivity = Estimated<CohortCounts>;

/// Numbers of a cohort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CohortCounts {
    /// The ids of the cohort.
    pub size: u64,
    /// How many ids of the cohort were active in each window.
    ///
    /// The first window is the cohort's own, and the last one ends the range.
    pub active: Vec<u64>,
    /// How many ids were active at least 7, 30 and 90 days after their first day.
    ///
    /// `None` until that time has passed for all ids of the cohort.
    pub active_after_days: BTreeMap<u64, Option<u64>>,
}

impl CohortActivity {
    pub(super) fn of(cohort: &Cohort, today: NaiveDate) -> Self {
        let come = || AFTER_DAYS.iter().zip(&cohort.active_after).filter(|(days, _)| cohort.has_come(**days, today));
        let all = cohort.active.iter().chain(come().map(|(_, count)| count));
        Self::new(all.copied(), |value| {
            let mut active_after_days: BTreeMap<_, _> = AFTER_DAYS.iter().map(|days| (*days, None)).collect();
            active_after_days.extend(come().map(|(days, count)| (*days, Some(value(*count)))));
            CohortCounts {
                size: value(cohort.active[0]),
                active: cohort.active.iter().copied().map(value).collect(),
                active_after_days,
            }
        })
    }
}
