//! Logs that clients reported as dropped: recorded by their replica, collected by any, and named in the payload.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use boundary_usage::{CollectOptions, Database, Lock, LockMode, Options, Plugin, PruneOptions, Purpose};
use boundary_usage_cli::audit_socket::{BoundSockets, Socket};
use boundary_usage_cli::service::Service;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::faults::{Fault, Faults};
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::receiver::Receiver;
use boundary_usage_tests::usage::{flush, id, update};
use serde_json::{Value, json};

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::authority::{assert_denied, database_with_roles, login};
use crate::delivery::{close, url};
use crate::http::{get, with_http};
use crate::program::{Serving, Workplace, one_socket};

/// The logs that a client reports as dropped in [`SESSION`] and in [`STATUS`].
const DROPPED: u64 = 8;

/// A frame that reports 5 logs dropped by the client's queue and 3 by its batch, and no requests.
const STATUS: &[u8] = b"\x02\x00\x00\x06\x12\x04\x08\x05\x10\x03";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Waits until this number of dropped logs is recorded for the open period.
async fn recorded(test: &TestDatabase, logs: u64) -> Result<()> {
    let sum = "SELECT CAST(coalesce(sum(dropped_logs), 0) AS bigint) FROM boundary_usage_client_drops";
    while test.number(sum).await? != i64::try_from(logs)? {}
    Ok(())
}

async fn dropped_in_closed_period(database: &Database) -> Result<u64> {
    let summary = close(database).await?;
    assert_eq!(database.status().await?.periods[0].summary, summary);
    Ok(summary.client_dropped_logs)
}

fn not_counted(logs: u64) -> String {
    format!("at least {logs} logs that clients dropped")
}

on_each_database! {
    async fn another_replica_collects_and_delivers_the_dropped_logs_of_a_client(test) {
        let workplace = Workplace::on(&test.url);
        let socket = workplace.path("audit.sock");
        let arguments = with_http(one_socket(&socket, 1, 2), &["--no-collect", "--flush-interval", "20ms"]);
        let serving = workplace.serve(1, arguments);
        send_and_hang_up(&socket, SESSION);
        recorded(&test, DROPPED).await?;
        let open = workplace.json(["status"])["so_far"].clone();
        assert_eq!(open["client_dropped_logs"], json!(DROPPED));
        let human = workplace.run(["status"]).stdout;
        ensure!(human.contains(&not_counted(DROPPED)), "{human}");
        // The page reads the database at most once a second.
        while !get(&serving.http(), "/").body.contains(&not_counted(DROPPED)) {}

        let receiver = Receiver::start([])?;
        let mut command = workplace.command(["serve", "--format", "json", "--collect-interval", "1s"]);
        command.args(one_socket(&workplace.path("other.sock"), 3, 4)).args(["--deliver", &url(&receiver)]);
        let collector = Serving::start(&mut command, 1);
        let is_named = |body: &Value| body["client_dropped_logs"] == json!(DROPPED);
        // The collector closes a period every second.
        let is_delivered = (1..60).any(|count| receiver.wait_for(count).iter().any(|request| is_named(&request.body)));
        ensure!(is_delivered, "no payload names the dropped logs: {:?}", receiver.received());
        collector.stop();
        serving.stop();
        let received = receiver.received();
        let (named, others): (Vec<_>, Vec<_>) =
            received.iter().map(|request| &request.body).partition(|body| is_named(body));
        assert_eq!(named[0]["incomplete"], json!([{ "reason": "client-drops", "logs": DROPPED }]));
        ensure!(named.len() == 1 && others.iter().all(|body| body["incomplete"] == json!([])), "{received:?}");
        Ok(())
    }

    async fn a_stop_records_the_dropped_logs_since_the_last_recording(test) {
        let workplace = Workplace::on(&test.url);
        let socket = workplace.path("audit.sock");
        let serving = workplace.serve(1, with_http(one_socket(&socket, 1, 2), &["--no-collect"]));
        send_and_hang_up(&socket, &[SESSION, STATUS].concat());
        serving.stop().json();
        let human = workplace.run(["collect"]).stdout;
        ensure!(human.contains(&not_counted(2 * DROPPED)), "{human}");
        assert_eq!(workplace.json(["collect"])["client_dropped_logs"], json!(0));
        let requests = workplace.json(["deliver", "--dry-run", "--deliver", "http://localhost:9"])["requests"].clone();
        let incomplete = json!([{ "reason": "client-drops", "logs": 2 * DROPPED }]);
        assert_eq!([&requests[0]["body"]["incomplete"], &requests[1]["body"]["incomplete"]], [&incomplete, &json!([])]);
        let exported = workplace.json(["export", "--what", "periods"])["periods"][0].clone();
        assert_eq!(exported["client_dropped_logs"], json!(2 * DROPPED));
        assert_eq!(workplace.json(["check"])["faults"], json!([]));
        Ok(())
    }

    async fn a_failed_recording_of_dropped_logs_is_repeated(test) {
        let workplace = Workplace::on(&test.url);
        let socket = workplace.path("audit.sock");
        let arguments = with_http(one_socket(&socket, 1, 2), &["--no-collect", "--flush-interval", "20ms"]);
        let mut serving = workplace.serve(1, arguments);
        test.execute("ALTER TABLE boundary_usage_client_drops RENAME TO elsewhere").await?;
        send_and_hang_up(&socket, STATUS);
        serving.wait_for_log("cannot record dropped logs");
        test.execute("ALTER TABLE elsewhere RENAME TO boundary_usage_client_drops").await?;
        serving.wait_for_log("dropped logs are recorded again");
        recorded(&test, DROPPED).await?;
        serving.stop();
        assert_eq!(dropped_in_closed_period(&test.connect().await?).await?, DROPPED);
        Ok(())
    }

    async fn d3_a_recording_with_an_unknown_outcome_never_counts_twice(test) {
        let database = test.connect().await?;
        for (fault, expected) in
            [(Fault::CommitReplyLost, 2 * DROPPED), (Fault::CommitLost, DROPPED), (Fault::Commit, 2 * DROPPED)]
        {
            let (faulty, faults) = Faults::in_front_of(&database);
            let directory = tempfile::tempdir()?;
            let path = directory.path().join("audit.sock");
            let service = start(faulty, path.clone()).await?;
            faults.inject(fault);
            report_drops(path.clone()).await?;
            while faults.pending() > 0 {
                tokio::task::yield_now().await;
            }
            report_drops(path).await?;
            service.stop().await?;
            assert_eq!(dropped_in_closed_period(&database).await?, expected, "{fault:?}");
        }
        Ok(())
    }

    async fn dropped_logs_of_all_replicas_add_up_and_saturate(test) {
        let database = test.connect().await?;
        for (replica, logs) in [(1, 3), (2, 5), (1, 4)] {
            database.record_client_drops(id(replica), logs).await?;
        }
        assert_eq!(database.status().await?.so_far.client_dropped_logs, 12);
        assert_eq!(dropped_in_closed_period(&database).await?, 12);
        assert_eq!(dropped_in_closed_period(&database).await?, 0);
        for (replica, logs) in [(1, u64::MAX), (2, 5), (1, 4), (3, i64::MAX.unsigned_abs())] {
            database.record_client_drops(id(replica), logs).await?;
        }
        assert_eq!(database.status().await?.so_far.client_dropped_logs, i64::MAX.unsigned_abs());
        assert_eq!(dropped_in_closed_period(&database).await?, i64::MAX.unsigned_abs());
        Ok(())
    }

    async fn a_failed_collection_keeps_the_dropped_logs(test) {
        let database = test.connect().await?;
        database.record_client_drops(id(1), 3).await?;
        let (faulty, faults) = Faults::in_front_of(&database);
        faults.inject(Fault::Commit);
        ensure!(faulty.collect(CollectOptions::default()).await.is_err());
        assert_eq!(dropped_in_closed_period(&database).await?, 3);
        Ok(())
    }

    async fn pruning_keeps_the_dropped_logs_of_the_open_period(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        for _ in 0..2 {
            database.collect(CollectOptions::default()).await?;
        }
        let old = test.days_ago(40);
        for change in ["replicas SET flushed_at", "periods SET period_start", "periods SET period_end"] {
            test.execute(&format!("UPDATE boundary_usage_{change} = {old}")).await?;
        }
        database.record_client_drops(id(1), 3).await?;
        let options = PruneOptions {
            periods_older_than: Some(DAY),
            undelivered: true,
            replicas_idle_for: Some(DAY),
            days_older_than: Some(DAY),
        };
        let pruned = database.prune(options).await?;
        assert_eq!((pruned.periods, pruned.replicas), (1, 1));
        assert_eq!(dropped_in_closed_period(&database).await?, 3);
        Ok(())
    }

    async fn a_collector_of_an_older_release_leaves_the_dropped_logs_to_the_next_period(test) {
        let database = test.connect().await?;
        database.record_client_drops(id(1), 3).await?;
        // The statement of schema 4 does not have the column.
        let now = test.days_ago(0);
        test.execute(&format!(
            "INSERT INTO boundary_usage_periods (period_start, period_end, period_duration_ms, unique_workspaces, \
             unique_users, allowed_requests, denied_requests, replicas, replica_workspaces_sum, replica_users_sum, \
             stale_rows, stale_allowed_requests, stale_denied_requests) \
             VALUES ({now}, {now}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)"
        ))
        .await?;
        assert_eq!(database.status().await?.periods[0].summary.client_dropped_logs, 0);
        assert_eq!(dropped_in_closed_period(&database).await?, 3);
        Ok(())
    }
}

/// Starts a replica with one socket that records every 20 ms.
async fn start(database: Database, path: PathBuf) -> Result<Service> {
    let socket = Socket { path, workspace: id(1), owner: id(2), ids_ignored: false, group: None };
    let plugin = Plugin::embedded()?;
    let options = Options { flush_interval: Duration::from_millis(20), ..Options::default() };
    Service::start(&plugin, database, id(9), BoundSockets::bind(&[socket]).await?, options).await
}

/// Reports dropped logs as one client, and waits until the server has read the report.
async fn report_drops(socket: PathBuf) -> Result<()> {
    tokio::task::spawn_blocking(move || send_and_hang_up(&socket, STATUS)).await?;
    Ok(())
}

#[tokio::test]
async fn r8_a_recording_of_dropped_logs_waits_for_a_collection() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let mut collection = database.backend().begin(Purpose::Collection).await?;
    collection.acquire(Lock::Cutover, LockMode::Exclusive).await?;
    let recording = database.clone();
    let recording = tokio::spawn(async move { recording.record_client_drops(id(1), 3).await });
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while test.number(waiting).await? == 0 {}
    assert_eq!(collection.delete_client_drops().await?, 0);
    collection.commit().await?;
    recording.await??;
    assert_eq!(dropped_in_closed_period(&database).await?, 3);
    Ok(())
}

#[tokio::test]
async fn r9_a_replica_records_dropped_logs_and_a_collector_collects_them() -> Result<()> {
    let test = database_with_roles().await?;
    let replica = login(&test, "boundary_usage_replica").await?;
    let database = Database::connect(&replica).await?;
    for logs in [3, 4] {
        database.record_client_drops(id(1), logs).await?;
    }
    assert_denied(
        &replica,
        &[
            "DELETE FROM boundary_usage_client_drops",
            "UPDATE boundary_usage_client_drops SET replica_id = gen_random_uuid()",
        ],
    )
    .await?;
    let collector = login(&test, "boundary_usage_collector").await?;
    let changes = [
        "INSERT INTO boundary_usage_client_drops VALUES (gen_random_uuid(), 1)",
        "UPDATE boundary_usage_client_drops SET dropped_logs = 0",
        "UPDATE boundary_usage_periods SET client_dropped_logs = 0",
    ];
    assert_denied(&collector, &changes).await?;
    let pruner = login(&test, "boundary_usage_pruner").await?;
    assert_denied(&pruner, &["SELECT * FROM boundary_usage_client_drops", "DELETE FROM boundary_usage_client_drops"])
        .await?;
    assert_eq!(dropped_in_closed_period(&Database::connect(&collector).await?).await?, 7);
    Ok(())
}
