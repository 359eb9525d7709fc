//! Builds the tracker component, which the library embeds.

#[path = "build/component.rs"]
mod component;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = component::build("../..", "", "tracker.wasm") {
        println!("cargo::error=cannot build the tracker component: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
