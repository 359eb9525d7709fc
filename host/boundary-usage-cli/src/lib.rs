//! The ready host: a command line around the library `boundary_usage`.
//!
//! ```text
//! boundary client ──▶ audit_socket ──▶ Tracker (component, flush loop) ──▶ database ──▶ collect ──▶ delivery
//!                     recording ─────▶
//! ```
//!
//! - [`cli`]: what can be asked; [`commands`]: what is done, a file for each.
//! - [`audit_socket`]: the wire protocol of the boundary client, its server, and a client.
//! - [`service`]: sockets in front of a tracker: one serving replica; [`state`]: what it keeps for its next start.
//! - [`signals`]: those that stop a command in order; [`connecting`]: waits for a database that is away.
//! - [`http`]: what is known of all this, for operators and their monitoring.
//! - [`configuration`]: the file that names the sockets; [`replay_file`]: the files that `replay` reads.
//! - [`descriptors`]: how many sockets and clients there may be; `slots`: places for clients; `log_limit`: lines about them.
//! - [`delivery`]: sends the summaries of closed periods to whoever wants them.
//! - [`output`]: results, on stdout; [`logging`]: logs, on stderr; with the feature `opentelemetry`, `telemetry`: traces.
//! - [`printable`]: untrusted text, made fit for both.

#![forbid(unsafe_code)]
// These panic if the output cannot be written; see `output`.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod audit_socket;
pub mod cli;
pub mod commands;
pub mod configuration;
pub mod connecting;
pub mod delivery;
pub mod descriptors;
mod environment;
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
#[cfg(feature = "opentelemetry")]
pub mod telemetry;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use boundary_usage::Error;
use clap::Parser;

use crate::cli::{Cli, UsageError};
use crate::logging::Logging;

/// What may still run when a command is done: a read of stdin that nobody waits for any more.
const LEFTOVERS: Duration = Duration::from_millis(100);

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    environment::drop_empty_variables();
    match commands::completions::reply_to_script() {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&format!("error: {}", output::explain(&error)));
            return ExitCode::FAILURE;
        }
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::print_parsed(error),
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&format!("error: {}", output::explain(&error)));
            ExitCode::from(if is_usage_error(&error) { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let logging = Logging::start(&cli.command, cli.global.verbose, runtime.handle())?;
    let result = runtime.block_on(commands::run(cli));
    logging.end();
    runtime.shutdown_timeout(LEFTOVERS);
    result
}

fn is_usage_error(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<UsageError>() || matches!(cause.downcast_ref::<Error>(), Some(Error::Configuration { .. }))
    })
}
