//! `monitor`: one line and an exit code, for cron, Nagios and health checks of containers.
//!
//! The exit codes are those of the Monitoring Plugins: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. See
//! <https://www.monitoring-plugins.org/doc/guidelines.html>.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use boundary_usage::{Checkpoint, Database, Error};
use chrono::TimeDelta;
use clap::Args;
use serde::Serialize;

use super::{CANNOT_USE, open};
use crate::arguments::{Global, parse_period};

/// Check the ages of flushes, collections, deliveries and checkpoints, and print one line.
///
/// The exit code is 0 for OK, 1 for WARNING, 2 for CRITICAL, and 3 for UNKNOWN, as monitoring systems expect it. An age
/// is a warning or critical if it exceeds the limits of its option, which are two durations, or `none`. An unavailable
/// database is critical. Other errors, wrong arguments too, are unknown. The command changes nothing.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Limits for the last flush of each live replica. A replica without activity does not flush.
    #[arg(long, value_name = "WARNING,CRITICAL", default_value = "5m,15m")]
    flush_age: Limits,

    /// Limits for the last collection.
    #[arg(long, value_name = "WARNING,CRITICAL", default_value = "45m,2h")]
    collection_age: Limits,

    /// Limits for the oldest undelivered summary.
    #[arg(long, value_name = "WARNING,CRITICAL", default_value = "none")]
    delivery_age: Limits,

    /// Limits for the oldest checkpoint with unflushed activity in --state-dir.
    #[arg(long, value_name = "WARNING,CRITICAL", default_value = "5m,15m", requires = "state_dir")]
    checkpoint_age: Limits,

    /// State directory whose checkpoints are checked. [default: no check of checkpoints]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Time after its last flush for which a replica counts as live.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_period)]
    live_within: Duration,

    /// Number of live replicas below which the result is critical.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    min_replicas: u64,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage monitor
  boundary-usage monitor --min-replicas 3 --delivery-age 1h,6h
  boundary-usage monitor --state-dir /var/lib/boundary-usage --format json";

/// Two limits of an age, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits(Option<(Duration, Duration)>);

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let pair = text.split_once(',').ok_or("write two durations like 5m,15m, or none")?;
        let (warning, critical) = (parse_period(pair.0.trim())?, parse_period(pair.1.trim())?);
        if warning > critical {
            return Err("the warning limit is longer than the critical one".to_owned());
        }
        Ok(Self(Some((warning, critical))))
    }
}

/// The states of monitoring systems. The numbers are the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

/// The result of all checks.
#[derive(Serialize)]
struct Monitored {
    state: State,
    checks: Vec<Check>,
}

/// The result of one check.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    state: State,
    message: String,
    /// The age, in milliseconds. Null if there is nothing whose age matters.
    age_ms: Option<u64>,
    #[serde(skip)]
    limits: Limits,
}

impl Check {
    /// Compares an age with its limits.
    fn of(name: &'static str, what: &str, age: Option<Duration>, limits: Limits) -> Self {
        let state = match (age, limits.0) {
            (Some(age), Some((_, critical))) if age > critical => State::Critical,
            (Some(age), Some((warning, _))) if age > warning => State::Warning,
            _ => State::Ok,
        };
        // Fractions of a second do not matter to an operator.
        let shown = age.map(|age| humantime::format_duration(Duration::from_secs(age.as_secs())).to_string());
        let message = shown.map_or_else(|| format!("no {what}"), |age| format!("{what} {age} ago"));
        let age_ms = age.map(|age| age.as_millis().try_into().unwrap_or(u64::MAX));
        Self { name, state, message, age_ms, limits }
    }

    fn without_age(name: &'static str, state: State, message: String) -> Self {
        Self { name, state, message, age_ms: None, limits: Limits(None) }
    }

    /// Returns the performance data: the age and its limits in seconds.
    fn performance(&self) -> Option<String> {
        let age = self.age_ms? as f64 / 1e3;
        let seconds = |limit: fn((Duration, Duration)) -> Duration| {
            self.limits.0.map(|limits| limit(limits).as_secs_f64().to_string()).unwrap_or_default()
        };
        Some(format!("{}={age}s;{};{};0", self.name, seconds(|limits| limits.0), seconds(|limits| limits.1)))
    }
}

pub(crate) async fn run(global: &Global, arguments: Arguments) -> Result<ExitCode> {
    let checks = checks(global, &arguments).await;
    let state = checks.iter().map(|check| check.state).max().unwrap_or(State::Ok);
    let monitored = Monitored { state, checks };
    global.format.print(&monitored, || line(&monitored))?;
    Ok(ExitCode::from(state as u8))
}

/// Runs all checks. A check that cannot be made is a result, too, because the output is one line.
async fn checks(global: &Global, arguments: &Arguments) -> Vec<Check> {
    let mut checks = match of_database(global, arguments).await {
        Ok(checks) => checks,
        Err(error) => {
            let is_down = error.downcast_ref::<Error>().is_some_and(Error::is_retryable);
            let state = if is_down { State::Critical } else { State::Unknown };
            vec![Check::without_age("database", state, format!("{error:#}"))]
        }
    };
    if let Some(directory) = &arguments.state_dir {
        let what = "checkpoint with unflushed activity";
        checks.push(match oldest_checkpoint(directory) {
            Ok(age) => Check::of("checkpoint_age", what, age, arguments.checkpoint_age),
            Err(error) => Check::without_age("checkpoint_age", State::Unknown, format!("{error:#}")),
        });
    }
    checks
}

async fn of_database(global: &Global, arguments: &Arguments) -> Result<Vec<Check>> {
    let database: Database = open(global).await?;
    let live = database.live_replicas(arguments.live_within).await.context(CANNOT_USE)?;
    let ages = database.ages().await.context(CANNOT_USE)?;
    database.close().await;
    let age = |age: TimeDelta| age.to_std().unwrap_or_default();
    let is_enough = live.count >= arguments.min_replicas;
    let message = format!("{} live replicas", live.count);
    let state = if is_enough { State::Ok } else { State::Critical };
    let flush = live.longest_silent.map(|(replica, silent)| (format!("flush of replica {replica}"), age(silent)));
    let (what, flushed) = flush.map_or(("flush".to_owned(), None), |(what, silent)| (what, Some(silent)));
    Ok(vec![
        Check::without_age("replicas", state, message),
        Check::of("flush_age", &what, flushed, arguments.flush_age),
        Check::of("collection_age", "collection", Some(age(ages.open_period)), arguments.collection_age),
        Check::of("delivery_age", "undelivered summary", ages.oldest_undelivered.map(age), arguments.delivery_age),
    ])
}

/// Returns the age of the oldest checkpoint that has unflushed activity.
fn oldest_checkpoint(directory: &Path) -> Result<Option<Duration>> {
    let cannot = || format!("cannot read the state directory {}", directory.display());
    let mut oldest = None;
    for entry in std::fs::read_dir(directory).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        if path.extension().is_none_or(|extension| extension != "checkpoint") {
            continue;
        }
        // A running process replaces and removes its checkpoint at any time.
        let (Ok(bytes), Ok(metadata)) = (std::fs::read(&path), std::fs::metadata(&path)) else { continue };
        let checkpoint = Checkpoint::from_bytes(&bytes)
            .with_context(|| format!("the checkpoint {} cannot be used", path.display()))?;
        if !checkpoint.is_empty() {
            let age = SystemTime::now().duration_since(metadata.modified().with_context(cannot)?).unwrap_or_default();
            oldest = oldest.max(Some(age));
        }
    }
    Ok(oldest)
}

fn line(monitored: &Monitored) -> String {
    let state = match monitored.state {
        State::Ok => "OK",
        State::Warning => "WARNING",
        State::Critical => "CRITICAL",
        State::Unknown => "UNKNOWN",
    };
    // The checks that need attention come first, because monitoring systems cut long lines.
    let mut checks: Vec<&Check> = monitored.checks.iter().collect();
    checks.sort_by_key(|check| std::cmp::Reverse(check.state));
    let messages: Vec<_> = checks.iter().map(|check| check.message.replace(['\n', '|'], " ")).collect();
    let performance: Vec<_> = monitored.checks.iter().filter_map(Check::performance).collect();
    let separator = if performance.is_empty() { "" } else { " | " };
    format!("BOUNDARY-USAGE {state} - {}{separator}{}", messages.join(", "), performance.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_beyond_its_limits_is_a_warning_or_critical() {
        let limits: Limits = "10s,1m".parse().unwrap();
        let state = |seconds| Check::of("age", "flush", Some(Duration::from_secs(seconds)), limits).state;
        assert_eq!(
            [state(10), state(11), state(60), state(61)],
            [State::Ok, State::Warning, State::Warning, State::Critical]
        );
        assert_eq!(Check::of("age", "flush", None, limits).state, State::Ok);
        let unlimited = Check::of("age", "flush", Some(Duration::MAX), "none".parse().unwrap());
        assert_eq!(unlimited.state, State::Ok);
    }

    #[test]
    fn limits_are_two_durations_or_none() {
        for (text, part) in
            [("5m", "two durations"), ("5m,x", "write it like"), ("2h,1h", "longer"), ("", "two durations")]
        {
            let error = text.parse::<Limits>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_line_begins_with_what_needs_attention_and_ends_with_performance_data() {
        let limits = "10s,1m".parse().unwrap();
        let checks = vec![
            Check::without_age("replicas", State::Ok, "2 live replicas".into()),
            Check::of("flush_age", "flush", Some(Duration::from_millis(90_500)), limits),
        ];
        let shown = line(&Monitored { state: State::Critical, checks });
        assert_eq!(shown, "BOUNDARY-USAGE CRITICAL - flush 1m 30s ago, 2 live replicas | flush_age=90.5s;10;60;0");
    }
}
