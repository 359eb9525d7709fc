//! The cost of a report over three years of days with full sketches.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use boundary_usage::{Database, Day, HashingKey, Purpose, ReportOptions, Sketch, Uniques};
use boundary_usage_tracker::ThetaSketch;
use chrono::{Days, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::rounds::median;
use crate::start::{peak_resident_bytes, resident_bytes};

const DAYS: u64 = 1_095;

/// The ids of each day. A sketch is full with 16,384.
const IDS_OF_A_DAY: u64 = 25_000;

/// All ids. Days share many of them, so the sets of all days stay large, which is the most expensive case.
const POPULATION: u128 = 60_000;

/// The costs of a report.
pub(crate) struct ReportCosts {
    pub(crate) seconds: f64,
    /// The growth of the process's memory during the report.
    pub(crate) growth_bytes: u64,
    /// The size of the database.
    pub(crate) database_bytes: u64,
}

/// Reports three years by day.
pub(crate) async fn three_years(directory: &Path) -> Result<ReportCosts> {
    let files = tempfile::tempdir_in(directory)?;
    let url = format!("sqlite:{}", files.path().join("usage.db").display());
    write_days(&url).await?;
    let mut times = Vec::new();
    let mut growth_bytes = 0;
    for _ in 0..5 {
        let database = Database::open(&url).await?;
        let before = resident_bytes();
        std::fs::write("/proc/self/clear_refs", "5").context("cannot start to measure the peak of memory")?;
        let start = Instant::now();
        let report = database.report(ReportOptions::default()).await?;
        times.push(start.elapsed().as_secs_f64());
        growth_bytes = growth_bytes.max(peak_resident_bytes().saturating_sub(before));
        ensure!(report.rows.len() as u64 == DAYS, "the report has {} rows", report.rows.len());
        database.close().await;
    }
    let database_bytes = std::fs::metadata(files.path().join("usage.db"))?.len();
    Ok(ReportCosts { seconds: median(times), growth_bytes, database_bytes })
}

async fn write_days(url: &str) -> Result<()> {
    let database = Database::connect(url).await?;
    let first = Utc::now().date_naive() - Days::new(DAYS - 1);
    let mut random = StdRng::seed_from_u64(1);
    for number in 0..DAYS {
        let mut sketch = || {
            let mut set = ThetaSketch::new();
            (0..IDS_OF_A_DAY).for_each(|_| set.insert(HashingKey(1, 2), random.random_range(0..POPULATION)));
            let sketch = set.compact();
            Sketch { count: sketch.count(), bytes: sketch.to_bytes() }
        };
        let uniques = Uniques { workspaces: sketch(), users: sketch() };
        let date = first + Days::new(number);
        let day = Day { date, periods: 48, spans_midnight: false, allowed: 1, denied: 0, uniques };
        let mut transaction = database.backend().begin(Purpose::Collection).await?;
        transaction.write_day(&day).await?;
        transaction.commit().await?;
    }
    database.close().await;
    Ok(())
}
