//! The program `boundary-usage`, built in this package so that its tests can run it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    boundary_usage_cli::main()
}
