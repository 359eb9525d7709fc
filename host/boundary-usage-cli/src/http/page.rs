//! The status page at `/`, a single file that loads nothing else.
//!
//! The server renders all content, so the page works without JavaScript. The page's script only fetches the page again
//! and replaces the old content. The template escapes every text that is inserted into it.

use std::collections::HashMap;

use askama::Template;
use boundary_usage::{DatabaseStatus, PeriodStatus, RowStatus, Summary, TrackerStatus};
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::faults::{self, Fault};
use super::format::{self, Digits};
use super::navigation::{View as Link, views};
use super::plot::{Chart, charts};
use super::view::{SocketTotals, State, Status};

/// The number of past periods shown: a day of half hours.
const PERIODS: usize = 48;

/// The number of undelivered summaries shown, beginning with the oldest.
const UNDELIVERED: usize = 12;

/// Numbers of at least this value have a smaller font on narrow screens.
///
/// Half the width of a phone has room for seven digits with commas.
const LONG: u64 = 10_000_000;

/// The page and its content security policy.
pub(super) struct Rendered {
    pub(super) html: String,
    pub(super) policy: String,
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page {
    /// The nonce with which the browser accepts this page's style and script only.
    nonce: String,
    version: &'static str,
    at: String,
    state: &'static str,
    state_tone: &'static str,
    views: Vec<Link>,
    faults: Vec<Fault>,
    /// Whether the database has been read.
    has_reading: bool,
    since: String,
    age: String,
    numbers: Vec<Number>,
    /// The logs that clients dropped in the open period, or empty.
    dropped: String,
    charts: Vec<Chart>,
    periods: Vec<Period>,
    undelivered: Vec<Undelivered>,
    undelivered_count: Digits,
    /// Whether there may be more undelivered summaries.
    undelivered_at_least: bool,
    replicas: Vec<Replica>,
    /// The number of replicas that are not shown, or empty.
    more: String,
    replica: String,
    facts: Vec<Fact>,
}

/// One of the four numbers of the open period.
struct Number {
    name: &'static str,
    label: &'static str,
    value: u64,
    text: Digits,
    /// Whether the number has a smaller font on narrow screens.
    is_long: bool,
    note: String,
}

struct Period {
    id: i64,
    start: String,
    length: String,
    workspaces: Digits,
    users: Digits,
    allowed: Digits,
    denied: Digits,
    replicas: Digits,
}

/// An undelivered summary.
struct Undelivered {
    id: i64,
    start: String,
    state: String,
    /// The error of the last attempt, or empty if no attempt failed.
    error: String,
}

struct Replica {
    id: Uuid,
    short: String,
    /// Whether this replica serves the page.
    here: bool,
    ago: String,
    flushed_at: String,
    flush: Digits,
    workspaces: Digits,
    users: Digits,
    allowed: Digits,
    denied: Digits,
}

struct Fact {
    name: &'static str,
    label: &'static str,
    text: String,
}

/// Renders a status.
pub(super) fn render(status: &Status) -> Rendered {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let html = Page::new(status, nonce).render().expect("the template cannot fail");
    Rendered { html, policy }
}

impl Page {
    fn new(status: &Status, nonce: String) -> Self {
        let local = &status.local;
        let tracker = local.tracker.as_ref();
        let (state, state_tone) = match local.state {
            State::Starting => ("starting", "waiting"),
            State::Running if status.ready => ("ready", "good"),
            State::Running => ("not ready", "bad"),
            State::Stopping => ("stopping", "waiting"),
        };
        let mut page = Self {
            nonce,
            version: local.version,
            at: format::timestamp(local.at),
            state,
            state_tone,
            views: views(None),
            faults: faults::of(status),
            has_reading: false,
            since: String::new(),
            age: String::new(),
            numbers: Vec::new(),
            dropped: String::new(),
            charts: Vec::new(),
            periods: Vec::new(),
            undelivered: Vec::new(),
            undelivered_count: Digits::default(),
            undelivered_at_least: false,
            replicas: Vec::new(),
            more: String::new(),
            replica: tracker.map(|tracker| tracker.replica.to_string()).unwrap_or_default(),
            facts: match (tracker, &local.sockets) {
                (Some(tracker), Some(sockets)) => facts(tracker, sockets, local.at),
                _ => Vec::new(),
            },
        };
        if let Some(database) = &status.database.status {
            page.show(database, tracker.map(|tracker| tracker.replica), local.at);
        }
        page
    }

    /// Fills in the content of the database.
    fn show(&mut self, database: &DatabaseStatus, here: Option<Uuid>, now: DateTime<Utc>) {
        self.has_reading = true;
        self.since = format::timestamp(database.period_start);
        self.age = format::duration(period_length(&database.so_far));
        self.numbers = numbers(database);
        if database.so_far.client_dropped_logs > 0 {
            self.dropped = format::counted(database.so_far.client_dropped_logs, "log", "logs");
        }
        let past: Vec<_> = database.periods.iter().map(|period| &period.summary).take(PERIODS).collect();
        if !past.is_empty() {
            self.charts = charts(&past).into();
        }
        self.periods = past.into_iter().map(Period::of).collect();
        let undelivered: Vec<_> = database.periods.iter().filter(|period| period.delivered_at.is_none()).collect();
        self.undelivered_count = Digits(database.undelivered.count);
        self.undelivered_at_least = database.undelivered.at_least;
        self.undelivered =
            undelivered.into_iter().rev().take(UNDELIVERED).map(|period| Undelivered::of(period, now)).collect();
        let rows: HashMap<_, _> = database.rows.iter().map(|row| (row.replica, row)).collect();
        if database.more_replicas.count > 0 {
            self.more = database.more_replicas.to_string();
        }
        let shown = database.replicas.iter().map(|replica| {
            let row = rows.get(&replica.replica).copied();
            let number = |number: fn(&RowStatus) -> u64| Digits(row.map(number).unwrap_or_default());
            let id = replica.replica.to_string();
            Replica {
                id: replica.replica,
                short: format!("{}…{}", &id[..8], &id[id.len() - 4..]),
                here: here == Some(replica.replica),
                ago: format::ago(replica.flushed_at, now),
                flushed_at: format::timestamp(replica.flushed_at),
                flush: Digits(replica.last_flush),
                workspaces: number(|row| row.unique_workspaces),
                users: number(|row| row.unique_users),
                allowed: number(|row| row.allowed_requests),
                denied: number(|row| row.denied_requests),
            }
        });
        self.replicas = shown.collect();
    }
}

fn numbers(database: &DatabaseStatus) -> Vec<Number> {
    let so_far = &database.so_far;
    let number =
        |name, label, value, note| Number { name, label, value, text: Digits(value), is_long: value >= LONG, note };
    let (allowed, denied) = (so_far.allowed_requests, so_far.denied_requests);
    let everywhere = || match database.more_rows.count {
        0 => "over all replicas".to_owned(),
        more => format!("at least: without those of {} other replicas", format::count(more)),
    };
    vec![
        number("workspaces", "unique workspaces", so_far.unique_workspaces, everywhere()),
        number("users", "unique users", so_far.unique_users, everywhere()),
        number("allowed", "allowed requests", allowed, format::per_minute(allowed, period_length(so_far))),
        number("denied", "denied requests", denied, format::share(denied, allowed)),
    ]
}

fn period_length(summary: &Summary) -> TimeDelta {
    summary.end() - summary.period_start
}

impl Period {
    fn of(summary: &Summary) -> Self {
        Self {
            id: summary.period_id,
            start: format::timestamp(summary.period_start),
            length: format::duration(period_length(summary)),
            workspaces: Digits(summary.unique_workspaces),
            users: Digits(summary.unique_users),
            allowed: Digits(summary.allowed_requests),
            denied: Digits(summary.denied_requests),
            replicas: Digits(summary.replicas),
        }
    }
}

impl Undelivered {
    fn of(period: &PeriodStatus, now: DateTime<Utc>) -> Self {
        let state = match &period.delivery {
            None => "not tried yet".to_owned(),
            Some(delivery) => {
                let tried = format::counted(delivery.attempts, "attempt", "attempts");
                let last = format::ago(delivery.attempted_at, now);
                let next = if delivery.under_way { "in progress; next attempt" } else { "next attempt" };
                format!("{tried}, last {last}; {next} in {}", format::duration(delivery.next_attempt_at - now))
            }
        };
        Self {
            id: period.summary.period_id,
            start: format::timestamp(period.summary.period_start),
            state,
            error: period.delivery.as_ref().and_then(|delivery| delivery.last_error.clone()).unwrap_or_default(),
        }
    }
}

/// Returns the facts about the replica that serves the page.
fn facts(tracker: &TrackerStatus, sockets: &SocketTotals, now: DateTime<Utc>) -> Vec<Fact> {
    let durations = &tracker.flush_durations;
    let average = match durations.count {
        0 => "none yet".to_owned(),
        count => format!("{:.1} ms on average", durations.sum_seconds / count as f64 * 1_000.0),
    };
    let (written, failed, idle) = (tracker.flushes, tracker.failed_flushes, tracker.idle_flushes);
    let ago = |time: Option<DateTime<Utc>>, never: &str| time.map_or(never.into(), |time| format::ago(time, now));
    let checkpoint = tracker.checkpoint.as_ref().map(|checkpoint| checkpoint.complete_at);
    let clients = format::counted(sockets.connections, "client", "clients");
    let fact = |name, label, text| Fact { name, label, text };
    vec![
        fact(
            "pending",
            "not in the database yet",
            format::counted(tracker.pending_activities, "activity", "activities"),
        ),
        fact(
            "intake",
            "waiting for the component",
            format!(
                "{} of {}",
                format::count(tracker.intake_depth as u64),
                format::count(tracker.intake_capacity as u64)
            ),
        ),
        fact("last-success", "last successful flush", ago(tracker.last_success, "none yet")),
        fact("flushes", "flushes", format!("{written} written, {failed} failed, {idle} idle")),
        fact("duration", "duration of a flush", average),
        fact("checkpoint", "complete checkpoint", ago(checkpoint, "none")),
        fact(
            "sockets",
            "connections",
            format!("{clients} at {}", format::counted(sockets.sockets, "socket", "sockets")),
        ),
        fact("dropped", "dropped by clients", format::counted(sockets.dropped_logs(), "log", "logs")),
    ]
}
