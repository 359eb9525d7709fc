//! `component`: describes the embedded component, and writes it to a file.

use std::path::PathBuf;

use anyhow::{Context, Result};
use boundary_usage::{Contract, Plugin};
use clap::{Args, ValueEnum};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::arguments::Global;

/// Show the embedded component's contract, size and hash.
///
/// Any host with a component runtime can load it. It imports only the interfaces shown here, and needs no WASI. The
/// component exists for two worlds, which count in the same way.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// World of the component.
    #[arg(long, value_name = "WORLD", value_enum, default_value_t)]
    world: World,
    /// File to write the component to. [default: not written]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage component
  boundary-usage component --output tracker.wasm
  boundary-usage component --world tracker-blocking --output tracker.wasm";

#[derive(Clone, Copy, Default, ValueEnum)]
enum World {
    /// Async functions, so that the host can call `track` while a flush waits.
    #[default]
    Tracker,
    /// Plain functions, for hosts without async functions.
    TrackerBlocking,
}

impl World {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Tracker => Plugin::embedded_bytes(),
            Self::TrackerBlocking => Plugin::embedded_blocking_bytes(),
        }
    }
}

#[derive(Serialize)]
struct Component {
    #[serde(flatten)]
    contract: Contract,
    bytes: usize,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<PathBuf>,
}

pub(crate) fn run(global: &Global, arguments: &Arguments) -> Result<()> {
    let bytes = arguments.world.bytes();
    let contract = Plugin::contract_of(bytes).context("cannot load the component")?;
    if let Some(file) = &arguments.output {
        std::fs::write(file, bytes).with_context(|| format!("cannot write the component to {}", file.display()))?;
    }
    let component = Component {
        contract,
        bytes: bytes.len(),
        sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        output: arguments.output.clone(),
    };
    global.format.print(&component, || component.human())
}

impl Component {
    fn human(&self) -> String {
        let list = |names: &[String]| names.iter().map(|name| format!("  {name}\n")).collect::<String>();
        let written = self.output.as_ref().map(|file| format!("\nwritten  {}", file.display())).unwrap_or_default();
        format!(
            "imports\n{}exports\n{}size     {} bytes\nsha-256  {}{written}",
            list(&self.contract.imports),
            list(&self.contract.exports),
            self.bytes,
            self.sha256,
        )
    }
}
