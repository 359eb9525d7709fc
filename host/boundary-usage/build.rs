//! Puts the tracker component, for each of its two worlds, where the compiler finds it: built from the guest's sources, or
//! in a package, which has none, as it was shipped. The library embeds both.

#[path = "build/component.rs"]
mod component;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

/// Is in packages only; `scripts/package` puts the components there.
const SHIPPED: &str = "component";

fn main() -> ExitCode {
    let is_package = !Path::new("../../guest/src/component.rs").exists();
    for (features, file) in [("", "tracker.wasm"), ("blocking", "tracker-blocking.wasm")] {
        let result = if is_package { take_shipped(file) } else { component::build("../..", features, file) };
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
