//! `monitor` prints one line, and its exit code is that of monitoring systems.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::on_each_database;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

use crate::program::{Ended, Workplace, line};

const OK: i32 = 0;
const WARNING: i32 = 1;
const CRITICAL: i32 = 2;
const UNKNOWN: i32 = 3;

fn monitor(workplace: &Workplace, more: &[&str]) -> Ended {
    workplace.command(["monitor"]).args(more).output().unwrap().into()
}

#[track_caller]
fn assert_monitored(ended: &Ended, code: i32, part: &str) {
    assert_eq!((ended.code, ended.stdout.lines().count()), (code, 1), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains(part), "{part:?} is not in {}", ended.stdout);
}

/// Moves all stored times into the past.
async fn age_by_an_hour(test: &TestDatabase) -> Result<()> {
    if test.url.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(&test.url).await?;
        let earlier = |column: &str| format!("{column} = strftime('%Y-%m-%dT%H:%M:%fZ', {column}, '-1 hour')");
        let (flushed, end, created) = (earlier("flushed_at"), earlier("period_end"), earlier("created_at"));
        let start = earlier("period_start");
        connection
            .execute(AssertSqlSafe(format!(
                "UPDATE boundary_usage_replicas SET {flushed};
                 UPDATE boundary_usage_periods SET {start}, {end};
                 UPDATE boundary_usage_deployment SET {created};"
            )))
            .await?;
    } else {
        let mut connection = PgConnection::connect(&test.url).await?;
        connection
            .execute(
                "UPDATE boundary_usage_replicas SET flushed_at = flushed_at - interval '1 hour';
                 UPDATE boundary_usage_periods
                 SET period_start = period_start - interval '1 hour', period_end = period_end - interval '1 hour';
                 UPDATE boundary_usage_deployment SET created_at = created_at - interval '1 hour';",
            )
            .await?;
    }
    Ok(())
}

on_each_database! {
    async fn the_exit_code_is_that_of_the_worst_age(test) {
        let workplace = Workplace::on(&test.url);
        assert_eq!(workplace.run_with_input(["replay", "-"], &line(1, 2, 3, 4)).code, 0);
        workplace.json(["collect"]);
        assert_monitored(&monitor(&workplace, &[]), OK, "BOUNDARY-USAGE OK - 1 live replicas");
        age_by_an_hour(&test).await?;
        let day = ["--live-within", "1day"];
        let with = |more: &[&str]| monitor(&workplace, &[&day, more].concat());
        assert_monitored(&with(&[]), CRITICAL, "CRITICAL - flush of replica");
        assert_monitored(&with(&["--flush-age", "30m,2h"]), WARNING, "WARNING - flush of replica");
        assert_monitored(&with(&["--flush-age", "none", "--collection-age", "2h,3h"]), OK, "collection 1h");
        assert_monitored(&with(&["--flush-age", "none"]), WARNING, "WARNING - collection 1h");
        let undelivered = ["--flush-age", "none", "--collection-age", "none", "--delivery-age", "1m,10m"];
        assert_monitored(&with(&undelivered), CRITICAL, "CRITICAL - undelivered summary 1h");
        workplace.json(["collect", "--acknowledge", "1"]);
        assert_monitored(&with(&undelivered), OK, "no undelivered summary");
        Ok(())
    }

    async fn replicas_that_flushed_long_ago_are_not_live(test) {
        let workplace = Workplace::on(&test.url);
        assert_eq!(workplace.run_with_input(["replay", "-"], &line(1, 2, 3, 4)).code, 0);
        assert_monitored(&monitor(&workplace, &["--min-replicas", "1"]), OK, "1 live replicas");
        age_by_an_hour(&test).await?;
        let recent = ["--live-within", "10m", "--collection-age", "none"];
        assert_monitored(&monitor(&workplace, &recent), OK, "0 live replicas");
        let enough = [&recent[..], &["--min-replicas", "1"]].concat();
        assert_monitored(&monitor(&workplace, &enough), CRITICAL, "CRITICAL - 0 live replicas");
        let report: Value = monitor(&workplace, &[&enough[..], &["--format", "json"]].concat()).stdout.parse().unwrap();
        assert_eq!((&report["state"], &report["checks"][0]["name"]), (&"CRITICAL".into(), &"replicas".into()));
        Ok(())
    }
}

#[test]
fn an_unreachable_database_is_critical_and_other_errors_are_unknown() {
    let unreachable = Workplace::on("postgres://proxy@127.0.0.1:1/usage");
    assert_monitored(&monitor(&unreachable, &[]), CRITICAL, "CRITICAL - cannot use the database");
    let workplace = Workplace::new();
    assert_monitored(&monitor(&workplace, &[]), CRITICAL, "there is no database file");
    workplace.write("boundary-usage.db", "");
    assert_monitored(&monitor(&workplace, &[]), UNKNOWN, "UNKNOWN - cannot use the database");
    for wrong in [&["--flush-age", "5m"][..], &["--flush-age", "2h,1h"], &["--no-such-option"]] {
        let ended = monitor(&workplace, wrong);
        assert_eq!((ended.code, ended.stdout.as_str()), (UNKNOWN, ""), "{}", ended.stderr);
    }
    assert_eq!(monitor(&workplace, &["--help"]).code, OK);
}

#[test]
fn unflushed_activity_in_an_old_checkpoint_is_critical() {
    let workplace = Workplace::new();
    assert_eq!(workplace.run_with_input(["replay", "-"], &line(1, 2, 3, 4)).code, 0);
    let state = workplace.path("state");
    std::fs::create_dir(&state).unwrap();
    let with_state = ["--state-dir", "state"];
    assert_monitored(&monitor(&workplace, &with_state), OK, "no checkpoint with unflushed activity");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("upgrades/schema-4/state");
    let checkpoint = std::fs::read_dir(fixture).unwrap().next().unwrap().unwrap();
    let copy = state.join(checkpoint.file_name());
    std::fs::copy(checkpoint.path(), &copy).unwrap();
    assert_monitored(&monitor(&workplace, &with_state), OK, "checkpoint with unflushed activity 0s ago");
    assert!(Command::new("touch").args(["-d", "1 hour ago"]).arg(&copy).status().unwrap().success());
    assert_monitored(&monitor(&workplace, &with_state), CRITICAL, "CRITICAL - checkpoint with unflushed activity 1h");
    std::fs::write(&copy, "damaged").unwrap();
    assert_monitored(&monitor(&workplace, &with_state), UNKNOWN, "cannot be used");
    assert_monitored(&monitor(&workplace, &["--state-dir", "missing"]), UNKNOWN, "cannot read the state directory");
}
