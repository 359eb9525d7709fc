//! Provides the tracker component of each world for the library to embed.
//!
//! In the repository, this script builds the components from the guest's sources. A published package contains the
//! built components instead of those sources.

#[path = "build/component.rs"]
mod component;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use component::Component;

/// The folder of the components in a package, filled by `scripts/package`.
const SHIPPED: &str = "component";

fn main() -> ExitCode {
    let is_package = !Path::new("../../guest/src/component.rs").exists();
    for (features, file) in [("tracker", "tracker.wasm"), ("tracker-blocking", "tracker-blocking.wasm")] {
        let component = Component { package: "boundary-usage-tracker", features, file };
        let result = if is_package { take_shipped(file) } else { component::build("../..", &component) };
        if let Err(error) = result {
            println!("cargo::error=cannot build the component {file}: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn take_shipped(file: &str) -> Result<()> {
    let shipped = Path::new(SHIPPED).join(file);
    println!("cargo::rerun-if-changed={}", shipped.display());
    let out = PathBuf::from(component::variable("OUT_DIR")?);
    std::fs::copy(&shipped, out.join(file)).with_context(|| format!("cannot copy {}", shipped.display()))?;
    Ok(())
}
