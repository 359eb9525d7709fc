//! Environment variables. An empty variable counts as unset.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Prefixes and suffixes of the variables that this program and its libraries read.
const PREFIXES: [&str; 7] = ["BOUNDARY_USAGE_", "OTEL_", "PG", "RUST_", "SSL_CERT_", "STATE_DIRECTORY", "XDG_"];
const SUFFIXES: [&str; 2] = ["_PROXY", "_proxy"];

/// Executes this program again, in the same process, without the empty variables.
///
/// Returns only if no variable is empty, or if the program cannot be executed again.
///
/// The libraries for TLS, PostgreSQL and proxies read variables, and treat empty ones differently. A running process
/// cannot remove a variable safely.
pub(crate) fn drop_empty_variables() {
    let empty: Vec<_> = env::vars_os().filter(|(name, value)| value.is_empty() && is_read(name)).collect();
    let (false, Ok(program)) = (empty.is_empty(), env::current_exe()) else { return };
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    arguments.next().into_iter().for_each(|name| {
        command.arg0(name);
    });
    empty.iter().for_each(|(name, _)| {
        command.env_remove(name);
    });
    // `exec` returns only if it fails. The program then continues with the empty variables.
    let _ = command.args(arguments).exec();
}

fn is_read(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_other_programs_are_kept() {
        for read in ["BOUNDARY_USAGE_DELIVER", "RUST_LOG", "PGHOST", "SSL_CERT_FILE", "HTTPS_PROXY", "no_proxy"] {
            assert!(is_read(OsStr::new(read)), "{read}");
        }
        for other in ["LS_COLORS", "DISPLAY", "PROXY_X"] {
            assert!(!is_read(OsStr::new(other)), "{other}");
        }
    }
}
