//! The report as CSV (RFC 4180) for spreadsheets: one line for each window or cohort.

use anyhow::{Context, Result};
use boundary_usage::{CohortActivity, Report, Retention, WindowActivity, WindowCounts};

/// Formats a report. Bounds are empty where numbers are exact.
pub(super) fn report(report: &Report) -> Result<Vec<u8>> {
    let mut header: Vec<String> =
        ["start", "end", "complete", "spans_midnight", "pruned", "allowed_requests", "denied_requests"]
            .map(String::from)
            .into();
    for kind in ["users", "workspaces"] {
        header.extend(COUNTS.map(|(name, _)| format!("{kind}_{name}")));
        header.push(format!("{kind}_exact"));
        for bound in ["low", "high"] {
            header.extend(COUNTS.map(|(name, _)| format!("{kind}_{name}_{bound}")));
        }
    }
    let rows = report.rows.iter().map(|row| {
        let mut cells = vec![
            row.start.to_string(),
            row.end.to_string(),
            row.complete.to_string(),
            row.spans_midnight.to_string(),
            row.pruned.to_string(),
            row.allowed_requests.to_string(),
            row.denied_requests.to_string(),
        ];
        cells.extend([&row.users, &row.workspaces].into_iter().flat_map(activity));
        cells
    });
    write(std::iter::once(header).chain(rows))
}

type Number = fn(&WindowCounts) -> Option<u64>;

const COUNTS: [(&str, Number); 7] = [
    ("active", |counts| Some(counts.active)),
    ("new", |counts| Some(counts.new)),
    ("returning", |counts| Some(counts.returning)),
    ("resurrected", |counts| Some(counts.resurrected)),
    ("lost", |counts| Some(counts.lost)),
    ("active_7_days", |counts| counts.active_7_days),
    ("active_30_days", |counts| counts.active_30_days),
];

fn activity(activity: &WindowActivity) -> Vec<String> {
    let numbers = |counts: Option<&WindowCounts>| {
        COUNTS.map(|(_, number)| counts.and_then(number).map(|number| number.to_string()).unwrap_or_default())
    };
    let mut cells: Vec<_> = numbers(Some(&activity.counts)).into();
    cells.push(activity.exact.to_string());
    cells.extend(numbers(activity.low.as_ref()));
    cells.extend(numbers(activity.high.as_ref()));
    cells
}

/// Formats cohorts. Each cohort has one line for users and one for workspaces.
pub(super) fn retention(retention: &Retention) -> Result<Vec<u8>> {
    let longest = retention.cohorts.iter().map(|cohort| cohort.users.counts.active.len()).max().unwrap_or_default();
    let after = ["active_after_7_days", "active_after_30_days", "active_after_90_days"];
    let fixed = ["start", "kind", "size", "exact"].into_iter().chain(after).chain(["pruned"]);
    let windows = (0..longest).map(|window| format!("active_{window}"));
    let header = fixed.map(String::from).chain(windows).collect();
    let rows = retention.cohorts.iter().flat_map(|cohort| {
        [("users", &cohort.users), ("workspaces", &cohort.workspaces)].map(|(kind, activity)| {
            let CohortActivity { counts, exact, .. } = activity;
            let mut cells = vec![cohort.start.to_string(), kind.into(), counts.size.to_string(), exact.to_string()];
            let text = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
            cells.extend(counts.active_after_days.values().map(|number| text(*number)));
            cells.push(cohort.pruned.to_string());
            cells.extend((0..longest).map(|window| text(counts.active.get(window).copied())));
            cells
        })
    });
    write(std::iter::once(header).chain(rows))
}

fn write(lines: impl Iterator<Item = Vec<String>>) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for line in lines {
        writer.write_record(line).context("cannot write CSV")?;
    }
    writer.into_inner().context("cannot write CSV")
}
