//! Reads the days and the closed periods as streams, for an export.

use boundary_usage_tracker::{CompactThetaSketch, SketchError};
use chrono::NaiveDate;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::before::damaged_set;
use super::day::damaged;
use crate::database::{Database, PeriodStatus, Purpose, Transaction};
use crate::error::Error;
use crate::records::Day;

/// Reads one state of the history, however long the reading takes.
pub struct HistoryReader {
    transaction: Box<dyn Transaction>,
}

impl Database {
    /// Begins to read the days and the closed periods. The reader changes nothing.
    ///
    /// ```
    /// use boundary_usage::{Collection, Database, Options, Plugin};
    /// use futures_util::StreamExt;
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
    /// let mut reader = database.read_history().await?;
    /// let mut days = reader.days(None, None);
    /// let today = days.next().await.expect("the collection adds its period to a day")?;
    /// assert_eq!((today.allowed, today.denied, today.uniques.users.count), (5, 2, 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Any error of the backend if no transaction can begin.
    pub async fn read_history(&self) -> Result<HistoryReader, Error> {
        Ok(HistoryReader { transaction: self.backend().begin(Purpose::Report).await? })
    }
}

impl HistoryReader {
    /// Reads the days with activity from the date `from` until the day before `to`, oldest first.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if a sketch of a day in the range is damaged, or if the role may not read the history.
    /// - [`Error::Conflict`] if the database changed during a read without locks. The next reader may succeed.
    /// - Any other error of the backend if the days cannot be read.
    pub fn days(&mut self, from: Option<NaiveDate>, to: Option<NaiveDate>) -> BoxStream<'_, Result<Day, Error>> {
        let validated = move |day: Result<Day, Error>| match day {
            Ok(day) => is_within(day.date, from, to)
                .then(|| validate(&day, |name, error| damaged(day.date, name, error)).map(|()| day)),
            Err(error) => Some(Err(error)),
        };
        self.transaction.days().filter_map(move |day| std::future::ready(validated(day))).boxed()
    }

    /// Reads the merged set of the pruned days, if there is one.
    ///
    /// Its date is that of the last pruned day, and its numbers are sums over all of them.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if its sketch is damaged, or if the role may not read the history.
    /// - Any other error of the backend if it cannot be read.
    pub fn pruned_days(&mut self) -> BoxStream<'_, Result<Day, Error>> {
        let read = async {
            let before = self.transaction.read_before().await?;
            before.iter().try_for_each(|before| validate(before, damaged_set))?;
            Ok(stream::iter(before.map(Ok)))
        };
        stream::once(read).try_flatten().boxed()
    }

    /// Reads the closed periods that started from the date `from` until the day before `to`, oldest first.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if the role may not read the periods.
    /// - [`Error::Conflict`] if the database changed during a read without locks. The next reader may succeed.
    /// - Any other error of the backend if the periods cannot be read.
    pub fn periods(
        &mut self,
        from: Option<NaiveDate>,
        to: Option<NaiveDate>,
    ) -> BoxStream<'_, Result<PeriodStatus, Error>> {
        let is_wanted = move |period: &Result<PeriodStatus, Error>| match period {
            Ok(period) => is_within(period.summary.period_start.date_naive(), from, to),
            Err(_) => true,
        };
        self.transaction.periods().filter(move |period| std::future::ready(is_wanted(period))).boxed()
    }

    /// Releases the connection. If a stream was dropped before its end, closes the connection instead.
    pub async fn close(self) {
        self.transaction.rollback().await;
    }
}

fn is_within(date: NaiveDate, from: Option<NaiveDate>, to: Option<NaiveDate>) -> bool {
    from.is_none_or(|from| from <= date) && to.is_none_or(|to| date < to)
}

fn validate(day: &Day, damaged: impl Fn(&str, SketchError) -> Error) -> Result<(), Error> {
    for (name, sketch) in [("workspaces", &day.uniques.workspaces), ("users", &day.uniques.users)] {
        CompactThetaSketch::from_bytes(&sketch.bytes).map_err(|error| damaged(name, error))?;
    }
    Ok(())
}
