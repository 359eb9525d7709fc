//! The spans of flushes and collections in a trace.

use anyhow::Result;
use boundary_usage::{CollectOptions, Options};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::faults::{Fault, Faults};
use boundary_usage_tests::usage::id;
use boundary_usage_tests::{plugin, until};
use std::time::Duration;

use crate::secrets::Log;

#[tokio::test]
async fn d10_spans_contain_the_replica_the_flush_number_and_the_outcome() -> Result<()> {
    let (log, _guard) = Log::start();
    let test = TestDatabase::sqlite()?;
    let (database, faults) = Faults::in_front_of(&test.connect().await?);
    // The tracker runs on this thread, because the log has no spans of other threads.
    let (tracker, running) = plugin().start_local(id(1), database.clone(), Options::default()).await?;
    let spans = |name: &str| -> Vec<String> {
        let (text, begins) = (log.text(), format!(" {name}{{"));
        let ended = text.lines().filter(|line| line.contains(": close time.busy="));
        let inside = ended.filter_map(|line| Some(line.split_once(&begins)?.1.split_once("}: ")?.0.to_owned()));
        inside.collect()
    };
    let work = async {
        tracker.flush().await?;
        for fault in [Some(Fault::Upsert), None, Some(Fault::CommitReplyLost), None] {
            tracker.track(id(2), id(3), 1, 0)?;
            fault.into_iter().for_each(|fault| faults.inject(fault));
            assert_eq!(tracker.flush().await.is_err(), fault.is_some());
        }
        database.collect(CollectOptions::default()).await?;
        database.collect(CollectOptions { interval: Some(Duration::from_secs(1_800)), ..Default::default() }).await?;
        // The driver's thread may close a span after its reply. The next collection fails before it reaches that
        // thread, so its span could close earlier.
        until(|| spans("collection").len() == 2).await;
        faults.inject(Fault::Begin);
        assert!(database.collect(CollectOptions::default()).await.is_err());
        tracker.shutdown().await?;
        anyhow::Ok(())
    };
    tokio::join!(running, work).1?;

    let flushes = spans("flush");
    let begins: Vec<_> = flushes.iter().map(|flush| flush.split(" error=").next().unwrap()).collect();
    let of = |rest: &str| format!("replica={} {rest}", id(1));
    let expected = [
        of("outcome=\"idle\""),
        of("outcome=\"failed\""),
        of("outcome=\"written\" flush=1"),
        of("outcome=\"unknown\""),
        of("outcome=\"written\" flush=3"),
        of("outcome=\"idle\""),
    ];
    assert_eq!(begins, expected, "{}", log.text());
    assert!(flushes[1].contains(" error=\""), "{}", flushes[1]);
    let collections = spans("collection");
    assert_eq!(collections[0], "period=1 replicas=1 outcome=\"closed\"");
    assert_eq!(collections[1], "outcome=\"not due\"");
    assert!(collections[2].starts_with("outcome=\"failed\" error=\""), "{}", collections[2]);
    Ok(())
}
