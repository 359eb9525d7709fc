//! A standby of PostgreSQL, and the failover to it: synchronous, asynchronous, and with an old primary that still runs.
//!
//! Both servers and the replication between them are real.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use boundary_usage::Database;
use boundary_usage_tests::expected_usage::{ExpectedUsage, automatic_tracker, until};
use boundary_usage_tests::restartable_postgres::{RestartablePostgres, url_through};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::http::{get, metric, with_http};
use crate::program::{Ended, Serving, Workplace, id, line, numbers, one_socket, pick};

/// A primary and its hot standby, and an address that leads to one of them.
struct Cluster {
    primary: RestartablePostgres,
    standby: RestartablePostgres,
    /// Contains a link to the socket directory of one server. Open connections stay when it changes.
    address: TempDir,
}

impl Cluster {
    async fn start() -> Result<Self> {
        let primary = RestartablePostgres::start("").await?;
        let standby = primary.start_standby().await?;
        let cluster = Self { primary, standby, address: tempfile::tempdir()? };
        cluster.lead_to(&cluster.primary)?;
        Ok(cluster)
    }

    fn url(&self) -> String {
        url_through(&self.address.path().join("server").display().to_string())
    }

    /// Lets the address lead to another server.
    fn lead_to(&self, server: &RestartablePostgres) -> Result<()> {
        let (link, new) = (self.address.path().join("server"), self.address.path().join("new"));
        symlink(server.socket_directory(), &new)?;
        Ok(fs::rename(new, link)?)
    }

    /// Makes each commit wait until the standby has written it.
    async fn replicate_synchronously(&self) -> Result<()> {
        execute(&self.primary, "ALTER SYSTEM SET synchronous_standby_names = '*'").await?;
        execute(&self.primary, "SELECT pg_reload_conf()").await?;
        let is_synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        becomes(&self.primary, is_synchronous, 1).await
    }

    /// Waits until the standby has all commits of the primary.
    async fn catch_up(&self) -> Result<()> {
        let written: String = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")
            .fetch_one(&mut PgConnection::connect(&self.primary.url()).await?)
            .await?;
        let has_all = format!("SELECT (pg_last_wal_replay_lsn() >= '{written}')::int::bigint");
        becomes(&self.standby, &has_all, 1).await
    }

    /// Ends the replication for good, as a broken network does.
    async fn cut_off_standby(&self) -> Result<()> {
        execute(&self.standby, "ALTER SYSTEM SET primary_conninfo = ''").await?;
        execute(&self.standby, "SELECT pg_reload_conf()").await?;
        becomes(&self.standby, "SELECT count(*) FROM pg_stat_wal_receiver", 0).await?;
        becomes(&self.primary, "SELECT count(*) FROM pg_stat_replication", 0).await
    }

    async fn promote_standby(&self) -> Result<()> {
        execute(&self.standby, "SELECT pg_promote()").await?;
        becomes(&self.standby, "SELECT pg_is_in_recovery()::int::bigint", 0).await
    }
}

async fn execute(server: &RestartablePostgres, sql: &str) -> Result<()> {
    PgConnection::connect(&server.url()).await?.execute(AssertSqlSafe(sql.to_owned())).await?;
    Ok(())
}

/// Waits until a query returns this number.
async fn becomes(server: &RestartablePostgres, sql: &str, number: i64) -> Result<()> {
    let mut connection = PgConnection::connect(&server.url()).await?;
    until(sql, async || {
        let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql.to_owned()));
        Ok(query.fetch_one(&mut connection).await? == number)
    })
    .await
}

/// Starts `serve`, which flushes every 20 ms and does not collect.
fn serve(workplace: &Workplace) -> Serving {
    let more = ["-v", "--flush-interval", "20ms", "--no-collect"];
    workplace.serve(1, with_http(one_socket(&workplace.path("audit.sock"), 1, 2), &more))
}

/// Sends a session, waits until its two batches are confirmed, and returns the number of flushes so far.
async fn send_and_confirm(workplace: &Workplace, serving: &Serving) -> Result<f64> {
    let scrape = || get(&serving.http(), "/metrics").body;
    let activities = |text: &str| metric(text, "activities_total").unwrap();
    let expected = activities(&scrape()) + 2.0;
    send_and_hang_up(&workplace.path("audit.sock"), SESSION);
    until("the session is confirmed", async || {
        let text = scrape();
        Ok(activities(&text) == expected && metric(&text, "pending_activities") == Some(0.0))
    })
    .await?;
    Ok(metric(&scrape(), r#"flushes_total{outcome="written"}"#).unwrap())
}

#[tokio::test]
async fn reading_works_on_a_standby_and_writing_works_after_its_promotion() -> Result<()> {
    let cluster = Cluster::start().await?;
    execute(&cluster.primary, "CREATE DATABASE without_tables").await?;
    let [primary, standby] = [&cluster.primary, &cluster.standby].map(|server| Workplace::on(&server.url()));
    for _ in 0..2 {
        primary.run_with_input(["replay", "-"], &line(1, 2, 3, 4)).assert_succeeded();
        primary.json(["collect"]);
    }
    primary.run_with_input(["replay", "-"], &line(1, 2, 5, 6)).assert_succeeded();
    cluster.catch_up().await?;

    let run = |workplace: &Workplace, arguments: &str| -> Ended {
        workplace.command(arguments.split(' ')).output().unwrap().into()
    };
    for reading in ["export --what days --format csv", "export --what periods --format json", "report --retention"] {
        let [expected, read] = [&primary, &standby].map(|workplace| run(workplace, reading));
        read.assert_succeeded();
        assert_eq!(read.stdout, expected.stdout, "{reading}");
    }
    let status = standby.json(["status"]);
    assert_eq!(pick(&status["so_far"], ["allowed_requests", "denied_requests"]), [json!(5), json!(6)]);
    assert_eq!(status["periods"].as_array().map(Vec::len), Some(2), "{status}");
    assert_eq!(run(&standby, "check").stdout, run(&primary, "check").stdout);
    let monitored = run(&standby, "monitor").stdout;
    assert!(monitored.contains("OK - 3 live replicas"), "{monitored}");

    let fails = |workplace: &Workplace, arguments: &str| {
        run(workplace, arguments).assert_failed(1, "the server is a read-only standby; connect to the primary");
    };
    for writing in ["collect", "collect --acknowledge 1", "prune --days-older-than 1d"] {
        fails(&standby, writing);
    }
    let without_tables = cluster.standby.url().replace("/postgres?", "/without_tables?");
    fails(&Workplace::on(&without_tables), "init");
    let socket = standby.path("audit.sock").display().to_string();
    fails(&standby, &format!("serve --socket {socket} --workspace {} --owner {}", id(1), id(2)));

    // A running replica continues while its address leads to the standby.
    let replica = Workplace::on(&cluster.url());
    let mut serving = serve(&replica);
    cluster.primary.crash().await?;
    cluster.lead_to(&cluster.standby)?;
    send_and_hang_up(&replica.path("audit.sock"), SESSION);
    serving.wait_for_log("the server is a read-only standby");
    assert_eq!(get(&serving.http(), "/readyz").code, 200);
    assert!(get(&serving.http(), "/").body.contains("the server is a read-only standby"));
    cluster.promote_standby().await?;
    serving.wait_for_log("Written");
    serving.stop().json();
    assert_eq!(numbers(&standby.json(["collect"])), [1, 1, 5 + 9, 6 + 4]);
    Ok(())
}

#[tokio::test]
async fn d3_a_failover_to_a_synchronous_standby_loses_and_doubles_nothing() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.replicate_synchronously().await?;
    let database = Database::connect(&cluster.url()).await?;
    let (mut trackers, mut expected) = (Vec::new(), ExpectedUsage::default());
    for replica in 1..=3 {
        trackers.push(automatic_tracker(replica, &database).await?);
    }
    expected.track_many(&trackers, 10);
    expected.settle(&database).await?;
    expected.track_many(&trackers, 10);
    for tracker in &trackers {
        until("a replica has flushed", async || Ok(tracker.status().pending_activities == 0)).await?;
    }

    // Without the standby, commits are on the primary's disk and have no reply.
    cluster.cut_off_standby().await?;
    expected.track_many(&trackers, 10);
    becomes(&cluster.primary, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", 3).await?;
    cluster.primary.crash().await?;
    expected.track_many(&trackers, 100);
    for tracker in &trackers {
        until("a flush fails", async || Ok(tracker.status().last_error.is_some())).await?;
    }
    cluster.promote_standby().await?;
    cluster.lead_to(&cluster.standby)?;
    expected.settle(&database).await?;
    assert!(trackers.iter().all(|tracker| tracker.status().forgotten_flushes == 0));
    Ok(())
}

#[tokio::test]
async fn a_failover_to_a_lagging_standby_loses_exactly_the_flushes_that_it_lacks() -> Result<()> {
    let cluster = Cluster::start().await?;
    let workplace = Workplace::on(&cluster.url());
    let serving = serve(&workplace);
    let replicated = send_and_confirm(&workplace, &serving).await?;
    cluster.catch_up().await?;
    cluster.cut_off_standby().await?;
    send_and_confirm(&workplace, &serving).await?;
    cluster.promote_standby().await?;
    // The replica still has the address of the old primary, which confirms what the new one never receives.
    let confirmed = send_and_confirm(&workplace, &serving).await?;
    ensure!(confirmed >= replicated + 2.0, "{replicated} and {confirmed} flushes");
    cluster.primary.crash().await?;
    cluster.lead_to(&cluster.standby)?;
    send_and_confirm(&workplace, &serving).await?;
    send_and_confirm(&workplace, &serving).await?;
    let text = get(&serving.http(), "/metrics").body;
    assert_eq!(metric(&text, "forgotten_flushes_total"), Some(confirmed - replicated), "{text}");
    let log = serving.stop().stderr;
    assert_eq!(log.matches("the database has lost flushes").count(), 1, "{log}");
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 3 * 9, 3 * 4]);
    Ok(())
}
