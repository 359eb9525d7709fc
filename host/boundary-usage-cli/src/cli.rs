//! The command line, and the dispatch to its commands.

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use crate::arguments::Global;
use crate::commands::{
    check, collect, completions, component, deliver, demo, export, init, man, monitor, prune, replay, report, serve,
    status,
};
use crate::failure::UsageError;
use crate::output::Format;

/// Counts the workspaces, users and requests of an egress boundary.
///
/// Audit sockets receive the boundary's decisions, and a sandboxed WebAssembly component counts them. The counts are
/// flushed to a database, and a collection turns each period's counts into a summary.
#[derive(Parser)]
#[command(name = "boundary-usage", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// The options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage demo
  boundary-usage serve --socket audit.sock --workspace UUID --owner UUID
  boundary-usage replay monday.jsonl
  boundary-usage collect --format json
  boundary-usage report --by week
  boundary-usage export --format csv --output days.csv
  boundary-usage prune --replicas-idle-for 90d --dry-run

Exit codes: 0 done, 1 failed, 2 usage error; 128 plus the signal's number if a signal stopped `replay`.";

/// The commands. The doc comment of a command's arguments is the help of the command.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "a doc comment of a variant would replace the help, its long form too")]
pub enum Command {
    Serve(Box<serve::Arguments>),
    Replay(replay::Arguments),
    Collect(collect::Arguments),
    Status(status::Arguments),
    Report(report::Arguments),
    Export(export::Arguments),
    Deliver(deliver::Arguments),
    Monitor(monitor::Arguments),
    Check(check::Arguments),
    Prune(prune::Arguments),
    Init(init::Arguments),
    Component(component::Arguments),
    Demo(demo::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

impl Cli {
    /// Runs the command, and returns its exit code.
    ///
    /// # Errors
    ///
    /// Returns the error of a command that failed.
    pub async fn run(self) -> Result<ExitCode> {
        let Self { global, command } = self;
        check(global.format, &command)?;
        match command {
            Command::Serve(arguments) => return serve::run(&global, *arguments).await,
            Command::Replay(arguments) => return replay::run(&global, arguments).await,
            Command::Collect(arguments) => collect::run(&global, arguments).await?,
            Command::Status(arguments) => status::run(&global, arguments).await?,
            Command::Report(arguments) => report::run(&global, arguments).await?,
            Command::Export(arguments) => return export::run(&global, arguments).await,
            Command::Deliver(arguments) => deliver::run(&global, arguments).await?,
            Command::Check(arguments) => return check::run(&global, arguments).await,
            Command::Monitor(arguments) => return monitor::run(&global, arguments).await,
            Command::Prune(arguments) => prune::run(&global, arguments).await?,
            Command::Init(arguments) => init::run(&global, arguments).await?,
            Command::Component(arguments) => component::run(&global, &arguments)?,
            Command::Completions(arguments) => completions::run(&arguments)?,
            Command::Man(arguments) => man::run(&global, &arguments, Self::command())?,
            Command::Demo(arguments) => return demo::run(&global, arguments).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Refuses the formats that a command does not support.
fn check(format: Format, command: &Command) -> Result<(), UsageError> {
    match (format, command) {
        (Format::Csv, Command::Report(_)) | (Format::Csv | Format::Parquet, Command::Export(_)) => Ok(()),
        (Format::Csv, _) => Err(UsageError("--format csv is for `report` and `export` only".into())),
        (Format::Parquet, _) => Err(UsageError("--format parquet is for `export` only".into())),
        (Format::Human | Format::Json, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("boundary-usage "), "{} has no example", command.get_name());
        }
    }
}
