//! The binary `boundary-usage`; see the library of the same crate.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    boundary_usage_cli::main()
}
