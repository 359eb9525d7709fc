//! `man`: the manual, in the form that the program `man` reads.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_mangen::Man;

use crate::cli::{Cli, Global};
use crate::output;

/// Print the manual's first page, or write all of them.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Write a page for the program and one for each command into this directory instead.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage man > boundary-usage.1
  boundary-usage man --output /usr/local/share/man/man1";

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<()> {
    let Some(directory) = &arguments.output else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page).context("cannot write the page")?;
        return output::print_bytes(&page);
    };
    let context = || format!("cannot write the manual into {}", directory.display());
    clap_mangen::generate_to(Cli::command(), directory).with_context(context)?;
    global.format.print(&serde_json::json!({ "output": directory }), || format!("written  {}", directory.display()))
}
