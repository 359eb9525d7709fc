//! The command line: results on stdout, messages on stderr, exit codes, and no secrets.
//!
//! `replay` and `serve` have their own files.

use boundary_usage::Plugin;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::usage::{flush, update};
use serde_json::{Value, json};

use crate::program::{Ended, Workplace, id, numbers, pick};

pub(crate) const COMMANDS: [&str; 15] = [
    "serve",
    "replay",
    "collect",
    "status",
    "report",
    "export",
    "deliver",
    "monitor",
    "check",
    "prune",
    "init",
    "component",
    "demo",
    "completions",
    "man",
];

/// Creates a workplace whose default database has the usage of one replica.
///
/// The usage is 3 ids, 5 allowed requests and 2 denied requests.
async fn workplace_with_usage() -> anyhow::Result<Workplace> {
    let workplace = Workplace::new();
    let url = format!("sqlite:{}", workplace.path("boundary-usage.db").display());
    let database = boundary_usage::Database::connect(&url).await?;
    flush(database.backend().as_ref(), boundary_usage_tests::usage::id(1), &update(1, 0..3, 5, 2)).await?;
    database.close().await;
    Ok(workplace)
}

fn names(output: &Value) -> Vec<&str> {
    output.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_help_has_examples_and_the_main_help_has_the_exit_codes() {
    let workplace = Workplace::new();
    for command in COMMANDS {
        let help = workplace.run([command, "--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (0, ""));
        let examples = help.stdout.split_once("Examples:\n").unwrap().1;
        assert!(examples.contains(&format!("boundary-usage {command}")), "{examples}");
    }
    let help = workplace.run(["--help"]);
    assert!(help.stdout.contains("Exit codes: 0 done, 1 failed, 2 usage error;"), "{}", help.stdout);
    assert!(COMMANDS.iter().all(|command| help.stdout.contains(&format!("\n  {command} "))), "{}", help.stdout);
    assert_eq!(workplace.run(["--version"]).stdout, format!("boundary-usage {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_usage_error_exits_with_2_and_states_the_reason() {
    let workplace = Workplace::new();
    let owner = id(1);
    for (arguments, reason) in [
        ("", "Usage:"),
        ("frobnicate", "frobnicate"),
        ("status --format xml", "possible values: human, json, csv, parquet"),
        ("status --format csv", "for `report` and `export` only"),
        ("report --format parquet", "for `export` only"),
        ("export", "choose --format csv, json or parquet"),
        ("export --format csv --what weeks", "possible values: days, periods"),
        ("export --format csv --what periods --sketches", "periods have no sketches"),
        ("export --format csv --from 2026-01-02 --to 2026-01-02", "no day"),
        ("export --format csv --what pruned-days --from 2026-01-02", "--from and --to do not select"),
        ("prune", "--periods-older-than"),
        ("prune --dry-run", "--replicas-idle-for"),
        ("prune --replicas-idle-for 23h", "from 1day to 100years"),
        ("prune --days-older-than none", "from 1day to 100years"),
        ("prune --replicas-idle-for 90d --undelivered", "--periods-older-than"),
        ("serve --config a.toml --prune-replicas-idle-for 1h", "from 1day to 100years, or none"),
        ("serve --config a.toml --no-collect --prune-days-older-than 99d", "cannot be used with"),
        ("report --last 0", "--last"),
        ("report --from 2026-01-32", "write it like 2026-01-31"),
        ("report --from 2026-01-02 --to 2026-01-02", "no day"),
        ("report --last 3 --to 2026-01-02", "cannot be used with"),
        ("report --by year", "possible values: day, week, month"),
        ("status --database mysql://host/usage", "`mysql` are not supported"),
        ("status --database nonsense", "names no kind of database"),
        ("replay", "<FILE>"),
        ("replay a --flush-every 0", "--flush-every"),
        ("replay a --replica 7", "not a UUID"),
        ("collect --acknowledge one", "--acknowledge"),
        ("collect --max-staleness 0s", "from 1ms to 366days"),
        ("collect --max-staleness soon", "write it like 60s"),
        ("collect --acknowledge 1 --max-staleness 1h", "cannot be used with"),
        ("serve", "--socket <PATH>|--config <FILE>"),
        ("serve --socket a.sock --owner OWNER", "--workspace"),
        (
            "serve --socket a.sock --owner OWNER --workspace 00000000-0000-0000-0000-000000000000",
            "the nil UUID is not a valid id",
        ),
        ("serve --socket a.sock --owner OWNER --workspace OWNER --config a.toml", "cannot be used with"),
        ("serve --config a.toml --no-collect --collect-interval 1m", "cannot be used with"),
        ("serve --config a.toml --flush-interval 60", "write it like 60s"),
    ] {
        let arguments = arguments.replace("OWNER", &owner);
        let ended: Ended = workplace.command(arguments.split_whitespace()).output().unwrap().into();
        ended.assert_failed(2, reason);
    }
    assert!(workplace.files().is_empty(), "{:?}", workplace.files());
}

#[test]
fn an_unusable_database_exits_with_1_and_no_password_is_shown() {
    for (url, code) in [
        // Port 1 has no listener.
        ("postgres://proxy:hunter2@127.0.0.1:1/usage", 1),
        ("postgres://proxy:hun/hunter2@127.0.0.1:1/usage", 2),
        ("postgres://proxy:hunter2@127.0.0.1:1/usage?sslmode=nonsense", 2),
        ("mysql://proxy:hunter2@127.0.0.1:1/usage", 2),
    ] {
        let from_environment = Workplace::on(url);
        for arguments in [["status", "-vvv"], ["collect", "-vvv"], ["status", "--help"]] {
            let ended: Ended = from_environment.command(arguments).env("RUST_LOG", "trace").output().unwrap().into();
            assert!(!(ended.stdout + &ended.stderr).contains("hunter2"), "{arguments:?}");
            assert_eq!(ended.code, if arguments[1] == "--help" { 0 } else { code }, "{arguments:?} on {url}");
        }
        let flagged = Workplace::new().run(["status", "--database", url]);
        flagged.assert_failed(code, "error: cannot use the database of --database or BOUNDARY_USAGE_DATABASE: ");
        assert!(!flagged.stderr.contains("hunter2"), "{}", flagged.stderr);
    }
}

#[tokio::test]
async fn status_changes_nothing_and_has_its_documented_fields() -> anyhow::Result<()> {
    let workplace = workplace_with_usage().await?;
    let before = std::fs::read(workplace.path("boundary-usage.db"))?;
    let [status, again] = [(); 2].map(|()| {
        let mut status = workplace.json(["status"]);
        // This number grows between the two runs.
        status["so_far"]["period_duration_ms"] = json!(0);
        status
    });
    assert_eq!(again, status);
    assert_eq!(std::fs::read(workplace.path("boundary-usage.db"))?, before);
    assert_eq!(workplace.files(), ["boundary-usage.db"]);

    assert_eq!(
        names(&status),
        [
            "damaged",
            "key_fingerprint",
            "more_periods",
            "more_replicas",
            "more_rows",
            "period_start",
            "periods",
            "replicas",
            "rows",
            "so_far",
            "undelivered"
        ]
    );
    let row = pick(&status["rows"][0], ["replica", "unique_workspaces", "unique_users", "allowed_requests"]);
    assert_eq!(row, [json!(id(1)), json!(3), json!(3), json!(5)]);
    assert_eq!(pick(&status["replicas"][0], ["replica", "last_flush"]), [json!(id(1)), json!(1)]);

    let shown = workplace.run(["status"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    assert!(shown.stdout.starts_with("open period, since ") && shown.stdout.contains(&id(1)), "{}", shown.stdout);
    Ok(())
}

#[tokio::test]
async fn c1_d7_a_collection_prints_its_summary_and_keeps_it_until_acknowledged() -> anyhow::Result<()> {
    let workplace = workplace_with_usage().await?;
    let summary = workplace.json(["collect"]);
    assert_eq!(numbers(&summary), [3, 3, 5, 2]);
    let mut expected = vec!["unique_workspaces", "unique_users", "allowed_requests", "denied_requests"];
    expected.extend(["period_start", "period_duration_ms", "period_id", "replicas", "replica_workspaces_sum"]);
    expected.extend(["replica_users_sum", "stale_rows", "stale_allowed_requests", "stale_denied_requests"]);
    expected.push("client_dropped_logs");
    expected.sort_unstable();
    assert_eq!(names(&summary), expected);
    assert_eq!(numbers(&workplace.json(["collect"])), [0; 4]);

    let period = summary["period_id"].to_string();
    assert!(workplace.run(["status"]).stdout.contains("undelivered periods"));
    for was_undelivered in [true, false] {
        let acknowledged = workplace.json(["collect", "--acknowledge", &period]);
        assert_eq!(acknowledged, json!({"period_id": summary["period_id"], "was_undelivered": was_undelivered}));
    }
    assert!(workplace.json(["status"])["periods"][1]["delivered_at"].is_string());
    workplace.run(["collect", "--acknowledge", "999"]).assert_failed(1, "cannot acknowledge period 999: ");

    let shown = workplace.run(["collect"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    assert!(shown.stdout.contains("boundary-usage collect --acknowledge 3"), "{}", shown.stdout);
    Ok(())
}

#[tokio::test]
async fn c2_d8_stale_rows_are_left_out_on_request_and_reported() -> anyhow::Result<()> {
    let test = TestDatabase::sqlite()?;
    let database = test.connect().await?;
    flush(database.backend().as_ref(), boundary_usage_tests::usage::id(1), &update(1, 0..3, 5, 2)).await?;
    test.set_back("boundary_usage_stats", "updated_at", 7_200).await?;
    let summary = Workplace::on(&test.url).json(["collect", "--max-staleness", "1h"]);
    assert_eq!(numbers(&summary), [0; 4]);
    let stale = pick(&summary, ["stale_rows", "stale_allowed_requests", "stale_denied_requests"]);
    assert_eq!(stale, [json!(1), json!(5), json!(2)]);
    Ok(())
}

#[test]
fn r9_the_component_is_described_and_written_byte_for_byte() {
    let workplace = Workplace::new();
    let shown = workplace.json(["component", "--output", "tracker.wasm"]);
    assert_eq!(std::fs::read(workplace.path("tracker.wasm")).unwrap(), Plugin::embedded_bytes());
    assert_eq!(names(&shown), ["bytes", "exports", "imports", "output", "package", "sha256"]);
    assert_eq!(shown["bytes"], json!(Plugin::embedded_bytes().len()));
    assert_eq!(shown["exports"], json!(["flush", "track"]));
    let sum = std::process::Command::new("sha256sum").arg(workplace.path("tracker.wasm")).output().unwrap();
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(shown["sha256"].as_str().unwrap()));
    let blocking = workplace.json(["component", "--world", "tracker-blocking", "--output", "blocking.wasm"]);
    assert_eq!(std::fs::read(workplace.path("blocking.wasm")).unwrap(), Plugin::embedded_blocking_bytes());
    assert_eq!(blocking["exports"], json!(["flush", "track"]));
    workplace.run(["component", "--output", "missing/tracker.wasm"]).assert_failed(1, "missing/tracker.wasm");
}

#[test]
fn the_demo_counts_what_it_sends_and_leaves_no_files() {
    let workplace = Workplace::new();
    let outcome = workplace.json(["demo"]);
    assert_eq!(names(&outcome), ["counted", "equal", "sent", "summary"]);
    assert_eq!((&outcome["equal"], &outcome["sent"]), (&json!(true), &outcome["counted"]));
    assert_eq!(pick(&outcome["summary"], ["unique_workspaces", "unique_users"]), [json!(4), json!(3)]);
    assert!(workplace.files().is_empty());
}
