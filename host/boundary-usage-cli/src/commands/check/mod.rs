//! `check`: verifies that the content of a database fits together.

mod consistency;

use std::process::ExitCode;

use anyhow::{Context, Result};
use boundary_usage::{Database, DatabaseStatus, Error};
use clap::Args;
use futures_util::StreamExt;
use serde::Serialize;

use self::consistency::{Consistency, Finding};
use super::{CANNOT_USE, open};
use crate::arguments::Global;

/// Verify that the content of the database fits together, and change nothing.
///
/// Checks that periods follow each other without gap or overlap, that the sums and unique counts of days fit those of
/// their periods, that all sketches can be read and have the stored counts, that each row belongs to a flush of its
/// replica, and that deliveries follow the end of their period. Prints what it checked, and for each fault what to do.
/// The exit code is 1 if there is a fault. Reading a large database takes a while.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {}

const EXAMPLES: &str = "\
Examples:
  boundary-usage check
  boundary-usage check --database sqlite:backup.db --format json";

/// The result of the check.
#[derive(Serialize)]
struct Checked {
    periods: u64,
    days: u64,
    rows: u64,
    replicas: u64,
    /// Days whose periods are no longer all in the database, so that their sums cannot be compared.
    days_without_all_periods: u64,
    faults: Vec<Finding>,
}

pub(crate) async fn run(global: &Global, _: Arguments) -> Result<ExitCode> {
    let database = open(global).await?;
    let checked = check(&database).await.context(CANNOT_USE)?;
    database.close().await;
    global.format.print(&checked, || human(&checked))?;
    Ok(if checked.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check(database: &Database) -> Result<Checked, Error> {
    let mut consistency = Consistency::default();
    let mut days = 0;
    // One reader reads one state of the database, although collections continue.
    let mut reader = database.read_history().await?;
    let mut periods = reader.periods(None, None);
    while let Some(period) = periods.next().await {
        consistency.add_period(&period?);
    }
    drop(periods);
    let mut all_days = reader.days(None, None);
    while let Some(day) = all_days.next().await {
        days += 1;
        match day {
            Ok(day) => consistency.add_day(&day),
            Err(Error::Refused { message }) => consistency.damaged(message),
            Err(error) => return Err(error),
        }
    }
    drop(all_days);
    let mut pruned = reader.pruned_days();
    while let Some(set) = pruned.next().await {
        match set {
            Ok(set) => consistency.add_pruned_days(&set),
            Err(Error::Refused { message }) => consistency.damaged(message),
            Err(error) => return Err(error),
        }
    }
    drop(pruned);
    reader.close().await;
    let status: DatabaseStatus = database.full_status().await?;
    consistency.add_status(&status);
    Ok(Checked {
        periods: consistency.periods(),
        days,
        rows: status.rows.len() as u64,
        replicas: status.replicas.len() as u64,
        days_without_all_periods: consistency.days_without_all_periods(),
        faults: consistency.into_findings(),
    })
}

fn human(checked: &Checked) -> String {
    let Checked { periods, days, rows, replicas, days_without_all_periods, faults } = checked;
    let mut text = format!("checked {periods} periods, {days} days, {rows} rows and {replicas} replicas: ");
    match faults.len() {
        0 => text += "no fault",
        1 => text += "1 fault",
        count => text += &format!("{count} faults"),
    }
    if *days_without_all_periods > 0 {
        text +=
            &format!("\n{days_without_all_periods} days were not compared, because some of their periods are pruned");
    }
    for Finding { fault, remedy } in faults {
        text += &format!("\n\n{fault}\n  {remedy}");
    }
    text
}
