//! Tests that need a child process: to kill it, or to give it a separate disk.
//!
//! The child is the same test binary. It runs one test function that is marked `#[ignore]`, so an ordinary test run
//! skips that function.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::postgres_server::is_root;

/// The environment variable with the directory of the child's files.
pub const DIRECTORY: &str = "BOUNDARY_USAGE_TEST_DIRECTORY";

/// Mounts a disk of a given size at a directory, and runs a command.
///
/// It runs in a separate mount namespace. So no other process sees the disk, and the kernel removes it with the
/// process.
const ON_A_DISK: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@""#;

/// Returns the command of a child that runs this function with this directory.
///
/// # Errors
///
/// Returns an error if the path of the test binary is unknown.
pub fn child(function: &str, directory: &Path) -> Result<Command> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(arguments(function)).env(DIRECTORY, directory).stdout(Stdio::piped());
    Ok(child)
}

/// Runs this function in a child, with a separate disk at the directory.
///
/// The size has the format of `mount`, such as `64m`.
///
/// # Errors
///
/// Returns an error if the function fails, or if this machine does not allow the mount.
pub async fn run_on_a_disk_of(size: &str, function: &str, directory: &Path) -> Result<()> {
    let mut child = Command::new("unshare");
    if !is_root() {
        child.args(["--user", "--map-root-user"]);
    }
    child.args(["--mount", "--", "sh", "-c", ON_A_DISK, "disk", size]).arg(directory).arg(std::env::current_exe()?);
    child.args(arguments(function)).env(DIRECTORY, directory);
    let output = tokio::task::spawn_blocking(move || child.output()).await?.context("cannot run `unshare`")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.contains("1 passed"), "{function} failed on a separate disk: {out}{err}");
    Ok(())
}

fn arguments(function: &str) -> [&str; 4] {
    ["--exact", function, "--ignored", "--nocapture"]
}

/// Returns the directory that the parent has passed to this child.
///
/// # Errors
///
/// Returns an error outside a child.
pub fn directory() -> Result<String> {
    std::env::var(DIRECTORY).context("this function runs only in a child process")
}
