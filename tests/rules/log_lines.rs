//! Log lines of failures that repeat.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use boundary_usage::{Clock, CollectOptions, Database, Options};
use boundary_usage_tests::faults::{Fault, Faults};
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::usage::id;
use boundary_usage_tests::{plugin, until};

use crate::secrets::Log;

/// Failures that take a little more than two minutes, at one attempt a second.
const FAILURES: usize = 130;

fn failing_database() -> (Database, Faults) {
    let (database, faults) = Faults::in_front_of(&Database::with_backend(Arc::new(ModelDatabase::default())));
    (0..FAILURES).for_each(|_| faults.inject(Fault::Begin));
    (database, faults)
}

/// Returns the lines with a text, from the level on. The log also has the spans of all attempts.
fn lines(log: &Log, text: &str) -> Vec<String> {
    let log = log.text();
    let found = log.lines().filter_map(|line| line.split_once(text));
    found.map(|(_, fields)| format!("{text}{fields}")).collect()
}

/// Returns whether a line has a field with a value.
fn has(line: &str, field: &str, value: impl std::fmt::Display) -> bool {
    format!("{line} ").contains(&format!(" {field}={value} "))
}

#[tokio::test(start_paused = true)]
async fn failed_flushes_are_logged_once_a_minute_with_replica_attempt_and_next_step() -> Result<()> {
    let (log, _guard) = Log::start();
    let (database, faults) = failing_database();
    let second = Duration::from_secs(1);
    let options = Options { flush_interval: second, flush_jitter: 0.0, ..Options::default() };
    // The tracker runs on this thread, because the log has no lines of other threads.
    let (tracker, running) = plugin().start_local(id(1), database, options).await?;
    let work = async {
        tracker.track(id(2), id(3), 1, 0)?;
        until(|| faults.seen().committed > 0).await;
        tracker.shutdown().await?;
        anyhow::Ok(())
    };
    tokio::join!(running, work).1?;

    let failed = lines(&log, "flush failed; the next flush carries its activity");
    assert_eq!(failed.len(), 3, "{failed:#?}");
    for (line, attempt) in failed.iter().zip([1, 61, 121]) {
        assert!(has(line, "replica", id(1)) && has(line, "attempt", attempt) && has(line, "retry_in", "1s"), "{line}");
        assert!(line.contains(" error="), "{line}");
    }
    let succeeded = lines(&log, "the flushes succeed again");
    assert_eq!(succeeded.len(), 1);
    assert!(has(&succeeded[0], "failed_attempts", FAILURES), "{succeeded:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn failed_collections_are_logged_once_a_minute_with_replica_attempt_and_next_step() {
    let (log, _guard) = Log::start();
    let (database, faults) = failing_database();
    let options = CollectOptions { replica: Some(id(1)), ..CollectOptions::default() };
    let collecting = database.collect_every(Duration::from_secs(1_800), options, Default::default(), Clock::system());
    // The waits between attempts grow to one minute and some jitter.
    assert!(tokio::time::timeout(Duration::from_secs(62 * FAILURES as u64), collecting).await.is_err());

    assert_eq!(faults.pending(), 0);
    let failed = lines(&log, "the collection failed; it is tried again");
    // So almost every failure after the first minute has a line.
    assert!((FAILURES - 10..FAILURES).contains(&failed.len()), "{} lines", failed.len());
    assert!(has(&failed[0], "replica", id(1)) && has(&failed[0], "attempt", 1), "{}", failed[0]);
    assert!(failed[0].contains(" retry_in=1."), "{}", failed[0]);
    let second: usize = failed[1].split_once(" attempt=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!((6..9).contains(&second), "{}", failed[1]);
    let succeeded = lines(&log, "the collections succeed again");
    assert!(has(&succeeded[0], "failed_attempts", FAILURES) && has(&succeeded[0], "replica", id(1)), "{succeeded:?}");
}
