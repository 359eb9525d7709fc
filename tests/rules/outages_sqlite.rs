//! Outages of SQLite: a file that is locked, damaged or read-only, a full disk, a killed process.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail, ensure};
use boundary_usage::{Database, Error};
use boundary_usage_tests::child;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::expected_usage::{ExpectedUsage, automatic_tracker, manual_tracker};
use boundary_usage_tests::usage::{begin_flush, flush, id, later_update, update};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor};
use tempfile::TempDir;

#[tokio::test]
async fn d6_a_file_locked_beyond_the_limit_fails_flushes_and_loses_nothing() -> Result<()> {
    let test = TestDatabase::sqlite()?;
    let database = test.connect().await?;
    let trackers = [manual_tracker(1, &database).await?, manual_tracker(2, &database).await?];
    let mut expected = ExpectedUsage::default();
    let mut writer = SqliteConnection::connect(&test.url).await?;
    writer.execute("BEGIN IMMEDIATE").await?;
    expected.track_many(&trackers, 1);
    // Both flush simultaneously, so that the test waits for the limit only once.
    let (first, second) = tokio::join!(trackers[0].flush(), trackers[1].flush());
    for flushed in [first, second] {
        let Err(error) = flushed else { bail!("flushed into a locked file") };
        assert!(matches!(error, Error::Conflict { .. }) && error.to_string().contains("usage.db"), "{error}");
    }
    expected.track_many(&trackers, 1_000);
    writer.execute("ROLLBACK").await?;
    for tracker in &trackers {
        tracker.flush().await?;
    }
    expected.check(&database).await
}

#[tokio::test]
async fn d2_a_full_disk_fails_flushes_and_collections_and_loses_nothing() -> Result<()> {
    let directory = TempDir::new()?;
    child::run_on_a_disk_of("1m", "outages_sqlite::child_process_on_a_full_disk", directory.path()).await
}

/// The child process of [`d2_a_full_disk_fails_flushes_and_collections_and_loses_nothing`], not a test.
#[tokio::test]
#[ignore = "run by d2_a_full_disk_fails_flushes_and_collections_and_loses_nothing"]
async fn child_process_on_a_full_disk() -> Result<()> {
    let directory = PathBuf::from(child::directory()?);
    let database = Database::connect(&url_in(&directory)).await?;
    let trackers = [automatic_tracker(1, &database).await?, automatic_tracker(2, &database).await?];
    let mut expected = ExpectedUsage::default();
    expected.track_many(&trackers, 10);
    expected.settle(&database).await?;
    for _ in 0..3 {
        let ballast = fill(&directory)?;
        expected.track_until_flushes_fail(&trackers, &database, "disk is full").await?;
        expected.track_many(&trackers, 10);
        std::fs::remove_file(ballast)?;
        expected.settle(&database).await?;
    }
    ensure!(integrity(&directory.join("usage.db")).await? == "ok");
    Ok(())
}

/// Fills the disk to the last byte, and returns the file that does.
fn fill(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("ballast");
    let mut ballast = std::fs::File::create(&path)?;
    while ballast.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    Ok(path)
}

fn url_in(directory: &Path) -> String {
    format!("sqlite:{}", directory.join("usage.db").display())
}

async fn integrity(path: &Path) -> Result<String> {
    let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await?;
    let result = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(result)
}

#[tokio::test]
async fn d3_kill_9_during_flushes_keeps_the_file_intact_and_doubles_nothing() -> Result<()> {
    let directory = TempDir::new()?;
    let mut reported = 0;
    for round in 0..8 {
        // Each child is killed after some flushes, at a random point.
        reported = kill_after(5 + round, directory.path()).await?;
    }
    let path = directory.path().join("usage.db");
    ensure!(integrity(&path).await? == "ok");
    let database = Database::connect(&url_in(directory.path())).await?;
    database.collect(Default::default()).await?;
    let status = database.status().await?;
    // Each flush carries one activity with new ids, so its number is the total.
    let last = status.replicas.first().context("the child has flushed")?.last_flush;
    assert!(last == reported || last == reported + 1, "the child reported flush {reported}, the file has flush {last}");
    let sum = |count: fn(&boundary_usage::Summary) -> u64| {
        status.periods.iter().map(|period| count(&period.summary)).sum::<u64>()
    };
    assert_eq!(sum(|summary| summary.allowed_requests), last);
    assert_eq!(sum(|summary| summary.unique_workspaces), last);
    assert!(status.periods.len() > 8, "the child also collects");
    Ok(())
}

/// Kills a child after this number of flushes, and returns the number of its last reported flush.
async fn kill_after(flushes: usize, directory: &Path) -> Result<u64> {
    let mut process = child::child("outages_sqlite::child_process_that_flushes", directory)?;
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut process = process.spawn()?;
        let reported = watch(&mut process, flushes);
        process.kill()?;
        process.wait()?;
        reported.with_context(|| format!("the child in {}", directory.display()))
    })
    .await?
}

fn watch(process: &mut Child, flushes: usize) -> Result<u64> {
    let output = process.stdout.take().context("the child's output is a pipe")?;
    let numbers = BufReader::new(output).lines().filter_map(|line| {
        let line = line.ok()?;
        line.rsplit("flushed ").next()?.parse::<u64>().ok()
    });
    numbers.take(flushes).last().context("the child ended before it flushed")
}

/// The child process that is killed, not a test. Its replica continues with the next flush number.
#[tokio::test]
#[ignore = "run by d3_kill_9_during_flushes_keeps_the_file_intact_and_doubles_nothing"]
async fn child_process_that_flushes() -> Result<()> {
    let database = Database::connect(&url_in(Path::new(&child::directory()?))).await?;
    loop {
        // Like the component, each flush uses the next number and adds an id to the set of the period.
        let mut transaction = begin_flush(database.backend().as_ref(), id(1)).await?;
        let stored = transaction.read(id(1)).await?;
        let last = u128::from(stored.last_flush);
        let open = stored.uniques.map_or(0, |uniques| u128::from(uniques.workspaces.count));
        let ids = last - open..last + 1;
        let update = match open {
            0 => update(stored.last_flush + 1, ids, 1, 0),
            _ => later_update(stored.last_flush + 1, ids, 1, 0),
        };
        transaction.upsert(id(1), &update).await?;
        transaction.commit().await?;
        println!("flushed {}", update.flush);
        if update.flush.is_multiple_of(3) {
            database.collect(Default::default()).await?;
        }
    }
}

/// Creates a closed file with usage, and returns its directory, its path and its expected contents.
async fn file_with_usage() -> Result<(TempDir, PathBuf, ExpectedUsage)> {
    let directory = TempDir::new()?;
    let database = Database::connect(&url_in(directory.path())).await?;
    let mut expected = ExpectedUsage::default();
    let tracker = manual_tracker(1, &database).await?;
    expected.track_many(std::slice::from_ref(&tracker), 1_000);
    tracker.shutdown().await?;
    database.close().await;
    let path = directory.path().join("usage.db");
    Ok((directory, path, expected))
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused_and_not_changed() -> Result<()> {
    let (directory, path, expected) = file_with_usage().await?;
    let good = std::fs::read(&path)?;
    let text = "this is plain text and not a database\n".repeat(200).into_bytes();
    let mut no_header = good.clone();
    no_header[..16].fill(0xaa);
    let mut no_schema = good.clone();
    no_schema[100..4096].fill(0xaa);
    let half = good[..5_000].to_vec();
    for (content, bytes) in [("text", text), ("header", no_header), ("schema", no_schema), ("half", half)] {
        std::fs::write(&path, &bytes)?;
        let Err(error) = Database::connect(&url_in(directory.path())).await.map(drop) else {
            bail!("{content}: accepted");
        };
        assert!(matches!(error, Error::Refused { .. }), "{content}: {error:?}");
        assert!(error.to_string().contains("usage.db"), "{content}: {error}");
        assert!(std::fs::read(&path)? == bytes, "{content}: the file was changed");
    }
    std::fs::write(&path, &good)?;
    expected.check(&Database::connect(&url_in(directory.path())).await?).await
}

#[tokio::test]
async fn d2_a_damaged_file_is_refused_and_its_usage_waits_for_the_repair() -> Result<()> {
    let (directory, path, mut expected) = file_with_usage().await?;
    let good = std::fs::read(&path)?;
    let mut damaged = good.clone();
    damaged[page_of_usage(&path).await?].fill(0xaa);
    std::fs::write(&path, &damaged)?;
    let database = Database::connect(&url_in(directory.path())).await?;
    let tracker = manual_tracker(2, &database).await?;
    expected.track(&tracker);
    for failed in [tracker.flush().await.map(drop), database.collect(Default::default()).await.map(drop)] {
        let Err(error) = failed else { bail!("a damaged file was read") };
        assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("usage.db"), "{error:?}");
    }
    assert!(std::fs::read(&path)? == damaged, "the file was changed");
    expected.track(&tracker);
    std::fs::write(&path, &good)?;
    tracker.flush().await?;
    expected.check(&database).await
}

/// Returns the bytes in the file that are the first page of the usage table.
async fn page_of_usage(path: &Path) -> Result<std::ops::Range<usize>> {
    let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await?;
    let root = "SELECT (rootpage - 1) * 4096 FROM sqlite_master WHERE name = 'boundary_usage_stats'";
    let start = sqlx::query_scalar::<_, i64>(root).fetch_one(&mut connection).await?;
    connection.close().await?;
    let start = usize::try_from(start)?;
    Ok(start..start + 4096)
}

#[tokio::test]
async fn a_read_only_disk_is_refused_and_the_error_names_the_remedy() -> Result<()> {
    let directory = TempDir::new()?;
    child::run_on_a_disk_of("8m", "outages_sqlite::child_process_on_a_read_only_disk", directory.path()).await
}

/// The child process of [`a_read_only_disk_is_refused_and_the_error_names_the_remedy`], not a test.
#[tokio::test]
#[ignore = "run by a_read_only_disk_is_refused_and_the_error_names_the_remedy"]
async fn child_process_on_a_read_only_disk() -> Result<()> {
    let directory = child::directory()?;
    let url = url_in(Path::new(&directory));
    remount(&directory, "ro")?;
    let Err(error) = Database::connect(&url).await.map(drop) else { bail!("created a file on a read-only disk") };
    assert_names_the_remedy(&error);
    remount(&directory, "rw")?;
    let database = Database::connect(&url).await?;
    flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
    database.close().await;
    let before = std::fs::read(Path::new(&directory).join("usage.db"))?;
    remount(&directory, "ro")?;
    let Err(error) = Database::connect(&url).await.map(drop) else { bail!("opened a file on a read-only disk") };
    assert_names_the_remedy(&error);
    ensure!(std::fs::read(Path::new(&directory).join("usage.db"))? == before);
    remount(&directory, "rw")?;
    ensure!(Database::connect(&url).await?.status().await?.rows[0].allowed_requests == 5);
    Ok(())
}

fn assert_names_the_remedy(error: &Error) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("usage.db") && cause.contains("the disk is not read-only"), "{error}: {cause}");
}

fn remount(directory: &str, mode: &str) -> Result<()> {
    let status = Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(directory).status()?;
    ensure!(status.success(), "cannot mount {directory} {mode}");
    Ok(())
}
