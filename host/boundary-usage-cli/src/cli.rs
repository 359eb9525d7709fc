//! The command line: what can be asked, with which settings.
//!
//! Parsing only; what each command does is in [`commands`](crate::commands).

use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};

use crate::commands::{collect, completions, component, demo, man, replay, serve, status};
use crate::output::Format;

/// Counts who uses an egress boundary, and how much: unique workspaces and users, requests let through and blocked.
///
/// A sandboxed WebAssembly component does the counting. This program feeds it from audit sockets, keeps the counts in
/// a database, and closes a period when it is time.
#[derive(Parser)]
#[command(name = "boundary-usage", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// Settings of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage demo
  boundary-usage serve --socket audit.sock --workspace UUID --owner UUID
  boundary-usage replay monday.jsonl
  boundary-usage collect --format json

Exit codes: 0 done, 1 failed, 2 wrong use; 128 and the signal's number after a signal stopped `replay`.";

/// Settings of all commands. Not `Debug`: a database URL may hold a password.
#[derive(clap::Args)]
pub struct Global {
    /// Where usage is kept: `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST/DATABASE` for several replicas.
    ///
    /// Better in the environment when it holds a password: arguments can be seen by every user of the machine.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "BOUNDARY_USAGE_DATABASE",
        hide_env_values = true,
        default_value = "sqlite:boundary-usage.db"
    )]
    pub database: String,

    /// Output format.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: Format,

    /// Log more to stderr: -v what happens, -vv how. RUST_LOG, when set, decides instead.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands. Each is described by the doc comment of its arguments, which is its help and its page of the manual.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "a doc comment of a variant would replace the help, its long form too")]
pub enum Command {
    Serve(Box<serve::Arguments>),
    Replay(replay::Arguments),
    Collect(collect::Arguments),
    Status(status::Arguments),
    Component(component::Arguments),
    Demo(demo::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// What only the user can mend: ends the program with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// A failure whose message has several lines. Pieces of others in it must be [printable](crate::printable).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// The longest time between two flushes.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest period.
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads a wait of at most an hour.
///
/// # Errors
///
/// If it is not a duration from 1ms to 1h.
pub fn parse_wait(text: &str) -> Result<Duration, String> {
    parse_duration(text, Duration::from_secs(60 * 60), "from 1ms to 1h")
}

/// Reads the wait after the first failed delivery: no longer than after the last one.
///
/// # Errors
///
/// If it is not a duration from 1ms to 5m.
pub fn parse_retry(text: &str) -> Result<Duration, String> {
    parse_duration(text, Duration::from_secs(5 * 60), "from 1ms to 5m")
}

/// Reads the time between two flushes.
///
/// # Errors
///
/// If it is not a duration from 1ms to 1day.
pub fn parse_flush_interval(text: &str) -> Result<Duration, String> {
    parse_duration(text, DAY, "from 1ms to 1day")
}

/// Reads the length of a period.
///
/// # Errors
///
/// If it is not a duration from 1ms to 366days.
pub fn parse_period(text: &str) -> Result<Duration, String> {
    parse_duration(text, YEAR, "from 1ms to 366days")
}

/// Reads a duration from 1ms to the longest one.
fn parse_duration(text: &str, longest: Duration, range: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if (Duration::from_millis(1)..=longest).contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("must be {range}")),
        Err(error) => Err(format!("{error}; write it like 60s, 30m or 1h 30m, {range}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_and_those_beyond_the_range_are_refused_with_it() {
        assert_eq!(parse_period("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_period("366d"), Ok(YEAR));
        for refused in ["0s", "999us", "60", "soon", "366d 1ms", "8000y", "99999999999999999999y"] {
            let message = parse_period(refused).unwrap_err();
            assert!(message.contains("from 1ms to 366days"), "{refused}: {message}");
        }
        assert!(parse_wait("61m").unwrap_err().contains("from 1ms to 1h"));
        assert!(parse_flush_interval("25h").unwrap_err().contains("from 1ms to 1day"));
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("boundary-usage "), "{} has no example", command.get_name());
        }
    }
}
