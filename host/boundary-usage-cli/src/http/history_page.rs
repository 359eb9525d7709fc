//! The views of the history at `/days`, `/weeks` and `/months`.
//!
//! The server renders each view completely, and the views have no script. See [`super::page`] for the status.

use askama::Template;
use boundary_usage::{CohortActivity, CohortRow, Report, ReportRow, Retention, WindowActivity, WindowLength};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::format::{self, Digits};
use super::navigation::{View as Link, views};
use super::page::Rendered;
use super::plot::{Arrangement, Chart, Key, Point, chart};

#[derive(Template)]
#[template(path = "history.html")]
struct Page {
    /// The nonce with which the browser accepts this page's style only.
    nonce: String,
    version: &'static str,
    at: String,
    views: Vec<Link>,
    /// The name of a window.
    length: &'static str,
    /// The reason why the history cannot be read, or empty.
    error: String,
    charts: Vec<Chart>,
    columns: [&'static str; COLUMNS.len()],
    windows: Vec<Window>,
    notes: Vec<&'static str>,
    retentions: Vec<Grid>,
}

/// One window in the table, which lists the newest window first.
struct Window {
    start: String,
    label: String,
    cells: Vec<Cell>,
}

struct Cell {
    name: &'static str,
    number: Digits,
}

/// The retention of users or of workspaces, as a heat map.
struct Grid {
    title: &'static str,
    /// The class of the colour.
    tone: &'static str,
    width: usize,
    /// The number of windows after the first one.
    steps: usize,
    cohorts: Vec<Cohort>,
}

struct Cohort {
    start: String,
    label: String,
    size: Digits,
    description: String,
    cells: Vec<Share>,
}

/// A cell of the heat map.
struct Share {
    x: usize,
    /// The active part of the cohort, from 0 to 1, which is the opacity of the cell.
    share: String,
    title: String,
}

type Number = fn(&ReportRow) -> u64;

/// The columns of the table.
const COLUMNS: [(&str, Number); 12] = [
    ("users", |row| row.users.counts.active),
    ("new users", |row| row.users.counts.new),
    ("returning users", |row| row.users.counts.returning),
    ("resurrected users", |row| row.users.counts.resurrected),
    ("lost users", |row| row.users.counts.lost),
    ("workspaces", |row| row.workspaces.counts.active),
    ("new workspaces", |row| row.workspaces.counts.new),
    ("returning workspaces", |row| row.workspaces.counts.returning),
    ("resurrected workspaces", |row| row.workspaces.counts.resurrected),
    ("lost workspaces", |row| row.workspaces.counts.lost),
    ("allowed", |row| row.allowed_requests),
    ("denied", |row| row.denied_requests),
];

/// Renders a view of the history, or the reason why it cannot be read.
pub(super) fn render(
    length: WindowLength,
    at: DateTime<Utc>,
    history: Result<(&Report, &Retention), &str>,
) -> Rendered {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let mut page = Page {
        nonce,
        version: env!("CARGO_PKG_VERSION"),
        at: format::timestamp(at),
        views: views(Some(length)),
        length: name(length),
        error: String::new(),
        charts: Vec::new(),
        columns: COLUMNS.map(|(name, _)| name),
        windows: Vec::new(),
        notes: Vec::new(),
        retentions: Vec::new(),
    };
    match history {
        Ok((report, retention)) => page.show(report, retention),
        Err(error) => page.error = error.to_owned(),
    }
    Rendered { html: page.render().expect("the template cannot fail"), policy }
}

impl Page {
    fn show(&mut self, report: &Report, retention: &Retention) {
        let rows: Vec<_> = report.rows.iter().rev().collect();
        self.charts = charts(&rows, report.by).into();
        self.windows = rows.iter().map(|row| Window::of(row, report.by)).collect();
        self.notes = notes(report);
        let grid = |title, of| Grid::of(title, retention, of);
        self.retentions = vec![grid("users", |row| &row.users), grid("workspaces", |row| &row.workspaces)];
    }
}

fn name(length: WindowLength) -> &'static str {
    match length {
        WindowLength::Day => "day",
        WindowLength::Week => "week",
        WindowLength::Month => "month",
    }
}

fn label(start: chrono::NaiveDate, length: WindowLength) -> String {
    match length {
        WindowLength::Day | WindowLength::Week => start.format("%-d %b %Y"),
        WindowLength::Month => start.format("%b %Y"),
    }
    .to_string()
}

/// Plots windows, sorted from new to old.
fn charts(rows: &[&ReportRow], length: WindowLength) -> [Chart; 3] {
    let points = |numbers: &dyn Fn(&ReportRow) -> [u64; 2]| {
        let point = |row: &&ReportRow| Point { time: label(row.start, length), numbers: numbers(row) };
        rows.iter().map(point).collect::<Vec<_>>()
    };
    let ends = [rows.last(), rows.first()].map(|row| row.map(|row| label(row.start, length)).unwrap_or_default());
    let uniques = |title, tone, of: fn(&ReportRow) -> &WindowActivity| {
        let points = points(&|row| {
            let counts = of(row).counts;
            [counts.active.saturating_sub(counts.new), counts.new]
        });
        let keys = [Key { name: "active before", tone }, Key { name: "new", tone: "new" }];
        chart(title, keys, &points, Arrangement::Stacked, ends.clone())
    };
    let requests = points(&|row| [row.allowed_requests, row.denied_requests]);
    let keys = ["allowed", "denied"].map(|name| Key { name, tone: name });
    [
        uniques("Users", "users", |row| &row.users),
        uniques("Workspaces", "workspaces", |row| &row.workspaces),
        chart("Requests", keys, &requests, Arrangement::Stacked, ends.clone()),
    ]
}

fn notes(report: &Report) -> Vec<&'static str> {
    let is_estimate = |row: &ReportRow| !row.users.exact || !row.workspaces.exact;
    let notes = [
        (report.rows.iter().any(|row| !row.complete), "The last window is not complete."),
        (report.rows.iter().any(|row| row.spans_midnight), "Some periods ended after midnight, so their days overlap."),
        (report.rows.iter().any(|row| row.pruned), "The first windows lack the activity of pruned days."),
        (report.rows.iter().any(is_estimate), "Numbers of more than 16,384 are estimates."),
    ];
    notes.into_iter().filter(|(applies, _)| *applies).map(|(_, note)| note).collect()
}

impl Window {
    fn of(row: &ReportRow, length: WindowLength) -> Self {
        let cells = COLUMNS.map(|(name, number)| Cell { name, number: Digits(number(row)) });
        Self { start: row.start.to_string(), label: label(row.start, length), cells: cells.into() }
    }
}

impl Grid {
    fn of(title: &'static str, retention: &Retention, of: fn(&CohortRow) -> &CohortActivity) -> Self {
        let windows = retention.cohorts.first().map_or(1, |cohort| of(cohort).counts.active.len());
        let cohorts = retention.cohorts.iter().map(|row| Cohort::of(row.start, &of(row).counts, retention.by));
        Self { title, tone: title, width: windows * 10, steps: windows - 1, cohorts: cohorts.collect() }
    }
}

impl Cohort {
    fn of(start: chrono::NaiveDate, counts: &boundary_usage::CohortCounts, length: WindowLength) -> Self {
        let (size, label, window) = (counts.size, label(start, length), name(length));
        let cells = counts.active.iter().enumerate().map(|(later, active)| {
            let share = if size == 0 { 0.0 } else { (*active as f64 / size as f64).min(1.0) };
            let later_text = format::counted(later as u64, window, &format!("{window}s"));
            let (active, size) = (format::count(*active), format::count(size));
            Share {
                x: later * 10,
                share: format!("{share:.2}"),
                title: format!("{label}, {later_text} later: {active} of {size} ({:.0} %)", 100.0 * share),
            }
        });
        Self {
            start: start.to_string(),
            description: format!("activity of those new in the {window} of {label}"),
            cells: cells.collect(),
            size: Digits(size),
            label,
        }
    }
}
