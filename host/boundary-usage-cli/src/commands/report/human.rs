//! The report for people: tables of at most 100 columns, with small bars.

use boundary_usage::{CohortRow, Report, ReportRow, Retention, WindowActivity, WindowLength};

use super::bars;

/// The width of the widest line, in characters.
const COLUMNS: usize = 100;

/// The width of the widest bar.
const BAR_MAX: usize = 20;

/// The width of the narrowest bar.
const BAR_MIN: usize = 4;

/// The space between two columns.
const GAP: usize = 2;

/// The number of a cohort's windows that fit on a line.
const COHORT_WINDOWS: usize = 6;

/// Columns of text. The first column is aligned to the left, the others to the right.
struct Columns {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    fn widths(&self) -> Vec<usize> {
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        (0..self.header.len())
            .map(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect()
    }

    /// Formats the columns. If `bar` is given, its bars follow the first column.
    fn format(&self, bar: Option<&dyn Fn(usize, usize) -> String>) -> String {
        let widths = self.widths();
        let text: usize = widths.iter().sum::<usize>() + GAP * widths.len();
        let bar_width = COLUMNS.saturating_sub(text).clamp(BAR_MIN, BAR_MAX);
        let line = |cells: &[String], bar: Option<String>| {
            let mut line = format!("{:<width$}", cells[0], width = widths[0]);
            if let Some(bar) = bar {
                line += &format!("{:GAP$}{bar:<bar_width$}", "");
            }
            for (cell, width) in cells.iter().zip(&widths).skip(1) {
                line += &format!("{:GAP$}{cell:>width$}", "");
            }
            line.trim_end().to_owned()
        };
        let header = line(&self.header, bar.map(|_| String::new()));
        let rows = self.rows.iter().enumerate().map(|(index, row)| line(row, bar.map(|bar| bar(index, bar_width))));
        std::iter::once(header).chain(rows).collect::<Vec<_>>().join("\n")
    }
}

/// Formats a report.
pub(super) fn report(report: &Report) -> String {
    let sections = [
        activity("users", report, |row| &row.users),
        activity("workspaces", report, |row| &row.workspaces),
        requests(report),
    ];
    sections.join("\n\n") + &notes(report)
}

fn name(length: WindowLength) -> &'static str {
    match length {
        WindowLength::Day => "day",
        WindowLength::Week => "week of",
        WindowLength::Month => "month",
    }
}

/// Returns the start of a window with the marks that the notes explain.
fn label(row: &ReportRow, length: WindowLength, is_estimate: bool) -> String {
    let start = match length {
        WindowLength::Month => row.start.format("%Y-%m").to_string(),
        WindowLength::Day | WindowLength::Week => row.start.to_string(),
    };
    let mark = |condition, mark| if condition { mark } else { "" };
    start + mark(!row.complete, "*") + mark(row.spans_midnight, "^") + mark(is_estimate, "~") + mark(row.pruned, "<")
}

fn activity(title: &str, report: &Report, of: impl Fn(&ReportRow) -> &WindowActivity) -> String {
    let mut header = vec![name(report.by), "active", "new", "returning", "resurrected", "lost"];
    if report.by == WindowLength::Day {
        header.extend(["7 days", "30 days"]);
    }
    let mut columns = Columns::new(&header);
    for row in &report.rows {
        let WindowActivity { counts, exact, .. } = of(row);
        let numbers = [counts.active, counts.new, counts.returning, counts.resurrected, counts.lost];
        let rolling = [counts.active_7_days, counts.active_30_days];
        let numbers = numbers.into_iter().chain(rolling.into_iter().flatten());
        let label = label(row, report.by, !exact);
        columns.rows.push(std::iter::once(label).chain(numbers.map(|number| number.to_string())).collect());
    }
    let largest = report.rows.iter().map(|row| of(row).counts.active).max().unwrap_or(0);
    let bar = |index: usize, width| bars::horizontal(of(&report.rows[index]).counts.active, largest, width);
    format!("{title}\n{}", columns.format(Some(&bar)))
}

fn requests(report: &Report) -> String {
    let mut columns = Columns::new(&[name(report.by), "allowed", "denied"]);
    for row in &report.rows {
        let numbers = [row.allowed_requests, row.denied_requests].map(|number| number.to_string());
        columns.rows.push(std::iter::once(label(row, report.by, false)).chain(numbers).collect());
    }
    let all = |row: &ReportRow| row.allowed_requests.saturating_add(row.denied_requests);
    let largest = report.rows.iter().map(all).max().unwrap_or(0);
    let bar = |index: usize, width| bars::horizontal(all(&report.rows[index]), largest, width);
    format!("requests\n{}", columns.format(Some(&bar)))
}

fn notes(report: &Report) -> String {
    let notes = [
        (report.rows.iter().any(|row| !row.complete), "* not complete: the window or one of its periods is not over"),
        (report.rows.iter().any(|row| row.spans_midnight), "^ a period ended after midnight, so days overlap"),
        (
            report.rows.iter().any(|row| !row.users.exact || !row.workspaces.exact),
            "~ estimates; --format json shows their 95 % bounds",
        ),
    ];
    let mut notes: Vec<_> = notes.iter().filter(|(applies, _)| *applies).map(|(_, note)| (*note).to_owned()).collect();
    if let Some(last) = report.last_pruned_day.filter(|_| report.rows.iter().any(|row| row.pruned)) {
        notes.push(format!("< needs pruned days (until {last}); active and new are right after that day"));
    }
    if notes.is_empty() { String::new() } else { format!("\n\n{}", notes.join("\n")) }
}

/// Formats cohorts.
pub(super) fn retention(retention: &Retention) -> String {
    let sections =
        [cohorts("users", retention, |row| &row.users), cohorts("workspaces", retention, |row| &row.workspaces)];
    let mut text = sections.join("\n\n");
    if retention.cohorts.iter().any(|row| row.users.counts.active.len() > COHORT_WINDOWS + 1) {
        text += &format!("\n\nonly {COHORT_WINDOWS} later windows are shown; --format json and csv show all");
    }
    if retention.cohorts.iter().any(|row| !row.users.exact || !row.workspaces.exact) {
        text += "\n\n~ estimates; --format json shows their 95 % bounds";
    }
    if let Some(last) = retention.last_pruned_day.filter(|_| retention.cohorts.iter().any(|row| row.pruned)) {
        text += &format!("\n\n< lacks the ids of pruned days (until {last})");
    }
    text
}

fn cohorts(title: &str, retention: &Retention, of: impl Fn(&CohortRow) -> &boundary_usage::CohortActivity) -> String {
    let longest = retention.cohorts.iter().map(|row| of(row).counts.active.len()).max().unwrap_or(1);
    let later = (longest - 1).min(COHORT_WINDOWS);
    let numbers: Vec<_> = (1..=later).map(|window| format!("+{window}")).collect();
    let mut header = vec![name(retention.by), "new"];
    header.extend(numbers.iter().map(String::as_str));
    header.extend(["≥7 days", "≥30 days", "≥90 days"]);
    let mut columns = Columns::new(&header);
    for row in &retention.cohorts {
        let activity = of(row);
        let counts = &activity.counts;
        let share = |active: u64| share(active, counts.size);
        let marks = [if activity.exact { "" } else { "~" }, if row.pruned { "<" } else { "" }];
        let start = format!("{}{}", row.start, marks.concat());
        let windows =
            (1..=later).map(|window| counts.active.get(window).map_or(String::new(), |active| share(*active)));
        let after = counts.active_after_days.values().map(|active| active.map_or(String::new(), &share));
        columns.rows.push([start, counts.size.to_string()].into_iter().chain(windows).chain(after).collect());
    }
    format!("{title}: how many of those new in a window are active later\n{}", columns.format(None))
}

/// Returns a part of a cohort in percent, with a small bar.
fn share(active: u64, size: u64) -> String {
    if size == 0 {
        return "-".to_owned();
    }
    let share = (active as f64 / size as f64).min(1.0);
    format!("{} {:.0}%", bars::level(share), 100.0 * share)
}

#[cfg(test)]
mod tests {
    use boundary_usage::{CohortActivity, CohortCounts, WindowCounts};

    use super::*;

    fn report_of(number: u64) -> Report {
        let counts = WindowCounts {
            active: number,
            new: number,
            returning: number,
            resurrected: number,
            lost: number,
            active_7_days: Some(number),
            active_30_days: Some(number),
        };
        let activity = WindowActivity { counts, exact: false, low: Some(counts), high: Some(counts) };
        let row = ReportRow {
            start: "2026-01-01".parse().unwrap(),
            end: "2026-01-02".parse().unwrap(),
            complete: false,
            spans_midnight: true,
            pruned: true,
            allowed_requests: u64::MAX,
            denied_requests: 1,
            users: activity.clone(),
            workspaces: activity,
        };
        Report { by: WindowLength::Day, last_pruned_day: "2025-12-31".parse().ok(), rows: vec![row] }
    }

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap()
    }

    #[test]
    fn a_report_fits_100_columns_and_explains_its_marks() {
        for number in [0, 7, 99_999_999] {
            let text = report(&report_of(number));
            assert!(widest(&text) <= COLUMNS, "{text}");
            assert!(
                text.contains("2026-01-01*^~<") && text.contains("(until 2025-12-31)") && text.contains("~ estimates"),
                "{text}"
            );
            assert!(text.contains(&number.to_string()), "{text}");
        }
    }

    #[test]
    fn a_retention_fits_100_columns_and_states_what_it_leaves_out() {
        let counts = CohortCounts {
            size: 99_999_999,
            active: vec![99_999_999; 52],
            active_after_days: [(7, Some(99_999_999)), (30, Some(1)), (90, None)].into(),
        };
        let activity = CohortActivity { counts, exact: true, low: None, high: None };
        let start = "2026-01-05".parse().unwrap();
        let cohort = CohortRow { start, pruned: true, users: activity.clone(), workspaces: activity };
        let text =
            retention(&Retention { by: WindowLength::Week, last_pruned_day: Some(start), cohorts: vec![cohort] });
        assert!(widest(&text) <= COLUMNS, "{text}");
        assert!(
            text.contains("█ 100%") && text.contains("only 6 later windows") && text.contains("2026-01-05<"),
            "{text}"
        );
    }

    #[test]
    fn an_empty_cohort_has_no_shares() {
        assert_eq!(share(0, 0), "-");
        assert_eq!(share(1, 2), "▄ 50%");
    }
}
