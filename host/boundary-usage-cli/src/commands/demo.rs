//! x
use clap::Args;
use anyhow::Result;
use std::process::ExitCode;
/// See
#[derive(Args)]
#[command(after_help = "boundary-usage demo")]
pub struct Arguments {}
pub(super) async fn run(_: &crate::cli::Global, _: Arguments) -> Result<ExitCode> { todo!() }
