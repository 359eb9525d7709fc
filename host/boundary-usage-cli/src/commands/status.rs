//! `status`: what the database holds. Changes nothing; not even a missing SQLite file is made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use boundary_usage::{Database, DatabaseStatus, PeriodStatus, Summary};
use clap::Args;

use super::CANNOT_USE;
use crate::cli::Global;
use crate::output::{moment, table};

/// Show what the database holds: the open period, the replicas, the closed periods. Changes nothing.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {}

const EXAMPLES: &str = "\
Examples:
  boundary-usage status
  boundary-usage status --database sqlite:/var/lib/boundary/usage.db --format json";

pub(super) async fn run(global: &Global, _arguments: Arguments) -> Result<()> {
    Database::check_url(&global.database).context(CANNOT_USE)?;
    // Said in words of ours; to open it would fail, too.
    if let Some(file) = sqlite_file(&global.database)
        && !file.exists()
    {
        bail!("there is no database file {}; `serve` or `replay` makes it", file.display());
    }
    let database = Database::open(&global.database).await.context(CANNOT_USE)?;
    let status = database.status().await.context("cannot read the database")?;
    database.close().await;
    global.format.print(&status, || human(&status))
}

/// The file of an SQLite URL; `None` for other databases, and for one in memory.
fn sqlite_file(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let path = rest.split('?').next().unwrap_or_default();
    (!path.is_empty() && path != ":memory:").then(|| Path::new(path).to_owned())
}

fn human(status: &DatabaseStatus) -> String {
    let mut text = format!("open period, since {}\n", moment(status.period_start));
    text += &if status.rows.is_empty() { "no usage yet".into() } else { rows(status) + &so_far(&status.so_far) };
    for damaged in &status.damaged {
        text += &format!("\n{damaged}");
    }
    if !status.replicas.is_empty() {
        text += "\n\nreplicas\n";
        text += &table(
            ["replica", "last flush", "at"],
            status.replicas.iter().map(|replica| {
                [replica.replica.to_string(), replica.last_flush.to_string(), moment(replica.flushed_at)]
            }),
            true,
        );
    }
    let (undelivered, delivered): (Vec<_>, Vec<_>) =
        status.periods.iter().partition(|period| period.delivered_at.is_none());
    text += &periods("undelivered periods", &undelivered);
    text += &undelivered.iter().filter_map(|period| delivery(period)).collect::<String>();
    text += &periods("delivered periods", &delivered);
    text
}

fn rows(status: &DatabaseStatus) -> String {
    table(
        ["replica", "workspaces", "users", "allowed", "denied", "first flush", "last flush"],
        status.rows.iter().map(|row| {
            [
                row.replica.to_string(),
                row.unique_workspaces.to_string(),
                row.unique_users.to_string(),
                row.allowed_requests.to_string(),
                row.denied_requests.to_string(),
                moment(row.window_start),
                moment(row.updated_at),
            ]
        }),
        true,
    )
}

/// Uniques of all replicas together: rows cannot be added up.
fn so_far(summary: &Summary) -> String {
    let Summary { unique_workspaces, unique_users, allowed_requests, denied_requests, .. } = summary;
    format!(
        "\ntogether {unique_workspaces} workspaces and {unique_users} users, {allowed_requests} allowed and \
         {denied_requests} denied requests"
    )
}

fn periods(title: &str, periods: &[&PeriodStatus]) -> String {
    if periods.is_empty() {
        return String::new();
    }
    let rows = periods.iter().map(|period| {
        let summary = &period.summary;
        [
            summary.period_id.to_string(),
            moment(summary.period_start),
            summary.unique_workspaces.to_string(),
            summary.unique_users.to_string(),
            summary.allowed_requests.to_string(),
            summary.denied_requests.to_string(),
            period.delivered_at.map(moment).unwrap_or_default(),
        ]
    });
    let header = ["period", "start", "workspaces", "users", "allowed", "denied", "delivered"];
    format!("\n\n{title}\n{}", table(header, rows, true))
}

/// How the delivery of a period fares, where it was tried.
fn delivery(period: &PeriodStatus) -> Option<String> {
    let delivery = period.delivery.as_ref()?;
    let (id, attempts) = (period.summary.period_id, delivery.attempts);
    let next = if delivery.under_way { "under way; by another replica from" } else { "next at" };
    let error = delivery.last_error.as_ref().map(|error| format!("; {error}")).unwrap_or_default();
    let (last, next_at) = (moment(delivery.attempted_at), moment(delivery.next_attempt_at));
    Some(format!("\nperiod {id}: tried {attempts} times, last at {last}, {next} {next_at}{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_an_sqlite_url_is_found() {
        for url in ["sqlite:a/b.db", "sqlite://a/b.db", "sqlite:a/b.db?mode=rwc"] {
            assert_eq!(sqlite_file(url), Some("a/b.db".into()), "{url}");
        }
        assert_eq!(sqlite_file("sqlite:///a.db"), Some("/a.db".into()));
        for url in ["sqlite::memory:", "sqlite:", "postgres://host/database"] {
            assert_eq!(sqlite_file(url), None, "{url}");
        }
    }
}
