//! `export`: writes the days or the closed periods as CSV, JSON or Parquet.

mod csv_rows;
mod destination;
mod json_rows;
#[cfg(feature = "parquet")]
mod parquet_rows;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use boundary_usage::{Database, Error};
use chrono::NaiveDate;
use clap::{Args, ValueEnum, ValueHint};
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use tracing::info;

use self::csv_rows::CsvRows;
use self::destination::Destination;
use self::json_rows::JsonRows;
use self::table::{Column, Row, Table};
use super::open;
use crate::arguments::{Global, check_range, parse_date};
use crate::failure::UsageError;
use crate::output::Format;
use crate::printable;
use crate::signals::StopSignals;

/// Export the days or the closed periods, for a spreadsheet or an analytics engine.
///
/// The columns have the names of the database's columns, and `key_fingerprint` identifies the hashing key. With
/// `--sketches`, a day also has the sets of its workspaces and users, as Apache DataSketches compact Theta sketches.
/// Sketches of databases with the same hashing key can be merged, by `report` or by an engine such as Apache Spark 4.1.
/// CSV and JSON contain sketches in base64, and Parquet in binary.
///
/// A file is replaced only when the export is complete. If the export fails, the file stays as it was. This command
/// changes nothing in the database, and works with the role boundary_usage_collector.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Rows to export.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    what: What,

    /// Include the sketches of the days.
    #[arg(long)]
    sketches: bool,

    /// First date. A period belongs to the date on which it started. [default: all]
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    from: Option<NaiveDate>,

    /// Date after the last one. [default: all]
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    to: Option<NaiveDate>,

    /// File to write. `-` is stdout. Parquet needs a file. [default: stdout]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage export --format csv --output days.csv
  boundary-usage export --what pruned-days --sketches --format json
  boundary-usage export --what periods --format json --from 2026-01-01
  boundary-usage export --sketches --format parquet --output eu.parquet";

#[derive(Clone, Copy, Default, ValueEnum)]
enum What {
    /// UTC days with activity.
    #[default]
    Days,
    /// Closed periods.
    Periods,
    /// The set of all days that `prune` deleted: at most one row, with the date of the last one.
    PrunedDays,
}

/// The number of times that an export into a file is tried if a database file changes during a read without locks.
const ATTEMPTS: usize = 3;

/// Writes rows in one format.
trait RowWriter: Send {
    fn write(&mut self, row: Row) -> io::Result<()>;

    /// Writes the end, and flushes.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

impl Arguments {
    /// Returns the file to write. `None` means stdout.
    fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|file| *file != Path::new("-"))
    }

    fn check(&self, format: Format) -> Result<(), UsageError> {
        check_range(self.from, self.to)?;
        if matches!(self.what, What::PrunedDays) && (self.from.or(self.to)).is_some() {
            return Err(UsageError("pruned days are one set; --from and --to do not select a part of it".to_owned()));
        }
        if self.sketches && matches!(self.what, What::Periods) {
            return Err(UsageError("periods have no sketches; use --sketches with --what days".to_owned()));
        }
        let wrong = match format {
            Format::Human => "`export` has no format for people; choose --format csv, json or parquet".to_owned(),
            Format::Parquet if !cfg!(feature = "parquet") => "this program was built without Parquet; build it \
                    with `make release`, or with the feature `parquet` of the crate boundary-usage-cli"
                .to_owned(),
            Format::Parquet if self.file().is_none() => "--format parquet needs --output FILE".to_owned(),
            Format::Csv | Format::Json | Format::Parquet => return Ok(()),
        };
        Err(UsageError(wrong))
    }
}

pub(crate) async fn run(global: &Global, arguments: Arguments) -> Result<ExitCode> {
    arguments.check(global.format)?;
    let database = open(global).await?;
    let done = match arguments.file() {
        None => export(&database, global.format, &arguments).await.map(|()| ExitCode::SUCCESS),
        Some(file) => {
            // A signal must not leave a temporary file. An export to stdout has no such file, and may wait for its
            // reader.
            let mut signals = StopSignals::listen()?;
            tokio::select! {
                exported = export(&database, global.format, &arguments) => exported.map(|()| ExitCode::SUCCESS),
                signal = signals.next() => {
                    let message = format!("error: stopped by {}; {} is unchanged", signal.name, printable::path(file));
                    crate::output::print_error(&message);
                    Ok(signal.exit_code())
                }
            }
        }
    };
    database.close().await;
    done
}

async fn export(database: &Database, format: Format, arguments: &Arguments) -> Result<()> {
    let attempts = if arguments.file().is_some() { ATTEMPTS } else { 1 };
    for _ in 1..attempts {
        match try_export(database, format, arguments).await {
            Err(error) if matches!(error.downcast_ref(), Some(Error::Conflict { .. })) => {}
            exported => return exported,
        }
    }
    try_export(database, format, arguments).await
}

async fn try_export(database: &Database, format: Format, arguments: &Arguments) -> Result<()> {
    let key_fingerprint = database.key_fingerprint().await.context("cannot read the key's fingerprint")?.to_string();
    let table = match arguments.what {
        What::Days => Table::days(key_fingerprint, arguments.sketches),
        What::Periods => Table::periods(key_fingerprint),
        What::PrunedDays => Table::pruned_days(key_fingerprint, arguments.sketches),
    };
    let mut reader = database.read_history().await.context("cannot read the history")?;
    let destination = Destination::open(arguments.file())?;
    let mut rows: BoxStream<'_, Result<Row, Error>> = match arguments.what {
        What::Days => reader.days(arguments.from, arguments.to).map_ok(|day| table.day(day)).boxed(),
        What::Periods => reader.periods(arguments.from, arguments.to).map_ok(|period| table.period(period)).boxed(),
        What::PrunedDays => reader.pruned_days().map_ok(|day| table.day(day)).boxed(),
    };
    let mut count = 0_u64;
    let writer = destination.writer().and_then(|output| row_writer(format, &table, output));
    let mut writer = match writer {
        Ok(writer) => writer,
        Err(error) => return destination.failed(error),
    };
    while let Some(row) = rows.next().await {
        if let Err(error) = writer.write(row.context("cannot export")?) {
            return destination.failed(error);
        }
        count += 1;
    }
    if let Err(error) = writer.finish() {
        return destination.failed(error);
    }
    drop(rows);
    reader.close().await;
    destination.complete()?;
    info!(rows = count, "Exported");
    Ok(())
}

fn row_writer(format: Format, table: &Table, output: Box<dyn Write + Send>) -> io::Result<Box<dyn RowWriter>> {
    match format {
        Format::Csv => Ok(Box::new(CsvRows::new(table, output)?)),
        Format::Json => Ok(Box::new(JsonRows::new(table, output)?)),
        #[cfg(feature = "parquet")]
        Format::Parquet => Ok(Box::new(parquet_rows::ParquetRows::new(table, output)?)),
        _ => unreachable!("the arguments are checked"),
    }
}
