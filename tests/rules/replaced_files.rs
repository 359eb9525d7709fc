//! A SQLite file that is deleted or replaced while it is open never receives usage.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use boundary_usage::{Database, Error};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::expected_usage::manual_tracker;
use boundary_usage_tests::usage::{begin_flush, flush, id, later_update, update};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

/// Returns the file of a test's database.
fn file_of(test: &TestDatabase) -> PathBuf {
    PathBuf::from(test.url.strip_prefix("sqlite:").expect("a SQLite database"))
}

/// Returns the path with a suffix.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Writes a consistent copy of the database, as a backup does.
async fn back_up(test: &TestDatabase) -> Result<PathBuf> {
    let copy = with_suffix(&file_of(test), ".backup");
    let mut connection = SqliteConnection::connect(&test.url).await?;
    connection.execute(AssertSqlSafe(format!("VACUUM INTO '{}'", copy.display()))).await?;
    connection.close().await?;
    Ok(copy)
}

/// Checks that an operation failed because the file changed, and that the error names the file and the change.
fn assert_noticed<T: std::fmt::Debug>(outcome: Result<T, Error>, change: &str) -> Result<()> {
    let Err(error) = outcome else { bail!("used a changed file ({change}): {outcome:?}") };
    let text = format!("{:#}", anyhow::Error::from(error));
    ensure!(text.contains("usage.db") && text.contains(change), "{text}");
    Ok(())
}

/// Returns the allowed requests of the open period in the file at the path.
async fn allowed_in(path: &Path) -> Result<i64> {
    let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await?;
    let sum = "SELECT coalesce(sum(allowed_requests), 0) FROM boundary_usage_stats";
    let allowed = sqlx::query_scalar(sum).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(allowed)
}

#[tokio::test]
async fn a_flush_after_the_file_was_replaced_fails_once_and_keeps_its_activity() -> Result<()> {
    let test = TestDatabase::sqlite()?;
    let database = test.connect().await?;
    let tracker = manual_tracker(1, &database).await?;
    tracker.track(id(1), id(2), 5, 0)?;
    tracker.flush().await?;
    let backup = back_up(&test).await?;
    tracker.track(id(1), id(2), 70, 0)?;
    tracker.flush().await?;
    std::fs::rename(&backup, file_of(&test))?;

    tracker.track(id(3), id(4), 900, 0)?;
    assert_noticed(tracker.flush().await, "was replaced")?;
    tracker.flush().await?;
    // The usage since the backup was in the replaced file only. All later usage is in the new file, which is intact.
    ensure!(allowed_in(&file_of(&test)).await? == 905);
    let status = database.status().await?;
    ensure!((status.rows[0].unique_workspaces, status.rows[0].allowed_requests) == (2, 905), "{status:?}");
    let mut connection = SqliteConnection::connect(&test.url).await?;
    let integrity: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await?;
    ensure!(integrity == "ok", "{integrity}");
    Ok(())
}

#[tokio::test]
async fn a_flush_after_the_file_was_deleted_fails_once_and_the_next_creates_it() -> Result<()> {
    for suffixes in [&[""][..], &["", "-wal", "-shm"]] {
        let test = TestDatabase::sqlite()?;
        let database = test.connect().await?;
        let key = database.backend().hashing_key().await?;
        let tracker = manual_tracker(1, &database).await?;
        tracker.track(id(1), id(2), 5, 0)?;
        tracker.flush().await?;
        for suffix in suffixes {
            std::fs::remove_file(with_suffix(&file_of(&test), suffix))?;
        }
        tracker.track(id(3), id(4), 900, 0)?;
        assert_noticed(tracker.flush().await, "was deleted")?;
        tracker.flush().await?;
        ensure!(allowed_in(&file_of(&test)).await? == 900);
        // The checkpoint and the running component depend on the key, so it must stay the same.
        ensure!(database.backend().hashing_key().await? == key);
        ensure!(test.connect().await?.backend().hashing_key().await? == key);
    }
    Ok(())
}

#[tokio::test]
async fn every_operation_notices_a_replaced_file() -> Result<()> {
    let test = TestDatabase::sqlite()?;
    let database = test.connect().await?;
    flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
    let period = database.collect(Default::default()).await;
    ensure!(period.is_ok(), "{period:?}");
    for operation in ["status", "collect", "claim", "acknowledge", "key"] {
        std::fs::rename(back_up(&test).await?, file_of(&test))?;
        match operation {
            "status" => assert_noticed(database.status().await, "was replaced")?,
            "collect" => assert_noticed(database.collect(Default::default()).await, "was replaced")?,
            "claim" => assert_noticed(database.claim_delivery(Duration::from_secs(60)).await, "was replaced")?,
            "acknowledge" => assert_noticed(database.acknowledge(1).await, "was replaced")?,
            _ => assert_noticed(database.backend().hashing_key().await.map(drop), "was replaced")?,
        }
        ensure!(database.status().await?.periods.len() == 1, "{operation}: the new file is not in use");
    }
    Ok(())
}

#[tokio::test]
async fn a_commit_to_a_file_that_was_just_replaced_has_an_unknown_outcome() -> Result<()> {
    let test = TestDatabase::sqlite()?;
    let database = test.connect().await?;
    flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
    let backup = back_up(&test).await?;
    let mut transaction = begin_flush(database.backend().as_ref(), id(1)).await?;
    transaction.upsert(id(1), &later_update(2, 0..3, 5, 2)).await?;
    std::fs::rename(&backup, file_of(&test))?;
    let committed = transaction.commit().await;
    ensure!(matches!(committed, Err(Error::CommitUnknown { .. })), "{committed:?}");
    Ok(())
}

#[tokio::test]
async fn another_database_at_the_path_is_refused_until_the_original_is_back() -> Result<()> {
    let (test, other) = (TestDatabase::sqlite()?, TestDatabase::sqlite()?);
    let database = test.connect().await?;
    let tracker = manual_tracker(1, &database).await?;
    tracker.track(id(1), id(2), 5, 0)?;
    tracker.flush().await?;
    let backup = back_up(&test).await?;
    other.connect().await?.close().await;
    std::fs::copy(file_of(&other), with_suffix(&file_of(&test), ".other"))?;
    std::fs::rename(with_suffix(&file_of(&test), ".other"), file_of(&test))?;
    tracker.track(id(3), id(4), 900, 0)?;
    assert_noticed(tracker.flush().await, "was replaced")?;
    for _ in 0..2 {
        assert_noticed(tracker.flush().await, "another hashing key")?;
    }
    std::fs::rename(&backup, file_of(&test))?;
    tracker.flush().await?;
    ensure!(allowed_in(&file_of(&test)).await? == 905);
    Ok(())
}

#[tokio::test]
async fn a_deleted_write_ahead_log_is_noticed_and_its_usage_is_kept() -> Result<()> {
    let test = TestDatabase::sqlite()?;
    let database = test.connect().await?;
    let tracker = manual_tracker(1, &database).await?;
    tracker.track(id(1), id(2), 5, 0)?;
    tracker.flush().await?;
    std::fs::remove_file(with_suffix(&file_of(&test), "-wal"))?;
    tracker.track(id(3), id(4), 900, 0)?;
    assert_noticed(tracker.flush().await, "usage.db-wal")?;
    tracker.flush().await?;
    ensure!(allowed_in(&file_of(&test)).await? == 905);
    ensure!(Database::open(&test.url).await?.status().await?.rows[0].allowed_requests == 905);
    Ok(())
}
