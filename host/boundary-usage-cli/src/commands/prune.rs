//! `prune`: deletes old periods, idle replicas and old days; and the settings with which `serve` does the same.

use std::time::Duration;

use anyhow::{Context, Result};
use boundary_usage::{PruneOptions, Pruned};
use clap::{ArgGroup, Args};
use serde::Serialize;

use super::{connect_to_existing, open};
use crate::arguments::{AgeLimit, Global, parse_age, parse_age_limit};

/// Delete old periods, idle replicas and old days, so that the tables stay small.
///
/// The newest period always stays. Undelivered periods stay unless --undelivered is given. A replica with usage in the
/// open period stays. The ids of deleted days are kept as one set, so `report` never counts them as new again.
///
/// The command deletes in short transactions, so flushes and collections continue. `serve` prunes once a day, with the
/// options --prune-... The database must exist; this command does not create it. On PostgreSQL, periods and days need
/// the role boundary_usage_pruner.
#[derive(Args)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("limits").required(true).multiple(true).args(["periods_older_than", "replicas_idle_for",
        "days_older_than"])
)]
pub struct Arguments {
    /// Age of the closed periods to delete, counted from their end. At least 1day.
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    periods_older_than: Option<Duration>,

    /// Time since the last flush of the replicas to delete. At least 1day.
    ///
    /// The number of the replica's last flush is deleted, too. If the replica's state directory returns later, a flush
    /// whose commit had no reply can count twice. So choose a time longer than a stopped replica can be away.
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    replicas_idle_for: Option<Duration>,

    /// Age of the days to delete, counted from their end. At least 1day. `report` no longer shows these days.
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    days_older_than: Option<Duration>,

    /// Delete undelivered periods, too.
    #[arg(long, requires = "periods_older_than")]
    undelivered: bool,

    /// Count what would be deleted, and delete nothing.
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage prune --replicas-idle-for 90d
  boundary-usage prune --days-older-than 1100d --dry-run
  boundary-usage prune --periods-older-than 400d --undelivered --format json";

/// The settings with which `serve` prunes.
#[derive(Args)]
pub(super) struct PruneSettings {
    /// Time since the last flush after which a replica is deleted, or `none`. See `boundary-usage prune --help`.
    ///
    /// The replica that closes the last period of a day prunes, once a day.
    #[arg(
        long,
        alias = "replicas-idle-for",
        value_name = "DURATION",
        default_value = "90d",
        value_parser = parse_age_limit,
        conflicts_with = "no_collect"
    )]
    prune_replicas_idle_for: AgeLimit,

    /// Age after which a delivered period is deleted, or `none`.
    #[arg(
        long,
        alias = "periods-older-than",
        value_name = "DURATION",
        default_value = "none",
        value_parser = parse_age_limit,
        conflicts_with = "no_collect"
    )]
    prune_periods_older_than: AgeLimit,

    /// Delete undelivered periods of that age, too.
    #[arg(long, requires = "prune_periods_older_than")]
    prune_undelivered: bool,

    /// Age after which a day of the history is deleted, or `none`. Its ids never count as new again.
    #[arg(
        long,
        alias = "days-older-than",
        value_name = "DURATION",
        default_value = "none",
        value_parser = parse_age_limit,
        conflicts_with = "no_collect"
    )]
    prune_days_older_than: AgeLimit,
}

impl PruneSettings {
    pub(super) fn options(&self) -> PruneOptions {
        PruneOptions {
            periods_older_than: self.prune_periods_older_than.0,
            undelivered: self.prune_undelivered,
            replicas_idle_for: self.prune_replicas_idle_for.0,
            days_older_than: self.prune_days_older_than.0,
        }
    }
}

/// The result for programs.
#[derive(Serialize)]
struct Output {
    dry_run: bool,
    #[serde(flatten)]
    pruned: Pruned,
}

pub(crate) async fn run(global: &Global, arguments: Arguments) -> Result<()> {
    let Arguments { periods_older_than, replicas_idle_for, days_older_than, undelivered, dry_run } = arguments;
    let options = PruneOptions { periods_older_than, undelivered, replicas_idle_for, days_older_than };
    if dry_run {
        let database = open(global).await?;
        let pruned = database.prunable(options).await.context("cannot count what to delete")?;
        database.close().await;
        return global.format.print(&Output { dry_run, pruned }, || human("would delete", &pruned));
    }
    let database = connect_to_existing(global).await?;
    let pruned =
        database.prune(options).await.context("cannot prune; a part may be deleted, and a repetition is safe")?;
    database.close().await;
    let human = || human("deleted", &pruned);
    global.format.print_change(&Output { dry_run, pruned }, human, human)
}

fn human(verb: &str, pruned: &Pruned) -> String {
    let Pruned { periods, undelivered_kept, replicas, days } = pruned;
    let kept = match undelivered_kept {
        0 => String::new(),
        kept => format!("\nkept {kept} old undelivered periods; --undelivered deletes them, too"),
    };
    format!("{verb} {periods} periods, {replicas} replicas and {days} days{kept}")
}
