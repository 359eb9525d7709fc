//! Environment variables: an empty one counts as unset.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What the names begin or end with that this program or a library in it reads.
const PREFIXES: [&str; 7] = ["BOUNDARY_USAGE_", "OTEL_", "PG", "RUST_", "SSL_CERT_", "STATE_DIRECTORY", "XDG_"];
const SUFFIXES: [&str; 2] = ["_PROXY", "_proxy"];

/// Runs this program again, in the same process, without the variables that are empty. Returns if there is none.
///
/// The libraries for TLS, PostgreSQL and proxies read variables by themselves, and an empty one means something else to
/// each. A variable cannot be removed safely from a process that runs.
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
    // It returns only if the program cannot be run again: then the variables keep what they mean to each reader.
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
    fn only_variables_that_are_read_matter() {
        for read in ["BOUNDARY_USAGE_DELIVER", "RUST_LOG", "PGHOST", "SSL_CERT_FILE", "HTTPS_PROXY", "no_proxy"] {
            assert!(is_read(OsStr::new(read)), "{read}");
        }
        for other in ["LS_COLORS", "DISPLAY", "PROXY_X"] {
            assert!(!is_read(OsStr::new(other)), "{other}");
        }
    }
}
