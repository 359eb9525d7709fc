//! Logs, to stderr: stdout is for answers.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::cli::Command;

/// Starts logging. `serve` says what happens even without `-v`: it runs for long, and its log is all it says.
pub fn start(command: &Command, verbosity: u8) {
    let level = match verbosity + u8::from(matches!(command, Command::Serve(_))) {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    // Libraries stay at warnings: what they say is for those who set RUST_LOG.
    let ours = format!("warn,boundary_usage={level},boundary_usage_cli={level}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}
