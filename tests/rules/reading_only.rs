//! Commands that only read, for users without write access: `status` writes nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use boundary_usage::Database;
use boundary_usage_tests::child;
use boundary_usage_tests::usage::{flush, id, update};
use tempfile::TempDir;

use crate::program::PROGRAM;

/// Creates a directory that all users can read, with a copy of the program that they can run.
fn directory_for_all() -> Result<TempDir> {
    let directory = TempDir::new()?;
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    std::fs::copy(PROGRAM, directory.path().join("program"))?;
    Ok(directory)
}

async fn with_usage(directory: &Path) -> Result<Database> {
    let database = Database::connect(&url_in(directory)).await?;
    flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
    Ok(database)
}

fn url_in(directory: &Path) -> String {
    format!("sqlite:{}", directory.join("usage.db").display())
}

fn files(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Runs `status` as another user, who owns none of the files.
fn status_as_another_user(directory: &Path) -> Result<()> {
    let mut command = match boundary_usage_tests::postgres_server::is_root() {
        true => Command::new("setpriv"),
        // Only root can change the user. Otherwise the removed write permissions must suffice.
        false => Command::new("env"),
    };
    if boundary_usage_tests::postgres_server::is_root() {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    }
    let program = directory.join("program");
    command.arg(program).args(["status", "--format", "json", "--database", &url_in(directory)]).current_dir("/");
    let output = command.output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.contains("\"allowed_requests\":5"), "{out}{err}");
    Ok(())
}

/// Removes all write permissions from the directory and the database files.
fn forbid_writing(directory: &Path) -> Result<()> {
    for name in files(directory)?.iter().filter(|name| name.starts_with("usage.db")) {
        std::fs::set_permissions(directory.join(name), PermissionsExt::from_mode(0o444))?;
    }
    Ok(std::fs::set_permissions(directory, PermissionsExt::from_mode(0o555))?)
}

#[tokio::test]
async fn status_works_without_write_access_beside_a_running_writer() -> Result<()> {
    let directory = directory_for_all()?;
    let database = with_usage(directory.path()).await?;
    let before = files(directory.path())?;
    ensure!(before.contains(&"usage.db-wal".to_owned()), "the write-ahead log is missing: {before:?}");
    forbid_writing(directory.path())?;
    status_as_another_user(directory.path())?;
    ensure!(files(directory.path())? == before);
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    database.close().await;
    Ok(())
}

#[tokio::test]
async fn status_works_without_write_access_and_without_a_writer() -> Result<()> {
    let directory = directory_for_all()?;
    with_usage(directory.path()).await?.close().await;
    ensure!(files(directory.path())? == ["program", "usage.db"]);
    forbid_writing(directory.path())?;
    status_as_another_user(directory.path())?;
    ensure!(files(directory.path())? == ["program", "usage.db"]);
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    Ok(())
}

#[tokio::test]
async fn opening_for_reading_creates_no_file_and_changes_none() -> Result<()> {
    let directory = directory_for_all()?;
    with_usage(directory.path()).await?.close().await;
    let before = std::fs::read(directory.path().join("usage.db"))?;
    let database = Database::open(&url_in(directory.path())).await?;
    ensure!(database.status().await?.rows[0].allowed_requests == 5);
    database.close().await;
    ensure!(files(directory.path())? == ["program", "usage.db"]);
    ensure!(std::fs::read(directory.path().join("usage.db"))? == before);
    Ok(())
}

#[tokio::test]
async fn status_shows_usage_from_the_log_of_a_crashed_writer() -> Result<()> {
    let directory = directory_for_all()?;
    let database = with_usage(directory.path()).await?;
    // A copy of the open files has the state after a crash, without a process that has them open.
    let copy = directory_for_all()?;
    for name in files(directory.path())?.iter().filter(|name| name.starts_with("usage.db")) {
        std::fs::copy(directory.path().join(name), copy.path().join(name))?;
    }
    database.close().await;
    forbid_writing(copy.path())?;
    status_as_another_user(copy.path())?;
    std::fs::set_permissions(copy.path(), PermissionsExt::from_mode(0o755))?;
    Ok(())
}

#[tokio::test]
async fn status_works_on_a_read_only_disk() -> Result<()> {
    let directory = TempDir::new()?;
    child::run_on_a_disk_of("8m", "reading_only::child_process_on_a_read_only_disk", directory.path()).await
}

/// The child process of [`status_works_on_a_read_only_disk`], not a test.
#[tokio::test]
#[ignore = "run by status_works_on_a_read_only_disk"]
async fn child_process_on_a_read_only_disk() -> Result<()> {
    let directory = child::directory()?;
    with_usage(Path::new(&directory)).await?.close().await;
    let remounted = Command::new("mount").args(["-o", "remount,ro", &directory]).status()?;
    ensure!(remounted.success());
    let database = Database::open(&url_in(Path::new(&directory))).await?;
    ensure!(database.status().await?.rows[0].allowed_requests == 5);
    Ok(())
}
