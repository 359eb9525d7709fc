//! `check` finds what does not fit together in a database, and changes nothing.

use anyhow::Result;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::on_each_database;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

use crate::program::{Ended, Workplace, line};

fn check(workplace: &Workplace) -> Ended {
    workplace.command(["check", "--format", "json"]).output().unwrap().into()
}

/// Returns the faults.
fn faults(workplace: &Workplace) -> Vec<String> {
    let ended = check(workplace);
    let checked: Value = ended.stdout.parse().unwrap_or_else(|_| panic!("no JSON: {}", ended.stderr));
    let faults = checked["faults"].as_array().unwrap();
    assert_eq!(ended.code, i32::from(!faults.is_empty()));
    faults.iter().map(|finding| finding["fault"].as_str().unwrap().to_owned()).collect()
}

async fn execute(test: &TestDatabase, statement: &str) -> Result<()> {
    let statement = AssertSqlSafe(statement.to_owned());
    if test.url.starts_with("sqlite:") {
        SqliteConnection::connect(&test.url).await?.execute(statement).await?;
    } else {
        PgConnection::connect(&test.url).await?.execute(statement).await?;
    }
    Ok(())
}

/// Closes two periods with usage and one without, and leaves usage in the open period.
fn fill(workplace: &Workplace) {
    for number in 1..=3 {
        assert_eq!(workplace.run_with_input(["replay", "-"], &line(number, 2, 3, 4)).code, 0);
        if number < 3 {
            workplace.json(["collect"]);
        }
    }
    workplace.json(["collect", "--acknowledge", "1"]);
}

on_each_database! {
    async fn a_database_in_use_has_no_fault(test) {
        let workplace = Workplace::on(&test.url);
        fill(&workplace);
        let before = workplace.json(["status", "--all"]);
        let checked = check(&workplace).json();
        assert_eq!(
            (&checked["periods"], &checked["days"], &checked["rows"], &checked["faults"]),
            (&json!(2), &json!(1), &json!(1), &json!([]))
        );
        assert_eq!(workplace.json(["status", "--all"])["periods"], before["periods"], "the check changed something");
        Ok(())
    }

    async fn sums_and_counts_that_differ_are_faults(test) {
        let workplace = Workplace::on(&test.url);
        fill(&workplace);
        let change = "UPDATE boundary_usage_days SET allowed_requests = allowed_requests + 1, unique_users = 7";
        execute(&test, change).await?;
        let found = faults(&workplace).join("; ");
        assert!(found.contains("has 7 allowed and 8 denied requests, and its periods have 6 and 8"), "{found}");
        assert!(found.contains("7 users are stored, and the sketch has 1"), "{found}");
        Ok(())
    }

    async fn a_missing_period_is_a_gap(test) {
        let workplace = Workplace::on(&test.url);
        fill(&workplace);
        workplace.json(["collect"]);
        execute(&test, "DELETE FROM boundary_usage_periods WHERE period_id = 2").await?;
        let found = faults(&workplace);
        assert!(found.len() == 1 && found[0].starts_with("between the periods 1 and 3 is a gap of"), "{found:?}");
        Ok(())
    }

    async fn a_row_without_a_flush_and_a_damaged_sketch_are_faults(test) {
        let workplace = Workplace::on(&test.url);
        fill(&workplace);
        execute(&test, "DELETE FROM boundary_usage_replicas").await?;
        let (sketch, broken) = match test.url.starts_with("sqlite:") {
            true => ("workspaces_sketch", "x'00'"),
            false => ("workspaces_sketch", "'\\x00'"),
        };
        execute(&test, &format!("UPDATE boundary_usage_stats SET {sketch} = {broken}")).await?;
        execute(&test, &format!("UPDATE boundary_usage_days SET {sketch} = {broken}")).await?;
        let found = faults(&workplace);
        assert!(found.iter().any(|fault| fault.contains("belongs to no flush of this replica")), "{found:?}");
        assert_eq!(found.iter().filter(|fault| fault.contains("damaged")).count(), 2, "{found:?}");
        Ok(())
    }
}
