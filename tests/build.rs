//! Builds the misbehaving component for the tests.

#[path = "../host/boundary-usage/build/component.rs"]
mod component;

use std::process::ExitCode;

use component::Component;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=guests/misbehaving");
    let misbehaving = Component { package: "boundary-usage-misbehaving", features: "", file: "misbehaving.wasm" };
    if let Err(error) = component::build("..", &misbehaving) {
        println!("cargo::error=cannot build the misbehaving component: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
