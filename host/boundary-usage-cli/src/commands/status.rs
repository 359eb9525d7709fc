//! `status`: shows the content of the database.

use anyhow::{Context, Result};
use boundary_usage::{DatabaseStatus, PeriodStatus, Summary};
use clap::Args;

use super::open;
use crate::arguments::Global;
use crate::output::{table, timestamp};
use crate::printable::printable;

/// Show the content of the database, and change nothing.
///
/// Shows the open period so far, each replica's last flush, every undelivered summary, and the most recent delivered
/// summaries. The database must exist; this command does not create it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {}

const EXAMPLES: &str = "\
Examples:
  boundary-usage status
  boundary-usage status --database sqlite:usage.db --format json";

pub(crate) async fn run(global: &Global, _arguments: Arguments) -> Result<()> {
    let database = open(global).await?;
    let status = database.status().await.context("cannot read the database")?;
    database.close().await;
    global.format.print(&status, || human(&status))
}

fn human(status: &DatabaseStatus) -> String {
    let mut text = format!("open period, since {}\n", timestamp(status.period_start));
    text += &if status.rows.is_empty() { "no usage yet".into() } else { rows(status) + &so_far(&status.so_far) };
    for damaged in &status.damaged {
        text += &format!("\n{}", printable(damaged));
    }
    if !status.replicas.is_empty() {
        text += "\n\nreplicas\n";
        text += &table(
            ["replica", "last flush", "at"],
            status.replicas.iter().map(|replica| {
                [replica.replica.to_string(), replica.last_flush.to_string(), timestamp(replica.flushed_at)]
            }),
            true,
        );
    }
    let (undelivered, delivered): (Vec<_>, Vec<_>) =
        status.periods.iter().partition(|period| period.delivered_at.is_none());
    text += &periods("undelivered periods", &undelivered);
    text += &undelivered.iter().filter_map(|period| delivery(period)).collect::<String>();
    text += &periods("delivered periods", &delivered);
    if let Some(fingerprint) = &status.key_fingerprint {
        text += &format!("\n\nfingerprint of the hashing key: {fingerprint}");
    }
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
                timestamp(row.window_start),
                timestamp(row.updated_at),
            ]
        }),
        true,
    )
}

/// Describes the sums over all replicas.
///
/// The unique counts of rows cannot be added, because rows share ids.
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
            timestamp(summary.period_start),
            summary.unique_workspaces.to_string(),
            summary.unique_users.to_string(),
            summary.allowed_requests.to_string(),
            summary.denied_requests.to_string(),
            period.delivered_at.map(timestamp).unwrap_or_default(),
        ]
    });
    let header = ["period", "start", "workspaces", "users", "allowed", "denied", "delivered"];
    format!("\n\n{title}\n{}", table(header, rows, true))
}

/// Describes the delivery of a period, if it was attempted.
fn delivery(period: &PeriodStatus) -> Option<String> {
    let delivery = period.delivery.as_ref()?;
    let (id, attempts) = (period.summary.period_id, delivery.attempts);
    let next = if delivery.under_way { "in progress; next attempt by any replica at" } else { "next attempt at" };
    let error = delivery.last_error.as_ref().map(|error| format!("; {}", printable(error))).unwrap_or_default();
    let (last, next_at) = (timestamp(delivery.attempted_at), timestamp(delivery.next_attempt_at));
    Some(format!("\nperiod {id}: {attempts} delivery attempts, the last at {last}, {next} {next_at}{error}"))
}
