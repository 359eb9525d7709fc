//! Runs a command with the test support for hosts in other languages.
//!
//! The support consists of a PostgreSQL server, the program, a proxy that cuts connections (`postgres-proxy`), a server
//! with a standby (`postgres-standby`), and the misbehaving component. The command finds them by environment variables.
//! The server ends after the command.

#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use boundary_usage_tests::postgres_server::PostgresServer;
use boundary_usage_tests::simulation::Mutation;
use boundary_usage_tests::{Cue, MISBEHAVING_COMPONENT, workspace_of};
use serde_json::Value;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().context("no command; usage: with_support COMMAND [ARGUMENT…]")?;
    let server = PostgresServer::running()?;
    let built = std::env::current_exe()?;
    let status = Command::new(&command)
        .args(arguments)
        .env("BOUNDARY_USAGE_TEST_POSTGRES", server.url("postgres", "postgres"))
        .env("BOUNDARY_USAGE_TEST_PROGRAM", built.with_file_name("program-under-test"))
        .env("BOUNDARY_USAGE_TEST_POSTGRES_PROXY", built.with_file_name("postgres-proxy"))
        .env("BOUNDARY_USAGE_TEST_POSTGRES_STANDBY", built.with_file_name("postgres-standby"))
        .env("BOUNDARY_USAGE_TEST_MISBEHAVING", MISBEHAVING_COMPONENT)
        .env("BOUNDARY_USAGE_TEST_CUES", cues())
        .env("BOUNDARY_USAGE_TEST_MUTATIONS", mutations())
        .status()
        .with_context(|| format!("cannot run {}", command.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns a JSON object with the workspace of each cue.
fn cues() -> String {
    let cues = Cue::ALL.iter().map(|cue| (format!("{cue:?}"), workspace_of(*cue).to_string().into()));
    Value::Object(cues.collect()).to_string()
}

/// Returns a JSON object with the hashing key of each mutation in hexadecimal.
fn mutations() -> String {
    let mutations = Mutation::ALL.iter().map(|mutation| {
        let (first, second) = mutation.hashing_key();
        (format!("{mutation:?}"), format!("{first:016x}{second:016x}").into())
    });
    Value::Object(mutations.collect()).to_string()
}
