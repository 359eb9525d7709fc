//! `report`: shows who was active, from the days of one or several databases.

mod bars;
mod csv;
mod human;

use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use boundary_usage::{Database, History, ReportOptions, ReportRange, WindowLength};
use chrono::NaiveDate;
use clap::{Args, ValueEnum};

use super::CANNOT_USE;
use crate::arguments::{Global, check_range, parse_date};
use crate::failure::UsageError;
use crate::output::{Format, print_bytes};

/// Report the active users and workspaces of days, weeks or months, and their retention.
///
/// Each window has these numbers for users and for workspaces: `active`; `new` are active for the first time;
/// `returning` were active in the previous window, too; `resurrected` were active earlier, but not in the previous
/// window; `lost` were active in the previous window, but not in this one. So active = new + returning + resurrected.
/// If the windows are days, `7 days` and `30 days` were active in the 7 or 30 days that end with this one. Windows are
/// in UTC, and weeks start on Monday.
///
/// The numbers come from closed periods. They are exact as long as no set behind them has more than 16,384 ids. Beyond
/// that, they are estimates with 95 % bounds, which JSON shows. This command changes nothing, and works with the role
/// boundary_usage_collector.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Length of the windows.
    #[arg(long, value_name = "LENGTH", value_enum, default_value_t)]
    by: By,

    /// First date. The windows that overlap the range are shown. [default: the first day with activity]
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    from: Option<NaiveDate>,

    /// Date after the last one. [default: the end of the current window]
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    to: Option<NaiveDate>,

    /// Number of windows, including the current one. [default: all windows since the first day with activity]
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "to"])]
    last: Option<NonZeroU32>,

    /// Show cohorts instead: how many of the ids that were new in a window are active later.
    ///
    /// `active_after_days` counts those that were active at least 7, 30 or 90 days after their first day. It is empty
    /// while that time has not come for the whole cohort.
    #[arg(long)]
    retention: bool,

    /// Database URL, instead of --database. Several databases are merged: an id that several of them saw counts once.
    ///
    /// All must have the same hashing key, which `boundary-usage init` sets.
    #[arg(long = "from-database", value_name = "URL")]
    from_databases: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage report
  boundary-usage report --by week --last 12 --format csv
  boundary-usage report --by month --from 2026-01-01 --to 2027-01-01
  boundary-usage report --by week --retention
  boundary-usage report --from-database URL --from-database URL";

#[derive(Clone, Copy, Default, ValueEnum)]
enum By {
    /// UTC days.
    #[default]
    Day,
    /// ISO weeks.
    Week,
    /// Calendar months.
    Month,
}

impl Arguments {
    fn options(&self) -> Result<ReportOptions> {
        check_range(self.from, self.to)?;
        let by = match self.by {
            By::Day => WindowLength::Day,
            By::Week => WindowLength::Week,
            By::Month => WindowLength::Month,
        };
        let range = match (self.last, self.from, self.to) {
            (Some(count), _, _) => ReportRange::Last(count.get()),
            (None, None, None) => ReportRange::All,
            (None, from, to) => ReportRange::Dates { from, to },
        };
        Ok(ReportOptions { by, range })
    }
}

pub(crate) async fn run(global: &Global, arguments: Arguments) -> Result<()> {
    let options = arguments.options()?;
    let urls = match &arguments.from_databases[..] {
        [] => std::slice::from_ref(&global.database),
        several => several,
    };
    let (mut databases, mut names, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for url in urls {
        let name = Database::name(url).unwrap_or_default();
        // Several paths can lead to one file.
        let place = std::fs::canonicalize(&name).unwrap_or_else(|_| PathBuf::from(&name));
        if places.contains(&place) {
            bail!(UsageError(format!("the database {name} is given twice, and its requests would count twice")));
        }
        let opened = Database::open(url).await;
        let context = || match arguments.from_databases.is_empty() {
            true => CANNOT_USE.to_owned(),
            false => format!("cannot use the database {name} of --from-database"),
        };
        databases.push(opened.with_context(context)?);
        names.push(name);
        places.push(place);
    }
    let printed = print(global.format, &databases, &names, options, arguments.retention).await;
    for database in databases {
        database.close().await;
    }
    printed
}

async fn print(
    format: Format,
    databases: &[Database],
    names: &[String],
    options: ReportOptions,
    shows_retention: bool,
) -> Result<()> {
    let history = History::of(databases, names).await.context("cannot merge the databases")?;
    if shows_retention {
        let retention = history.retention(options).await.context("cannot report")?;
        return match format {
            Format::Csv => print_bytes(&csv::retention(&retention)?),
            _ => format.print(&retention, || human::retention(&retention)),
        };
    }
    let report = history.report(options).await.context("cannot report")?;
    match format {
        Format::Csv => print_bytes(&csv::report(&report)?),
        _ => format.print(&report, || human::report(&report)),
    }
}
