//! Builds the component that misbehaves on cue, for the tests of what the host does then.

#[path = "../host/boundary-usage/build/component.rs"]
mod component;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = component::build("..", "misbehaving", "misbehaving.wasm") {
        println!("cargo::error=cannot build the component that misbehaves: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
