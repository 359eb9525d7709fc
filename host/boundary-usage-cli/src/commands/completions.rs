//! `completions`: what a shell needs to complete this program's commands and flags.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output;

/// Print the completions for a shell.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage completions bash > /usr/share/bash-completion/completions/boundary-usage
  source <(boundary-usage completions zsh)";

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "boundary-usage", &mut script);
    output::print_bytes(&script)
}
