//! The program `boundary-usage`, built once more in this package, so that its tests can run it as a user does.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    boundary_usage_cli::main()
}
