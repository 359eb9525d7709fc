//! `deliver`: sends undelivered summaries once, or shows what it would send.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::delivery_arguments::DeliveryArguments;
use super::{connect_to_existing, open};
use crate::arguments::Global;
use crate::delivery::{Endpoint, Preview, deliver_due, preview};
use crate::failure::UsageError;

/// Send the undelivered summaries that are due, and stop at the first failure.
///
/// `serve --deliver` does the same continuously, and both can run simultaneously. A failed summary is due again after a
/// wait, which the database stores. With --dry-run, the command sends nothing and changes nothing.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Show the requests for all undelivered summaries, and send nothing.
    ///
    /// The output contains the signatures, but neither the token nor the path of the URL.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    delivery: DeliveryArguments,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage deliver --deliver https://example.com/usage
  boundary-usage deliver --deliver https://example.com/usage --dry-run
  boundary-usage deliver --deliver-secret-file key --deliver https://example.com";

/// The result of a run.
#[derive(Serialize)]
struct Delivered {
    /// The periods whose summaries the receiver has acknowledged.
    delivered: Vec<i64>,
    /// The time until the next delivery is due, in milliseconds. Null if no summary is undelivered.
    next_due_ms: Option<u64>,
}

/// The result of a dry run.
#[derive(Serialize)]
struct Previews {
    requests: Vec<Preview>,
}

pub(crate) async fn run(global: &Global, arguments: Arguments) -> Result<()> {
    let Some(options) = arguments.delivery.options() else {
        return Err(UsageError("no receiver; set --deliver or BOUNDARY_USAGE_DELIVER to its URL".into()).into());
    };
    let endpoint = Endpoint::new(&options)?;
    if arguments.dry_run {
        let database = open(global).await?;
        let previews = Previews { requests: preview(&database, &endpoint).await? };
        database.close().await;
        return global.format.print(&previews, || human_previews(&previews.requests));
    }
    let database = connect_to_existing(global).await?;
    let (delivered, due) = deliver_due(database.clone(), endpoint).await?;
    database.close().await;
    let next_due_ms = due.map(|due| due.as_millis().try_into().unwrap_or(u64::MAX));
    let result = Delivered { delivered, next_due_ms };
    let count = result.delivered.len();
    global.format.print_change(&result, || human(count, due), || format!("{count} summaries are delivered"))
}

fn human(count: usize, due: Option<Duration>) -> String {
    let next = match due {
        None => "no summary is undelivered".to_owned(),
        // The wait has a random part, so fractions of a second say nothing.
        Some(due) => {
            format!("the next one is due in {}", humantime::format_duration(Duration::from_secs(due.as_secs())))
        }
    };
    format!("{count} summaries delivered; {next}")
}

fn human_previews(previews: &[Preview]) -> String {
    if previews.is_empty() {
        return "no summary is undelivered".to_owned();
    }
    let request = |preview: &Preview| {
        let headers: String = preview.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("POST to {} for period {}\n{headers}\n{}\n", preview.server, preview.period_id, preview.body)
    };
    previews.iter().map(request).collect::<Vec<_>>().join("\n")
}
