//! `completions`: what a shell needs to complete this program's commands, flags and values.
//!
//! The script calls the program back at each completion, so that files, flags and values are completed in every shell in
//! the same way.

use std::env;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::env::{CompleteEnv, Shells};

use crate::cli::Cli;
use crate::output;

/// Print the completions for a shell.
///
/// The script completes commands, flags, files and values. It calls the program at each completion: by its name if this
/// command was called by name, otherwise by its absolute path.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  source <(boundary-usage completions bash)
  source <(boundary-usage completions zsh)
  boundary-usage completions fish | source";

/// A shell with programmable completion.
#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

const PROGRAM: &str = "boundary-usage";

/// The script sets this variable to the shell's name when it calls the program.
const VARIABLE: &str = "BOUNDARY_USAGE_COMPLETE";

/// Makes bash quote file names, and append a slash to directories. All candidates are files, or none is.
const BASH_FILES: &str = r#"_boundary_usage() {
    _clap_complete_boundary_usage "$@"
    local candidate
    for candidate in "${COMPREPLY[@]}"; do
        [[ -e $candidate ]] || return 0
    done
    [[ ${#COMPREPLY[@]} -eq 0 ]] || compopt -o filenames 2> /dev/null || true
}
complete -o nospace -o bashdefault -F _boundary_usage boundary-usage
"#;

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let shell = arguments.shell.to_possible_value().context("the shell has no name")?;
    let shells = Shells::builtins();
    let completer = shells.completer(shell.get_name()).context("the shell has no completions")?;
    let mut script = Vec::new();
    let written = completer.write_registration(VARIABLE, PROGRAM, PROGRAM, &this_program(), &mut script);
    written.context("cannot write the completions")?;
    if matches!(arguments.shell, Shell::Bash) {
        script.extend_from_slice(BASH_FILES.as_bytes());
    }
    output::print_bytes(&script)
}

/// How a script calls this program: by name if it was called by name, so that the script holds on every machine.
fn this_program() -> String {
    let called = env::args_os().next().unwrap_or_else(|| OsString::from(PROGRAM));
    let path = Path::new(&called);
    let absolute = if path.components().count() > 1 { std::path::absolute(path).ok() } else { None };
    absolute.map_or(called.clone(), OsString::from).to_string_lossy().into_owned()
}

/// Replies to a script that asks for candidates. Returns whether one did.
///
/// # Errors
///
/// If the shell is not known, or stdout cannot be written.
pub fn reply_to_script() -> Result<bool> {
    let directory = env::current_dir().ok();
    let complete = CompleteEnv::with_factory(Cli::command).var(VARIABLE).bin(PROGRAM).completer(this_program());
    // The error is of the parser's kind; its text is all that counts here.
    let replied = complete.try_complete(env::args_os(), directory.as_deref());
    replied.map_err(|error| anyhow::anyhow!("cannot complete: {}", error.to_string().trim_end()))
}
