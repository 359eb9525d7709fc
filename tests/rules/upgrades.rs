//! Data of an earlier schema: this release migrates it, and every number stays the same.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use boundary_usage_tests::databases::TestDatabase;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::program::{Serving, Workplace, numbers, one_socket};

/// The replica that was killed with unflushed activity.
const REPLICA: &str = "0193a1b2-0000-7000-8000-0000000000bb";

/// The open period with that activity: workspaces, users, allowed and denied requests.
const OPEN_PERIOD: [u64; 4] = [5, 5, 13, 4];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("upgrades/schema-4").join(name)
}

/// Starts the killed replica with this release, and stops it.
fn restart(workplace: &Workplace) -> Result<()> {
    let state = workplace.path("state");
    std::fs::create_dir(&state)?;
    for file in std::fs::read_dir(fixture("state"))? {
        let file = file?;
        std::fs::copy(file.path(), state.join(file.file_name()))?;
    }
    let mut command = workplace.command(["serve", "--format", "json", "--no-collect", "--replica", REPLICA]);
    command.args(one_socket(&workplace.path("audit.sock"), 1, 2)).arg("--state-dir").arg(&state);
    let report = Serving::start(&mut command, 1).stop().json();
    ensure!(report["checkpoint"]["restored"] == true, "the checkpoint was not restored: {report}");
    Ok(())
}

#[test]
fn a_sqlite_file_and_a_checkpoint_of_schema_4_keep_their_numbers() -> Result<()> {
    let workplace = Workplace::new();
    std::fs::copy(fixture("usage.sqlite"), workplace.path("boundary-usage.db"))?;
    restart(&workplace)?;
    assert_eq!(numbers(&workplace.json(["collect"])), OPEN_PERIOD);
    let expected: Value = serde_json::from_slice(&std::fs::read(fixture("report.json"))?)?;
    let report = workplace.json(["report", "--from", "2026-11-01", "--to", "2026-11-03"]);
    let rows = |report: &Value| report["rows"].as_array().cloned().unwrap_or_default();
    assert_eq!(rows(&report).len(), 2);
    for (row, expected) in rows(&report).iter().zip(rows(&expected)) {
        for (name, value) in expected.as_object().expect("a row is an object") {
            assert_eq!(row[name], *value, "{name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_postgres_database_of_schema_4_keeps_its_numbers() -> Result<()> {
    let test = TestDatabase::postgres().await?;
    let mut connection = PgConnection::connect(&test.url).await?;
    connection.execute(AssertSqlSafe(std::fs::read_to_string(fixture("usage.sql"))?)).await?;
    connection.close().await?;
    let workplace = Workplace::on(&test.url);
    assert_eq!(numbers(&workplace.json(["collect"])), [4, 4, 4, 0]);
    let report = workplace.json(["report", "--from", "2026-11-28", "--to", "2026-11-29"]);
    let day = &report["rows"][0];
    let active = ["workspaces", "users"].map(|ids| day[ids]["active"].as_u64());
    // The collection above adds its period to the day of its start, 28 November 2026.
    assert_eq!(active, [Some(19), Some(4)]);
    Ok(())
}
