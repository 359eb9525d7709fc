//! `status`: shows the content of the database.

use anyhow::{Context, Result};
use boundary_usage::{DatabaseStatus, Number, PeriodStatus, Summary};
use clap::Args;

use super::{not_counted, open};
use crate::arguments::Global;
use crate::output::{table, timestamp};
use crate::printable::printable;

/// Show the content of the database, and change nothing.
///
/// Shows the open period so far, the replicas that flushed last, the oldest undelivered summaries, and the newest
/// delivered ones: 20 of each, and the number of the others. JSON has up to 100 rows and replicas, and 68 periods. The
/// database must exist; this command does not create it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// List everything, which takes long in a large database.
    #[arg(long)]
    all: bool,
}

/// The number of lines in each table without `--all`.
const LINES: usize = 20;

const EXAMPLES: &str = "\
Examples:
  boundary-usage status
  boundary-usage status --all
  boundary-usage status --database sqlite:usage.db --format json";

pub(crate) async fn run(global: &Global, arguments: Arguments) -> Result<()> {
    let database = open(global).await?;
    let status = if arguments.all { database.full_status().await } else { database.status().await };
    let status = status.context("cannot read the database")?;
    database.close().await;
    let lines = if arguments.all { usize::MAX } else { LINES };
    global.format.print(&status, || human(&status, lines))
}

/// Describes a status with at most this number of lines in each table.
fn human(status: &DatabaseStatus, lines: usize) -> String {
    let mut text = format!("open period, since {}\n", timestamp(status.period_start));
    text += &match status.rows[..] {
        [] => "no usage yet".into(),
        _ => rows(status, lines) + &more(status.more_rows, status.rows.len(), lines) + &so_far(status),
    };
    text += &not_counted(&status.so_far);
    for damaged in &status.damaged {
        text += &format!("\n{}", printable(damaged));
    }
    if !status.replicas.is_empty() {
        text += "\n\nreplicas\n";
        text += &table(
            ["replica", "last flush", "at"],
            status.replicas.iter().take(lines).map(|replica| {
                [replica.replica.to_string(), replica.last_flush.to_string(), timestamp(replica.flushed_at)]
            }),
            true,
        );
        text += &more(status.more_replicas, status.replicas.len(), lines);
    }
    let (undelivered, delivered): (Vec<_>, Vec<_>) =
        status.periods.iter().partition(|period| period.delivered_at.is_none());
    let oldest = &undelivered[undelivered.len().saturating_sub(lines)..];
    text += &periods("undelivered periods", oldest, status.undelivered);
    text += &oldest.iter().filter_map(|period| delivery(period)).collect::<String>();
    let all = status.more_periods.count + status.periods.len() as u64;
    let all_delivered = Number { count: all.saturating_sub(status.undelivered.count), ..status.more_periods };
    text += &periods("delivered periods", &delivered[..delivered.len().min(lines)], all_delivered);
    if let Some(fingerprint) = &status.key_fingerprint {
        text += &format!("\n\nfingerprint of the hashing key: {fingerprint}");
    }
    text
}

/// Returns the line that counts what a table does not show.
fn more(not_listed: Number, listed: usize, lines: usize) -> String {
    let hidden = listed.saturating_sub(lines) as u64;
    and_more(Number { count: not_listed.count + hidden, ..not_listed })
}

fn and_more(number: Number) -> String {
    if number.count > 0 { format!("\nand {number} more") } else { String::new() }
}

fn rows(status: &DatabaseStatus, lines: usize) -> String {
    table(
        ["replica", "workspaces", "users", "allowed", "denied", "first flush", "last flush"],
        status.rows.iter().take(lines).map(|row| {
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
fn so_far(status: &DatabaseStatus) -> String {
    let Summary { unique_workspaces, unique_users, allowed_requests, denied_requests, .. } = &status.so_far;
    let at_least = if status.more_rows.count > 0 { "at least " } else { "" };
    format!(
        "\ntogether {at_least}{unique_workspaces} workspaces and {at_least}{unique_users} users, {allowed_requests} \
         allowed and {denied_requests} denied requests"
    )
}

/// Formats a table of periods, of which there are `all`.
fn periods(title: &str, periods: &[&PeriodStatus], all: Number) -> String {
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
            summary.client_dropped_logs.to_string(),
            period.delivered_at.map(timestamp).unwrap_or_default(),
        ]
    });
    let header = ["period", "start", "workspaces", "users", "allowed", "denied", "dropped", "delivered"];
    format!("\n\n{title}\n{}{}", table(header, rows, true), and_more(all.without(periods.len())))
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
