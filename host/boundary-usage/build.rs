//! Builds the tracker component for each of its two worlds; the library embeds both.

#[path = "build/component.rs"]
mod component;

use std::process::ExitCode;

fn main() -> ExitCode {
    for (features, file) in [("", "tracker.wasm"), ("blocking", "tracker-blocking.wasm")] {
        if let Err(error) = component::build("../..", features, file) {
            println!("cargo::error=cannot build the component {file}: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
