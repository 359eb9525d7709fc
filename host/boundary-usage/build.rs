//! Puts the tracker component, which the library embeds, where the compiler finds it: built from the guest's sources, or
//! in a package, which has none, as it was shipped.

#[path = "build/component.rs"]
mod component;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

/// Is in packages only; `scripts/package` puts it there.
const SHIPPED: &str = "component/tracker.wasm";

fn main() -> ExitCode {
    let is_package = !Path::new("../../guest/src/component.rs").exists();
    let result = if is_package { take_shipped() } else { component::build("../..", "", "tracker.wasm") };
    if let Err(error) = result {
        println!("cargo::error=cannot build the tracker component: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn take_shipped() -> Result<()> {
    println!("cargo::rerun-if-changed={SHIPPED}");
    let out = PathBuf::from(component::variable("OUT_DIR")?);
    std::fs::copy(SHIPPED, out.join("tracker.wasm")).with_context(|| format!("cannot copy {SHIPPED}"))?;
    Ok(())
}
