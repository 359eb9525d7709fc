//! Readings of the history for the page.
//!
//! The history changes only at collections, and reading a long history takes a second. So a reading is reused for a
//! minute, and simultaneous requests share it.

use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Database, Report, ReportOptions, ReportRange, Retention, WindowLength};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The time for which a reading is reused.
const FRESH: Duration = Duration::from_secs(60);

/// Time limit for reading the history.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// A report and its retention.
pub(super) type Reading = Arc<(Report, Retention)>;

/// The last readings, one for each length of windows.
#[derive(Default)]
pub(super) struct HistoryReadings {
    readings: [Mutex<Option<(Instant, Reading)>>; 3],
}

impl HistoryReadings {
    /// Returns the history in windows of this length, or the reason why it cannot be read.
    pub(super) async fn read(&self, database: &Database, length: WindowLength) -> Result<Reading, String> {
        let (index, count) = match length {
            WindowLength::Day => (0, 30),
            WindowLength::Week => (1, 16),
            WindowLength::Month => (2, 12),
        };
        let mut last = self.readings[index].lock().await;
        if let Some((read, reading)) = &*last
            && read.elapsed() < FRESH
        {
            return Ok(reading.clone());
        }
        let options = ReportOptions { by: length, range: ReportRange::Last(count) };
        let read = async {
            Ok::<_, boundary_usage::Error>((database.report(options).await?, database.retention(options).await?))
        };
        match tokio::time::timeout(READ_LIMIT, read).await {
            Ok(Ok(reading)) => Ok(last.insert((Instant::now(), Arc::new(reading))).1.clone()),
            Ok(Err(error)) => Err(format!("{:#}", anyhow::Error::from(error))),
            Err(_) => Err(format!("the database did not reply within {READ_LIMIT:?}")),
        }
    }
}
