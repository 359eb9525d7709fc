//! `completions`: prints the script that completes commands in a shell.
//!
//! The script calls the program at each completion, so that every shell completes in the same way.

use std::env;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, Command, ValueEnum};
use clap_complete::env::{CompleteEnv, Shells};

use crate::output;

/// Print the completion script for a shell.
///
/// The script completes commands, options, files and values. It calls the program at each completion: by its name if
/// this command was called by name, otherwise by its absolute path.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Shell to complete in.
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

/// The variable that the script sets to the shell's name when it calls the program.
const VARIABLE: &str = "BOUNDARY_USAGE_COMPLETE";

/// Makes bash quote file names and append a slash to directories.
///
/// Either all candidates are files, or none is.
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

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let shell = arguments.shell.to_possible_value().context("the shell has no name")?;
    let shells = Shells::builtins();
    let completer = shells.completer(shell.get_name()).context("the shell has no completion script")?;
    let mut script = Vec::new();
    let written = completer.write_registration(VARIABLE, PROGRAM, PROGRAM, &this_program(), &mut script);
    written.context("cannot write the completion script")?;
    if matches!(arguments.shell, Shell::Bash) {
        script.extend_from_slice(BASH_FILES.as_bytes());
    }
    output::print_bytes(&script)
}

/// Returns the command with which a script calls this program.
///
/// The command is the program's name if the program was called by name, so that the script works on every machine.
fn this_program() -> String {
    let called = env::args_os().next().unwrap_or_else(|| OsString::from(PROGRAM));
    let path = Path::new(&called);
    let absolute = if path.components().count() > 1 { std::path::absolute(path).ok() } else { None };
    absolute.map_or(called.clone(), OsString::from).to_string_lossy().into_owned()
}

/// Prints the candidates that a completion script requests.
///
/// Returns whether a script called the program.
///
/// # Errors
///
/// Returns an error if the shell is unknown, or if stdout cannot be written.
pub fn reply_to_script(program: impl Fn() -> Command) -> Result<bool> {
    let directory = env::current_dir().ok();
    let complete = CompleteEnv::with_factory(program).var(VARIABLE).bin(PROGRAM).completer(this_program());
    // A clap error would print itself, so only the text of the error is used.
    let replied = complete.try_complete(env::args_os(), directory.as_deref());
    replied.map_err(|error| anyhow::anyhow!("cannot complete: {}", error.to_string().trim_end()))
}
