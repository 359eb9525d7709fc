//! The history: days, and reports over them.
//!
//! A collection adds its period to its UTC day (H1). A report reads all days in order, computes with sets of ids, and
//! changes nothing (H8). A report holds a bounded number of sets, however many days there are. Pruned days are one set
//! (H6), whose ids are not new.
//!
//! ```text
//!  days of each database ──▶ one stream, ordered by day ──▶ users:      windows ──▶ set algebra ──▶ counts
//!                                                       └─▶ workspaces: windows ──▶ set algebra ──▶ counts
//! ```

mod actives;
mod before;
mod cohorts;
mod day;
mod estimated;
mod id_set;
mod range;
mod reader;
mod reading;
mod report;
mod retention;
mod sliding;
#[cfg(test)]
mod tests;
mod walk;
mod window;

pub(crate) use self::before::merge_days;
pub(crate) use self::day::add;
pub use self::estimated::Estimated;
pub use self::range::ReportRange;
pub use self::reader::HistoryReader;
pub use self::report::{Report, ReportRow, WindowActivity, WindowCounts};
pub use self::retention::{CohortActivity, CohortCounts, CohortRow, Retention};
pub use self::window::WindowLength;

use self::actives::Actives;
use self::cohorts::Cohorts;
use self::id_set::IdSet;
use self::reading::Reading;
use crate::database::Database;
use crate::error::Error;

/// Options of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportOptions {
    /// The length of the windows.
    pub by: WindowLength,
    /// The windows.
    pub range: ReportRange,
}

/// The histories of several databases, read as one.
///
/// An id that several databases saw counts once, so all databases must have the same hashing key (H7).
pub struct History<'a> {
    databases: &'a [Database],
}

impl Database {
    /// Reports the actives of each window, and writes nothing.
    ///
    /// ```
    /// use boundary_usage::{Collection, Database, Options, Plugin, ReportOptions};
    /// use uuid::Uuid;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> anyhow::Result<()> {
    /// # let directory = tempfile::tempdir()?;
    /// # std::env::set_current_dir(&directory)?;
    /// let database = Database::connect("sqlite:usage.db").await?;
    /// let tracker = Plugin::embedded()?.start(Uuid::new_v4(), database.clone(), Options::default()).await?;
    /// tracker.track(Uuid::new_v4(), Uuid::new_v4(), 5, 2)?;
    /// tracker.shutdown().await?;
    /// database.collect(Default::default()).await?;
    ///
    /// let report = database.report(ReportOptions::default()).await?;
    /// let today = report.rows.last().expect("the current day is included");
    /// assert_eq!((today.users.counts.active, today.users.counts.new, today.allowed_requests), (1, 1, 5));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if the range is empty or too long.
    /// - [`Error::Refused`] if the sketch of a day is damaged, or if the role may not read the history.
    /// - Any other error of the backend if the database cannot be read.
    pub async fn report(&self, options: ReportOptions) -> Result<Report, Error> {
        History { databases: std::slice::from_ref(self) }.report(options).await
    }

    /// Reports the cohorts of each window and their retention, and writes nothing.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Database::report`].
    pub async fn retention(&self, options: ReportOptions) -> Result<Retention, Error> {
        History { databases: std::slice::from_ref(self) }.retention(options).await
    }
}

impl<'a> History<'a> {
    /// Combines the histories of databases.
    ///
    /// # Errors
    ///
    /// - [`Error::Configuration`] if there is no database.
    /// - [`Error::Refused`] if a database has another hashing key than the first one. `names` identify the databases in
    ///   the message.
    /// - Any other error of a backend if the fingerprint of its key cannot be read.
    pub async fn of(databases: &'a [Database], names: &[String]) -> Result<Self, Error> {
        let Some(first) = databases.first() else {
            return Err(Error::Configuration { message: "a report needs a database".to_owned() });
        };
        let expected = first.key_fingerprint().await?;
        for (database, name) in databases.iter().zip(names).skip(1) {
            let fingerprint = database.key_fingerprint().await?;
            if fingerprint != expected {
                let first = &names[0];
                let what = format!("{name} has the hashing key {fingerprint}, and {first} has {expected}");
                let hint = "only databases with the same key can be merged; see `boundary-usage init`";
                return Err(Error::Refused { message: format!("{what}; {hint}") });
            }
        }
        Ok(Self { databases })
    }

    /// Reports the actives of each window. See [`Database::report`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Database::report`].
    pub async fn report(&self, options: ReportOptions) -> Result<Report, Error> {
        let read = self.read(options, |windows, before| Actives::new(windows.length, windows.first, before)).await?;
        let (users, workspaces) = (read.users.into_rows(), read.workspaces.into_rows());
        let rows = read.windows.iter().zip(users).zip(workspaces);
        let rows = rows.map(|((window, users), workspaces)| {
            let requests = read.requests.get(&window.start).copied().unwrap_or_default();
            ReportRow {
                start: window.start,
                end: window.end,
                complete: read.state.is_complete(window),
                spans_midnight: requests.spans_midnight,
                pruned: read.state.lacks_pruned_days(window, options.by),
                allowed_requests: requests.allowed,
                denied_requests: requests.denied,
                users: (&users).into(),
                workspaces: (&workspaces).into(),
            }
        });
        Ok(Report { by: options.by, last_pruned_day: read.state.last_pruned_day, rows: rows.collect() })
    }

    /// Reports the cohorts of each window and their retention. See [`Database::retention`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Database::report`].
    pub async fn retention(&self, options: ReportOptions) -> Result<Retention, Error> {
        let read = self.read(options, |windows, before| Cohorts::new(windows.first, before)).await?;
        let today = read.state.today_in(read.windows);
        let (users, workspaces) = (read.users.into_cohorts(), read.workspaces.into_cohorts());
        let cohorts = read.windows.iter().zip(users).zip(workspaces);
        let cohorts = cohorts.map(|((window, users), workspaces)| CohortRow {
            start: window.start,
            pruned: read.state.last_pruned_day >= Some(window.start),
            users: CohortActivity::of(&users, today),
            workspaces: CohortActivity::of(&workspaces, today),
        });
        Ok(Retention { by: options.by, last_pruned_day: read.state.last_pruned_day, cohorts: cohorts.collect() })
    }

    /// Reads all days. If a file changed during a read without locks, reads it again.
    async fn read<V: walk::Visitor + Send + 'static>(
        &self,
        options: ReportOptions,
        visitor: impl Fn(range::Windows, IdSet) -> V,
    ) -> Result<Reading<V>, Error> {
        const ATTEMPTS: usize = 3;
        for _ in 1..ATTEMPTS {
            match reading::read(self.databases, options, &visitor).await {
                Err(Error::Conflict { .. }) => {}
                outcome => return outcome,
            }
        }
        reading::read(self.databases, options, &visitor).await
    }
}
