//! The command `export`, as CSV and JSON.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boundary_usage::{CollectOptions, Database};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::usage::{flush, id, set, update};
use boundary_usage_tracker::CompactThetaSketch;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

use crate::authority::{database_with_roles, login};
use crate::history::{close_at, day};
use crate::program::{Ended, Workplace};

/// The number of ids of each day.
const DAYS: [(&str, u128); 3] = [("2026-01-05", 3), ("2026-01-07", 20_000), ("2026-02-01", 1)];

/// Fills a database with three days and four periods, the first two of which are on the first day.
pub(crate) async fn fill(test: &TestDatabase) -> Result<Database> {
    let database = test.connect().await?;
    close_at(test, &database, &day("2026-01-05T10:00:00"), 1, 2).await?;
    for (number, (date, ids)) in (2..).zip(DAYS) {
        close_at(test, &database, &day(&format!("{date}T11:00:00")), number, ids).await?;
    }
    assert!(database.acknowledge(2).await?);
    Ok(database)
}

/// Runs an export as JSON, and returns its rows.
pub(crate) fn rows(workplace: &Workplace, what: &str, more: &[&str]) -> Vec<Value> {
    let arguments = ["export", "--what", what, "--format", "json"];
    let exported: Ended = workplace.command(arguments).args(more).output().unwrap().into();
    exported.json()[what].as_array().unwrap().clone()
}

/// Returns a number of the database that has this column.
async fn number(test: &TestDatabase, table: &str, column: &str, row: &str) -> Result<Value> {
    test.number(&format!("SELECT CAST(CAST({column} AS integer) AS bigint) FROM {table} WHERE {row}"))
        .await
        .map(Value::from)
}

on_each_database! {
    async fn the_exported_days_have_the_numbers_of_the_database(test) {
        let database = fill(&test).await?;
        let workplace = Workplace::on(&test.url);
        let days = rows(&workplace, "days", &[]);
        assert_eq!(days.len(), DAYS.len());
        for ((date, ids), exported) in DAYS.iter().zip(&days) {
            assert_eq!(exported["day"], *date);
            let row = format!("day = '{date}'");
            for column in ["periods", "allowed_requests", "denied_requests", "unique_workspaces", "unique_users"] {
                assert_eq!(exported[column], number(&test, "boundary_usage_days", column, &row).await?, "{column}");
            }
            let spans_midnight = number(&test, "boundary_usage_days", "spans_midnight", &row).await?;
            assert_eq!(json!(exported["spans_midnight"].as_bool().map(i32::from)), spans_midnight);
            assert!(*ids > 16_384 || exported["unique_users"] == json!(ids), "{exported}");
        }
        assert_eq!((&days[0]["periods"], &days[0]["allowed_requests"]), (&json!(2), &json!(10)));
        let exported = workplace.json(["export"]);
        assert_eq!(exported["key_fingerprint"], database.key_fingerprint().await?.to_string());
        Ok(())
    }

    async fn the_exported_sketches_parse_and_count_the_ids(test) {
        fill(&test).await?;
        let days = rows(&Workplace::on(&test.url), "days", &["--sketches"]);
        for ((_, ids), exported) in DAYS.iter().zip(&days) {
            for kind in ["workspaces", "users"] {
                let bytes = STANDARD.decode(exported[format!("{kind}_sketch")].as_str().unwrap())?;
                let sketch = CompactThetaSketch::from_bytes(&bytes)?;
                assert_eq!(exported[format!("unique_{kind}")], sketch.count());
                assert!(bytes == set(0..*ids).bytes, "the sketch of {kind} is not that of its ids");
            }
        }
        let without = rows(&Workplace::on(&test.url), "days", &[]);
        assert!(without.iter().all(|day| day.get("users_sketch").is_none()), "{without:?}");
        Ok(())
    }

    async fn the_exported_periods_are_all_periods_of_the_database(test) {
        let database = fill(&test).await?;
        for _ in 0..100 {
            database.collect(CollectOptions::default()).await?;
        }
        let exported = rows(&Workplace::on(&test.url), "periods", &[]);
        assert_eq!(exported.len(), 104);
        let ids: Vec<_> = exported.iter().map(|period| period["period_id"].as_i64().unwrap()).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        // The full status reads the periods with another statement.
        for status in database.full_status().await?.periods {
            let mut expected = serde_json::to_value(&status)?;
            expected.as_object_mut().unwrap().remove("delivery");
            let period = exported.iter().find(|period| period["period_id"] == status.summary.period_id).unwrap();
            assert_eq!(*period, expected);
        }
        let delivered = exported.iter().filter(|period| !period["delivered_at"].is_null());
        assert_eq!(delivered.map(|period| period["period_id"].clone()).collect::<Vec<_>>(), [2]);
        Ok(())
    }

    async fn csv_has_the_values_of_json(test) {
        fill(&test).await?;
        let workplace = Workplace::on(&test.url);
        for (what, more) in [("days", &["--sketches"][..]), ("days", &[]), ("periods", &[])] {
            let json = rows(&workplace, what, more);
            let command = workplace.command(["export", "--format", "csv", "--what", what]).args(more).output()?;
            let csv = Ended::from(command);
            csv.assert_succeeded();
            let lines: Vec<Vec<_>> = csv.stdout.lines().map(|line| line.split(',').collect()).collect();
            assert_eq!(lines.len(), 1 + json.len());
            let names: BTreeSet<_> = lines[0].iter().copied().filter(|name| *name != "key_fingerprint").collect();
            assert_eq!(names, json[0].as_object().unwrap().keys().map(String::as_str).collect());
            for (line, row) in lines[1..].iter().zip(&json) {
                for (name, cell) in lines[0].iter().zip(line) {
                    let value = match &row[*name] {
                        _ if *name == "key_fingerprint" => workplace.json(["export"])["key_fingerprint"].clone(),
                        Value::Null => json!(""),
                        Value::String(text) => json!(text),
                        other => json!(other.to_string()),
                    };
                    assert_eq!(value, *cell, "{name}");
                }
            }
        }
        Ok(())
    }

    async fn a_range_of_dates_limits_the_days_and_the_periods(test) {
        let database = fill(&test).await?;
        let workplace = Workplace::on(&test.url);
        for (range, expected) in [
            (&["--from", "2026-01-06"][..], &["2026-01-07", "2026-02-01"][..]),
            (&["--to", "2026-01-07"], &["2026-01-05"]),
            (&["--from", "2026-01-07", "--to", "2026-01-08"], &["2026-01-07"]),
            (&["--from", "2027-01-01"], &[]),
        ] {
            let days: Vec<_> = rows(&workplace, "days", range).iter().map(|day| day["day"].clone()).collect();
            assert_eq!(days, *expected, "{range:?}");
        }
        // Filling the database sets the start of all earlier periods.
        database.collect(CollectOptions::default()).await?;
        let start = day("2026-01-05T00:00:00");
        let update = format!("UPDATE boundary_usage_periods SET period_start = '{start}' WHERE period_id = 1");
        test.execute(&update).await?;
        let range = ["--from", "2026-01-05", "--to", "2026-01-06"];
        let periods = rows(&workplace, "periods", &range);
        assert_eq!(periods.iter().map(|period| period["period_id"].clone()).collect::<Vec<_>>(), [1]);
        Ok(())
    }

    async fn a_damaged_day_is_named_and_other_days_can_be_exported(test) {
        fill(&test).await?;
        let damage = if test.is_postgres { r"'\x2a'" } else { "x'2a'" };
        let damage = format!("UPDATE boundary_usage_days SET users_sketch = {damage} WHERE day = '2026-01-07'");
        test.execute(&damage).await?;
        let workplace = Workplace::on(&test.url);
        workplace.write("days.csv", "before");
        let ended = workplace.run(["export", "--format", "csv", "--output", "days.csv"]);
        ended.assert_failed(1, "the users sketch of the day 2026-01-07 is damaged");
        assert_eq!(std::fs::read_to_string(workplace.path("days.csv"))?, "before");
        assert_eq!(workplace.files(), ["days.csv"]);
        assert_eq!(rows(&workplace, "days", &["--from", "2026-01-08"]).len(), 1);
        Ok(())
    }

    async fn an_empty_database_exports_no_rows(test) {
        test.connect().await?;
        let workplace = Workplace::on(&test.url);
        assert!(rows(&workplace, "days", &[]).is_empty());
        let csv = workplace.run(["export", "--format", "csv", "--sketches"]).stdout;
        assert_eq!(csv.lines().collect::<Vec<_>>().len(), 1, "{csv}");
        Ok(())
    }
}

/// Creates a workplace whose default database has one day, and whose sketches are large.
async fn workplace_with_a_full_day() -> Result<Workplace> {
    let workplace = Workplace::new();
    let database = Database::connect(&format!("sqlite:{}", workplace.path("boundary-usage.db").display())).await?;
    flush(database.backend().as_ref(), id(1), &update(1, 0..20_000, 5, 2)).await?;
    database.collect(CollectOptions::default()).await?;
    database.close().await;
    Ok(workplace)
}

/// The number of days whose sketches exceed a limit of memory.
pub(crate) const MANY_DAYS: u64 = 601;

/// Creates a workplace whose default database has 157 MB of sketches.
pub(crate) async fn workplace_with_many_days() -> Result<Workplace> {
    let workplace = workplace_with_a_full_day().await?;
    let path = workplace.path("boundary-usage.db");
    let copies = format!(
        "INSERT INTO boundary_usage_days SELECT date('2020-01-01', '+' || number || ' days'), periods, spans_midnight, \
         allowed_requests, denied_requests, unique_workspaces, unique_users, workspaces_sketch, users_sketch \
         FROM boundary_usage_days, (WITH RECURSIVE numbers (number) AS (SELECT 2 UNION ALL SELECT number + 1 FROM \
         numbers WHERE number < {MANY_DAYS}) SELECT number FROM numbers)"
    );
    let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await?;
    connection.execute(AssertSqlSafe(copies)).await?;
    let bytes = std::fs::metadata(&path)?.len();
    ensure!(bytes > 150_000_000, "the database has only {bytes} bytes");
    Ok(workplace)
}

#[tokio::test]
async fn a_file_is_replaced_when_the_export_is_complete_and_keeps_its_mode() -> Result<()> {
    let workplace = workplace_with_a_full_day().await?;
    let file = workplace.write("days.json", "before");
    std::fs::set_permissions(&file, Permissions::from_mode(0o640))?;
    std::os::unix::fs::symlink("days.json", workplace.path("link.json"))?;
    let ended = workplace.run(["export", "--format", "json", "--output", "link.json"]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""));
    assert_eq!(std::fs::read_to_string(&file)?, workplace.run(["export", "--format", "json"]).stdout);
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o640);
    assert!(workplace.path("link.json").is_symlink());
    assert_eq!(workplace.files(), ["boundary-usage.db", "days.json", "link.json"]);
    let dash = workplace.run(["export", "--format", "json", "--output", "-"]);
    assert_eq!(dash.json()["days"][0]["allowed_requests"], 5);
    Ok(())
}

#[tokio::test]
async fn an_export_that_cannot_be_written_leaves_the_file_unchanged() -> Result<()> {
    let workplace = workplace_with_a_full_day().await?;
    workplace.write("days.csv", "before");
    // A file of at most 64 KiB: enough for SQLite, and not enough for the sketches.
    let limit = "trap '' XFSZ; ulimit -f 128";
    let arguments = ["export", "--sketches", "--format", "csv", "--output", "days.csv"];
    let ended: Ended = workplace.command_after(limit, arguments).output()?.into();
    ended.assert_failed(1, "days.csv, which is unchanged: File too large");
    assert_eq!(std::fs::read_to_string(workplace.path("days.csv"))?, "before");
    std::fs::create_dir(workplace.path("directory"))?;
    for (output, reason) in [
        ("missing/days.csv", "cannot create a file beside missing/days.csv"),
        ("directory", "directory is not a regular file"),
        ("boundary-usage.db", "boundary-usage.db is a SQLite database, which would be lost"),
    ] {
        workplace.run(["export", "--format", "csv", "--output", output]).assert_failed(1, reason);
    }
    assert_eq!(workplace.files(), ["boundary-usage.db", "days.csv", "directory"]);
    assert_eq!(rows(&workplace, "days", &[]).len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_full_stdout_fails_the_export_and_a_closed_pipe_does_not() -> Result<()> {
    let workplace = workplace_with_a_full_day().await?;
    for format in ["csv", "json"] {
        let arguments = ["export", "--sketches", "--format", format];
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
        let ended: Ended = workplace.command(arguments).stdout(full).output()?.into();
        ended.assert_failed(1, "cannot write to stdout");
        let (reader, closed) = std::io::pipe()?;
        drop(reader);
        let ended: Ended = workplace.command(arguments).stdout(closed).output()?.into();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    }
    Ok(())
}

#[tokio::test]
async fn a_signal_stops_an_export_and_leaves_no_temporary_file() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    fill(&test).await?;
    let workplace = Workplace::on(&test.url);
    workplace.write("days.csv", "before");
    // The export waits for this lock.
    let mut connection = PgConnection::connect(&test.url).await?;
    connection.execute("BEGIN; LOCK TABLE boundary_usage_days IN ACCESS EXCLUSIVE MODE").await?;
    let child = workplace.command(["export", "--format", "csv", "--output", "days.csv"]).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while workplace.files().len() == 1 {
        assert!(Instant::now() < deadline, "the export must create its temporary file");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The shell sends the signal, because the system call needs `unsafe`, which this package forbids.
    assert!(Command::new("sh").args(["-c", r#"kill "$0""#, &child.id().to_string()]).status()?.success());
    let ended: Ended = child.wait_with_output()?.into();
    ended.assert_failed(143, "stopped by SIGTERM; days.csv is unchanged");
    assert_eq!(
        (workplace.files(), std::fs::read_to_string(workplace.path("days.csv"))?),
        (vec!["days.csv".into()], "before".into())
    );
    Ok(())
}

#[tokio::test]
async fn an_export_of_many_days_needs_little_memory() -> Result<()> {
    let workplace = workplace_with_many_days().await?;
    // The limit is 96 MiB, which is less than the sketches take. It suffices for few threads only.
    let arguments = ["export", "--sketches", "--format", "csv", "--output", "days.csv"];
    let mut command = workplace.command_after("ulimit -d 98304", arguments);
    let ended: Ended = command.env("TOKIO_WORKER_THREADS", "2").output()?.into();
    ended.assert_succeeded();
    let exported = std::fs::read_to_string(workplace.path("days.csv"))?;
    assert_eq!(exported.lines().count() as u64, 1 + MANY_DAYS);
    Ok(())
}

#[test]
fn an_export_of_a_missing_database_creates_nothing() {
    let workplace = Workplace::new();
    let ended = workplace.run(["export", "--format", "csv", "--output", "days.csv"]);
    ended.assert_failed(1, "there is no database file");
    assert!(workplace.files().is_empty(), "{:?}", workplace.files());
}

#[tokio::test]
async fn the_collectors_role_can_export() -> Result<()> {
    let test = database_with_roles().await?;
    test.connect().await?.collect(CollectOptions::default()).await?;
    let workplace = Workplace::on(&login(&test, "boundary_usage_collector").await?);
    assert_eq!(rows(&workplace, "days", &["--sketches"])[0]["unique_users"], 3);
    assert_eq!(rows(&workplace, "periods", &[])[0]["allowed_requests"], 5);
    Ok(())
}
