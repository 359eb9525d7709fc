//! `collect` and `status` report missing databases, unwritable output and commits without a reply.

use std::fs::OpenOptions;
use std::process::Stdio;

use anyhow::Result;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::postgres_proxy::{Cut, PostgresProxy};
use serde_json::json;

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{Ended, Workplace, line, numbers, one_socket};

const READERS: [&str; 3] = ["status", "collect", "collect --acknowledge 1"];

fn full_disk() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn commands_that_only_read_or_close_create_no_database() {
    for command in READERS {
        let workplace = Workplace::new();
        let ended: Ended = workplace.command(command.split(' ')).output().unwrap().into();
        ended.assert_failed(1, "there is no database file boundary-usage.db; `serve` or `replay` creates it");
        assert!(workplace.files().is_empty(), "{command}: {:?}", workplace.files());
        workplace.write("boundary-usage.db", "");
        let ended: Ended = workplace.command(command.split(' ')).output().unwrap().into();
        ended.assert_failed(1, "cannot use the database");
        assert_eq!(std::fs::read(workplace.path("boundary-usage.db")).unwrap(), b"", "{command}");
    }
}

#[tokio::test]
async fn commands_that_only_read_or_close_create_no_tables() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    for command in READERS {
        let ended: Ended = Workplace::on(&test.url).command(command.split(' ')).output()?.into();
        ended.assert_failed(1, "cannot use the database");
    }
    let tables = test.number("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'boundary_usage%'").await?;
    assert_eq!(tables, 0);
    Ok(())
}

#[test]
fn if_a_summary_cannot_be_printed_the_error_names_the_command_that_shows_it() {
    let workplace = Workplace::new();
    workplace.write("good.jsonl", &line(1, 1, 5, 2));
    workplace.json(["replay", "good.jsonl"]);
    let without_reader = || Stdio::from(std::io::pipe().unwrap().1);
    for (period, stdout) in [(1, full_disk()), (2, without_reader())] {
        let failed: Ended = workplace.command(["collect"]).stdout(stdout).output().unwrap().into();
        let closed =
            format!("cannot write to stdout, but period {period} is closed, and its summary is in the database");
        failed.assert_failed(1, &closed);
        assert!(failed.stderr.contains("`boundary-usage status` shows it"), "{}", failed.stderr);
    }
    let periods = &workplace.json(["status"])["periods"];
    assert_eq!((&periods[1]["allowed_requests"], &periods[1]["delivered_at"]), (&json!(5), &json!(null)));
    let failed: Ended =
        workplace.command(["collect", "--acknowledge", "1"]).stdout(full_disk()).output().unwrap().into();
    failed.assert_failed(1, "but the delivery of period 1 is acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_a_reply_is_reported_as_unknown() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    test.connect().await?.close().await;
    let proxy = PostgresProxy::in_front_of(&test.url).await?;
    let workplace = Workplace::on(&proxy.url);
    for cut in [Cut::Commit, Cut::Reply] {
        proxy.cut(cut);
        let unknown = workplace.run(["collect"]);
        unknown.assert_failed(1, "it is unknown whether the period was closed; run `boundary-usage status`");
        assert!(!unknown.stderr.contains("stays open"), "{}", unknown.stderr);
    }
    let status = workplace.json(["status"]);
    assert_eq!(status["periods"].as_array().map(Vec::len), Some(1));
    let period = status["periods"][0]["period_id"].to_string();
    proxy.cut(Cut::Reply);
    let unknown = workplace.run(["collect", "--acknowledge", &period]);
    unknown.assert_failed(1, &format!("it is unknown whether the delivery of period {period} was recorded"));
    assert_eq!(proxy.pending(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_a_replay_resolves_a_last_commit_without_a_reply() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    test.connect().await?.close().await;
    let proxy = PostgresProxy::in_front_of(&test.url).await?;
    let workplace = Workplace::on(&proxy.url);
    workplace.write("good.jsonl", &line(1, 1, 5, 2));
    for cut in [Cut::Write, Cut::Commit, Cut::Reply] {
        proxy.cut(cut);
        assert_eq!(workplace.json(["replay", "good.jsonl"])["activities"], json!(1), "{cut:?}");
        assert_eq!(proxy.pending(), 0, "{cut:?}");
        assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 5, 2], "{cut:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_flush_without_a_reply_or_checkpoint_is_not_reported_as_lost() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    test.connect().await?.close().await;
    let proxy = PostgresProxy::in_front_of(&test.url).await?;
    let workplace = Workplace::on(&proxy.url);
    let socket = workplace.path("audit.sock");
    let arguments = ["--no-state", "--no-collect", "--flush-interval", "1h"].map(str::to_owned);
    let serving = workplace.serve(1, arguments.into_iter().chain(one_socket(&socket, 1, 2)));
    send_and_hang_up(&socket, SESSION);
    // The shutdown would resolve the doubt if it could connect again.
    proxy.cut(Cut::Reply);
    proxy.refuse(true);
    let ended = serving.stop();
    proxy.refuse(false);
    ended.assert_failed(1, "the last flush has an unknown outcome; its activity is in the database or lost");
    assert!(ended.stderr.contains("`boundary-usage status` shows when replica "), "{}", ended.stderr);
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9, 4]);
    Ok(())
}
