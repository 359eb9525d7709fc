//! Runs a command with what the tests of the hosts in other languages need: a PostgreSQL server, the program, a proxy
//! that cuts connections (`postgres-proxy`), and the component that misbehaves on cue.
//!
//! The command finds them in its environment. The server is gone when the command has ended.

#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use boundary_usage_tests::MISBEHAVING_COMPONENT;
use boundary_usage_tests::postgres_server::PostgresServer;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().context("which command? Usage: with_support COMMAND [ARGUMENT…]")?;
    let server = PostgresServer::running()?;
    let built = std::env::current_exe()?;
    let status = Command::new(&command)
        .args(arguments)
        .env("BOUNDARY_USAGE_TEST_POSTGRES", server.url("postgres", "postgres"))
        .env("BOUNDARY_USAGE_TEST_PROGRAM", built.with_file_name("program-under-test"))
        .env("BOUNDARY_USAGE_TEST_POSTGRES_PROXY", built.with_file_name("postgres-proxy"))
        .env("BOUNDARY_USAGE_TEST_MISBEHAVING", MISBEHAVING_COMPONENT)
        .status()
        .with_context(|| format!("cannot run {}", command.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
