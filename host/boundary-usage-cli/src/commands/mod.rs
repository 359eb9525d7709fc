//! What each command does, a file for each.

pub mod collect;
pub mod completions;
pub mod component;
pub mod demo;
mod first_connection;
pub mod man;
pub mod replay;
pub mod serve;
pub mod status;

use std::process::ExitCode;

use anyhow::{Context, Result};
use boundary_usage::Database;

use crate::cli::{Cli, Command, Global};

/// Runs a command. Its exit code is its own where "no" is an answer; errors are failures.
///
/// # Errors
///
/// Whatever made the command fail.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { global, command } = cli;
    match command {
        Command::Serve(arguments) => return serve::run(&global, *arguments).await,
        Command::Replay(arguments) => return replay::run(&global, arguments).await,
        Command::Collect(arguments) => collect::run(&global, arguments).await?,
        Command::Status(arguments) => status::run(&global, arguments).await?,
        Command::Component(arguments) => component::run(&global, &arguments)?,
        Command::Completions(arguments) => completions::run(&arguments)?,
        Command::Man(arguments) => man::run(&global, &arguments)?,
        Command::Demo(arguments) => return demo::run(&global, arguments).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Says which setting is meant, and not what it is set to.
const CANNOT_USE: &str = "cannot use the database of --database or BOUNDARY_USAGE_DATABASE";

/// Opens a database that has its schema, to look at it. Commands that only read create no database.
async fn open(global: &Global) -> Result<Database> {
    Database::open(&global.database).await.context(CANNOT_USE)
}

/// Connects to a database that has its schema, to close a period or to record its delivery. Such a command creates no
/// database either: in a wrong directory, it would report zero usage for ever.
async fn connect_to_existing(global: &Global) -> Result<Database> {
    open(global).await?.close().await;
    connect(global).await
}

/// Connects to the database of the global settings. The URL is not in any message: it may hold a password.
async fn connect(global: &Global) -> Result<Database> {
    let database = Database::connect(&global.database).await;
    database.context(CANNOT_USE)
}
