//! The commands, one file for each.

mod announcement;
pub mod check;
pub mod collect;
pub mod completions;
pub mod component;
pub mod deliver;
mod delivery_arguments;
pub mod demo;
pub mod export;
pub mod init;
pub mod man;
pub mod monitor;
pub mod prune;
pub mod replay;
pub mod report;
pub mod serve;
pub mod status;

use anyhow::{Context, Result};
use boundary_usage::{Database, Summary};

use crate::arguments::Global;

/// The start of an error message about the database.
///
/// The message names the setting, but not its value, because a database URL may contain a password.
const CANNOT_USE: &str = "cannot use the database of --database or BOUNDARY_USAGE_DATABASE";

/// Describes the logs that clients dropped, on a line of its own. Empty if there are none.
fn not_counted(summary: &Summary) -> String {
    match summary.client_dropped_logs {
        0 => String::new(),
        logs => format!("\nnot counted: at least {logs} logs that clients dropped"),
    }
}

/// Opens an existing database for reading.
///
/// A command that only reads must not create a database.
async fn open(global: &Global) -> Result<Database> {
    Database::open(&global.database).await.context(CANNOT_USE)
}

/// Connects to an existing database for writing.
///
/// A command that closes periods must not create a database. In the wrong directory, such a command would otherwise
/// always report zero usage.
async fn connect_to_existing(global: &Global) -> Result<Database> {
    Database::check_exists(&global.database).await.context(CANNOT_USE)?;
    connect(global).await
}

/// Connects to the database, and creates its schema if it is missing.
async fn connect(global: &Global) -> Result<Database> {
    Database::connect(&global.database).await.context(CANNOT_USE)
}
