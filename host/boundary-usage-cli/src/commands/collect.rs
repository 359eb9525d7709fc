//! `collect`: closes the period, or acknowledges the delivery of a summary.
//!
//! A collection is native code of the library. The component takes no part in a collection.

use std::time::Duration;

use anyhow::{Context, Result};
use boundary_usage::{CollectOptions, Collection, Database, Error, Summary};
use clap::Args;
use serde::Serialize;

use super::{connect_to_existing, not_counted};
use crate::arguments::{Global, parse_period};
use crate::output::{table, timestamp};

/// Close the period and print its summary.
///
/// The next period begins at the same moment. The summary of a period without usage has zeros. The summary stays in the
/// database, undelivered, until `collect --acknowledge ID` or `serve --deliver` acknowledges its delivery. `status`
/// shows undelivered summaries. The database must exist; this command does not create it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Age beyond which rows are left out of the sums. The summary reports them separately. [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = parse_period)]
    max_staleness: Option<Duration>,

    /// Leave the history as it is, so `report` does not see this period.
    #[arg(long, conflicts_with = "acknowledge")]
    no_history: bool,

    /// Id of a closed period. Records that its summary was delivered, and closes nothing.
    #[arg(long, value_name = "ID", conflicts_with = "max_staleness")]
    acknowledge: Option<i64>,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage collect
  boundary-usage collect --format json --max-staleness 1h
  boundary-usage collect --acknowledge 7";

/// The result of an acknowledgement.
#[derive(Serialize)]
struct Acknowledged {
    period_id: i64,
    /// False if the delivery was already acknowledged.
    was_undelivered: bool,
}

pub(crate) async fn run(global: &Global, arguments: Arguments) -> Result<()> {
    let database = connect_to_existing(global).await?;
    match arguments.acknowledge {
        Some(period) => acknowledge(global, &database, period).await?,
        None => {
            let Arguments { max_staleness, no_history: without_history, .. } = arguments;
            let options = CollectOptions { max_staleness, without_history, ..CollectOptions::default() };
            let summary = close_period(&database, options).await?;
            global.format.print_change(&summary, || human(&summary), || closed(&summary))?;
        }
    }
    database.close().await;
    Ok(())
}

/// Closes the period, regardless of its age.
pub(super) async fn close_period(database: &Database, options: CollectOptions) -> Result<Summary> {
    let collected = database.collect(options).await;
    let context = match &collected {
        Err(Error::CommitUnknown { .. }) => {
            "it is unknown whether the period was closed; run `boundary-usage status`: if the open period began just \
             now, the period was closed, and its summary is the newest of the undelivered periods"
        }
        _ => "cannot collect; the period stays open",
    };
    match collected.context(context)? {
        Collection::Closed(summary) => Ok(summary),
        Collection::NotDue { age, .. } => unreachable!("no interval was set, but the period of age {age:?} is not due"),
    }
}

/// Describes the closed period, in case its summary cannot be printed.
fn closed(summary: &Summary) -> String {
    let period = summary.period_id;
    format!(
        "period {period} is closed, and its summary is in the database, undelivered; `boundary-usage status` shows it"
    )
}

async fn acknowledge(global: &Global, database: &Database, period_id: i64) -> Result<()> {
    let acknowledged = database.acknowledge(period_id).await;
    let context = match &acknowledged {
        Err(Error::CommitUnknown { .. }) => format!(
            "it is unknown whether the delivery of period {period_id} was recorded; acknowledge it again, which is safe"
        ),
        _ => format!("cannot acknowledge period {period_id}"),
    };
    let was_undelivered = acknowledged.context(context)?;
    let human = || {
        let before = if was_undelivered { "it was undelivered" } else { "it was already acknowledged" };
        format!("period {period_id}: delivery acknowledged; {before}")
    };
    let done = || format!("the delivery of period {period_id} is acknowledged");
    global.format.print_change(&Acknowledged { period_id, was_undelivered }, human, done)
}

fn human(summary: &Summary) -> String {
    let length = Duration::from_millis(summary.period_duration_ms);
    let mut text = format!(
        "period {}: {} from {}\n",
        summary.period_id,
        humantime::format_duration(length),
        timestamp(summary.period_start)
    );
    let row = |name: &str, number: u64, sum: Option<u64>| {
        [name.to_owned(), number.to_string(), sum.map(|sum| sum.to_string()).unwrap_or_default()]
    };
    text += &table(
        ["", "period", "sum of replicas"],
        [
            row("unique workspaces", summary.unique_workspaces, Some(summary.replica_workspaces_sum)),
            row("unique users", summary.unique_users, Some(summary.replica_users_sum)),
            row("allowed requests", summary.allowed_requests, None),
            row("denied requests", summary.denied_requests, None),
            row("replicas", summary.replicas, None),
        ],
        true,
    );
    if summary.stale_rows > 0 {
        let (rows, allowed, denied) =
            (summary.stale_rows, summary.stale_allowed_requests, summary.stale_denied_requests);
        text += &format!("\nleft out: {rows} stale rows with {allowed} allowed and {denied} denied requests");
    }
    text += &not_counted(summary);
    text +=
        &format!("\nundelivered; after its delivery run: boundary-usage collect --acknowledge {}", summary.period_id);
    text
}
