//! Reads the days of all databases in order, and passes the users and the workspaces to one thread each.

use std::collections::BTreeMap;
use std::pin::Pin;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use futures_util::stream::{BoxStream, Peekable, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ReportOptions;
use super::actives::ROLLING_DAYS;
use super::before::Before;
use super::day::damaged;
use super::id_set::IdSet;
use super::range::Windows;
use super::walk::{Visitor, Walk};
use super::window::{Window, WindowLength};
use crate::database::{Database, Purpose};
use crate::error::Error;
use crate::records::{Day, OpenPeriod};

/// The maximum number of days that wait for a thread. This limit bounds memory, because a sketch has at most 131 kB.
const WAITING_DAYS: usize = 4;

/// The result of reading all days.
pub(super) struct Reading<V> {
    pub(super) windows: Windows,
    pub(super) state: State,
    /// The requests of the windows with activity, by the start of the window.
    pub(super) requests: BTreeMap<NaiveDate, Requests>,
    pub(super) users: V,
    pub(super) workspaces: V,
}

/// The requests of one window.
#[derive(Clone, Copy, Default)]
pub(super) struct Requests {
    pub(super) allowed: u64,
    pub(super) denied: u64,
    pub(super) spans_midnight: bool,
}

/// The state of the databases at the time of the report.
pub(super) struct State {
    now: DateTime<Utc>,
    /// The start of the oldest open period with usage.
    open_since: Option<DateTime<Utc>>,
    pub(super) last_pruned_day: Option<NaiveDate>,
}

impl State {
    fn of(open_periods: &[OpenPeriod], last_pruned_day: Option<NaiveDate>) -> Self {
        let now = open_periods.iter().map(|period| period.now).max().unwrap_or_default();
        let with_usage = open_periods.iter().filter(|period| period.has_usage);
        Self { now, open_since: with_usage.map(|period| period.start).min(), last_pruned_day }
    }

    /// Returns whether a window is over and no open period belongs to it.
    pub(super) fn is_complete(&self, window: Window) -> bool {
        let end = window.end.and_time(NaiveTime::MIN).and_utc();
        self.now >= end && self.open_since.is_none_or(|start| start >= end)
    }

    /// Returns whether a number of a window needs pruned days.
    ///
    /// The numbers need the previous window, and those of a day also the rolling windows that end with it.
    pub(super) fn lacks_pruned_days(&self, window: Window, length: WindowLength) -> bool {
        let first_needed = match length {
            WindowLength::Day => window.start.checked_sub_days(Days::new(ROLLING_DAYS[1] as u64 - 1)),
            WindowLength::Week | WindowLength::Month => length.before(window, 1).map(|previous| previous.start),
        };
        self.last_pruned_day >= Some(first_needed.unwrap_or(NaiveDate::MIN))
    }

    /// Returns the last day of the windows that is not in the future.
    pub(super) fn today_in(&self, windows: Windows) -> NaiveDate {
        let last = windows.last.end.checked_sub_days(Days::new(1)).unwrap_or(windows.last.start);
        self.now.date_naive().min(last)
    }
}

/// Reads the days of the databases until the end of the range.
pub(super) async fn read<V: Visitor + Send + 'static>(
    databases: &[Database],
    options: ReportOptions,
    visitor: impl Fn(Windows, IdSet) -> V,
) -> Result<Reading<V>, Error> {
    let mut transactions = Vec::new();
    let mut open_periods = Vec::new();
    let mut before = Before::empty();
    for database in databases {
        let mut transaction = database.backend().begin(Purpose::Report).await?;
        open_periods.push(transaction.open_period().await?);
        if let Some(pruned) = transaction.read_before().await? {
            before.add(&pruned)?;
        }
        transactions.push(transaction);
    }
    let state = State::of(&open_periods, before.last_day);
    let mut days = Merged::new(transactions.iter_mut().map(|transaction| transaction.days()));
    let first_day = days.next_date().await;
    let windows = options.range.windows(options.by, state.now, first_day)?;
    let start =
        first_day.and_then(|date| options.by.window_of(date)).map_or(windows.first, |window| window.min(windows.first));
    let walk = |before| Walk::new(options.by, start, visitor(windows, before));
    let users = Consumer::start("users", walk(before.users), windows.last);
    let workspaces = Consumer::start("workspaces", walk(before.workspaces), windows.last);
    let mut requests = BTreeMap::<_, Requests>::new();
    while let Some(day) = days.next().await {
        let Day { date, spans_midnight, allowed, denied, uniques, .. } = day?;
        if date >= windows.last.end {
            continue;
        }
        if let Some(window) = options.by.window_of(date).filter(|window| *window >= windows.first) {
            let sum = requests.entry(window.start).or_default();
            sum.allowed = sum.allowed.saturating_add(allowed);
            sum.denied = sum.denied.saturating_add(denied);
            sum.spans_midnight |= spans_midnight;
        }
        if !users.send(date, uniques.users.bytes).await || !workspaces.send(date, uniques.workspaces.bytes).await {
            break;
        }
    }
    let (users, workspaces) = (users.finish().await?, workspaces.finish().await?);
    drop(days);
    for transaction in transactions {
        transaction.rollback().await;
    }
    Ok(Reading { windows, state, requests, users, workspaces })
}

/// A thread that computes with the sets of one kind of id.
struct Consumer<V> {
    days: mpsc::Sender<(NaiveDate, Vec<u8>)>,
    thread: JoinHandle<Result<V, Error>>,
}

impl<V: Visitor + Send + 'static> Consumer<V> {
    fn start(name: &'static str, mut walk: Walk<V>, last: Window) -> Self {
        let (days, mut received) = mpsc::channel::<(NaiveDate, Vec<u8>)>(WAITING_DAYS);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some((date, bytes)) = received.blocking_recv() {
                walk.push(date, IdSet::from_bytes(&bytes).map_err(|error| damaged(date, name, error))?);
            }
            Ok(walk.finish(last))
        });
        Self { days, thread }
    }

    /// Passes a day to the thread. Returns `false` if the thread has failed.
    async fn send(&self, date: NaiveDate, sketch: Vec<u8>) -> bool {
        self.days.send((date, sketch)).await.is_ok()
    }

    async fn finish(self) -> Result<V, Error> {
        drop(self.days);
        self.thread.await.expect("the computation does not panic")
    }
}

type DayStream<'a> = BoxStream<'a, Result<Day, Error>>;

/// The days of several databases, merged in the order of their dates.
struct Merged<'a> {
    databases: Vec<Pin<Box<Peekable<DayStream<'a>>>>>,
}

impl<'a> Merged<'a> {
    fn new(databases: impl Iterator<Item = DayStream<'a>>) -> Self {
        Self { databases: databases.map(|days| Box::pin(days.peekable())).collect() }
    }

    /// Returns the date of the next day. `None` if there is no further day, or if the next day cannot be read.
    async fn next_date(&mut self) -> Option<NaiveDate> {
        let mut first = None;
        for days in &mut self.databases {
            if let Some(Ok(day)) = days.as_mut().peek().await {
                first = Some(first.map_or(day.date, |first: NaiveDate| first.min(day.date)));
            }
        }
        first
    }

    async fn next(&mut self) -> Option<Result<Day, Error>> {
        let mut first: Option<(usize, NaiveDate)> = None;
        for (index, days) in self.databases.iter_mut().enumerate() {
            match days.as_mut().peek().await {
                Some(Ok(day)) if first.is_none_or(|(_, date)| day.date < date) => first = Some((index, day.date)),
                Some(Ok(_)) | None => {}
                Some(Err(_)) => return days.as_mut().next().await,
            }
        }
        self.databases[first?.0].as_mut().next().await
    }
}
