//! Tests that run in a process of their own: to be killed, or on a disk that nobody else has.
//!
//! The process is this test binary again, told to run one function that is marked `#[ignore]`, so that nobody runs it
//! otherwise.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::postgres_server::is_root;

/// Where the child finds its files.
pub const DIRECTORY: &str = "BOUNDARY_USAGE_TEST_DIRECTORY";

/// Mounts a disk of a size at a directory, where nobody else sees it and it ends with the process.
const ON_A_DISK: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@""#;

/// A child that runs this function in this directory.
///
/// # Errors
///
/// When the test binary cannot be found.
pub fn child(function: &str, directory: &Path) -> Result<Command> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(arguments(function)).env(DIRECTORY, directory).stdout(Stdio::piped());
    Ok(child)
}

/// Runs this function to its end, with a disk of its own of that size (as `mount` reads it) at the directory.
///
/// # Errors
///
/// When the function fails, or when this machine does not let us mount a disk.
pub async fn run_on_a_disk_of(size: &str, function: &str, directory: &Path) -> Result<()> {
    let mut child = Command::new("unshare");
    if !is_root() {
        child.args(["--user", "--map-root-user"]);
    }
    child.args(["--mount", "--", "sh", "-c", ON_A_DISK, "disk", size]).arg(directory).arg(std::env::current_exe()?);
    child.args(arguments(function)).env(DIRECTORY, directory);
    let output = tokio::task::spawn_blocking(move || child.output()).await?.context("cannot run `unshare`")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.contains("1 passed"), "{function} on a disk of its own: {out}{err}");
    Ok(())
}

fn arguments(function: &str) -> [&str; 4] {
    ["--exact", function, "--ignored", "--nocapture"]
}

/// The directory that the parent has told.
///
/// # Errors
///
/// When there is no parent.
pub fn directory() -> Result<String> {
    std::env::var(DIRECTORY).context("this is for child processes")
}
