//! The program `boundary-usage`, a command line around the library.
//!
//! ```text
//! boundary client ──▶ audit_socket ──▶ Tracker (component, flush loop) ──▶ database ──▶ collect ──▶ delivery
//!                     replay_file ───▶
//! ```
//!
//! | module | duty |
//! | --- | --- |
//! | [`cli`], [`arguments`] | the command line, and the options that several commands share |
//! | [`commands`] | one file per command |
//! | [`configuration`] | the file that `serve --config` reads |
//! | [`replay_file`] | the files that `replay` reads |
//! | [`audit_socket`] | the boundary client's protocol: server, and a client for the demo and tests |
//! | [`service`] | one serving replica: audit sockets in front of a tracker |
//! | `drop_recorder` | records the logs that clients dropped |
//! | [`state`] | the default path of the state directory |
//! | [`supervisor`] | notifications of systemd |
//! | [`delivery`] | sends the summaries of closed periods |
//! | [`http`] | metrics, health and the status page |
//! | [`signals`] | the signals that stop a command |
//! | [`descriptors`], `slots` | limits of file descriptors and of connections |
//! | [`output`], [`failure`], [`printable`] | results on stdout, errors on stderr, and the escaping of untrusted text |
//! | [`logging`], `log_limit`, `telemetry` | logs, their rate limit, and traces (feature `opentelemetry`) |
//! | `environment` | removes empty environment variables |

#![forbid(unsafe_code)]
// These macros panic if the output cannot be written; `output` does not.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod arguments;
pub mod audit_socket;
pub mod cli;
pub mod commands;
pub mod configuration;
pub mod delivery;
pub mod descriptors;
mod drop_recorder;
mod environment;
pub mod failure;
pub mod http;
mod log_limit;
pub mod logging;
pub mod output;
pub mod printable;
pub mod replay_file;
pub mod service;
pub mod signals;
mod slots;
pub mod state;
pub mod supervisor;
#[cfg(feature = "opentelemetry")]
pub mod telemetry;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use boundary_usage::Error;
use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};
use crate::failure::UsageError;
use crate::logging::Logging;

/// Time limit for tasks that outlive the command, such as a blocked read of stdin.
const RUNTIME_SHUTDOWN_LIMIT: Duration = Duration::from_millis(100);

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    environment::drop_empty_variables();
    match commands::completions::reply_to_script(Cli::command) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&format!("error: {}", output::explain(&error)));
            return ExitCode::FAILURE;
        }
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_wrong = error.use_stderr();
            let code = output::print_parsed(error);
            // Monitoring systems understand the code 2 of usage errors as a critical state of the service.
            return if is_wrong && is_monitor() { ExitCode::from(3) } else { code };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&format!("error: {}", output::explain(&error)));
            ExitCode::from(if is_usage_error(&error) { 2 } else { 1 })
        }
    }
}

/// Returns whether the arguments are those of `monitor`.
fn is_monitor() -> bool {
    std::env::args_os().any(|argument| argument == "monitor")
}

fn run(cli: Cli) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    // `serve` logs its events even without -v, because it runs for a long time and its log is its only output.
    let verbosity = cli.global.verbose.saturating_add(u8::from(matches!(cli.command, Command::Serve(_))));
    let logging = Logging::start(verbosity, runtime.handle())?;
    let result = runtime.block_on(cli.run());
    logging.end();
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_LIMIT);
    result
}

fn is_usage_error(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<UsageError>() || matches!(cause.downcast_ref::<Error>(), Some(Error::Configuration { .. }))
    })
}
