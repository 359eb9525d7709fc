//! The program `boundary-usage`, built with the tests so that they can start and kill it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    boundary_usage_cli::main()
}
