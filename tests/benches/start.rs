//! The time from a process's start to its first accepted activity, and the memory of many trackers.
//!
//! Both are measured in child processes, which are this program with another argument.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use boundary_usage::{Clock, Database, Options, Plugin};
use boundary_usage_tests::until;
use uuid::Uuid;

use crate::rounds::median;

/// The argument of the child that tracks one activity. The URL of a database follows it.
pub(crate) const FIRST_TRACK: &str = "--child-first-track";
/// The argument of the child that starts many trackers. The URL of a database follows it.
pub(crate) const MANY_TRACKERS: &str = "--child-many-trackers";

/// The number of idle trackers in one process.
pub(crate) const TRACKERS: u64 = 1_000;

/// Returns the median milliseconds from a process's start to its first accepted activity.
///
/// The compiled component is in the cache.
pub(crate) fn to_first_track_ms(directory: &Path) -> Result<f64> {
    let url = format!("sqlite:{}", directory.join("first-track.db").display());
    // The first run creates the database and, if necessary, the compiled component. It is not counted.
    let times: Result<Vec<f64>> = (0..21).map(|_| first_track(&url)).collect();
    Ok(median(times?.split_off(1)))
}

fn first_track(url: &str) -> Result<f64> {
    let start = Instant::now();
    let mut child = Command::new(std::env::current_exe()?).args([FIRST_TRACK, url]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("stdout is not a pipe")?).read_line(&mut line)?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    child.wait()?;
    if line != "accepted\n" {
        bail!("the child did not track: {line}")
    }
    Ok(took)
}

/// Runs the child that tracks one activity.
pub(crate) async fn child_first_track(url: &str) -> Result<()> {
    let plugin = Plugin::embedded()?;
    let tracker = plugin.start(Uuid::from_u128(1), Database::connect(url).await?, Options::default()).await?;
    tracker.track(Uuid::from_u128(1), Uuid::from_u128(2), 1, 0)?;
    println!("accepted");
    tracker.shutdown().await?;
    Ok(())
}

/// Returns the memory of each of 1,000 idle trackers in one process, including its thread, in bytes.
pub(crate) fn bytes_of_idle_tracker(directory: &Path) -> Result<u64> {
    let url = format!("sqlite:{}", directory.join("trackers.db").display());
    let output = Command::new(std::env::current_exe()?).args([MANY_TRACKERS, &url]).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().with_context(|| format!("the child ended: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs the child that starts many trackers.
pub(crate) async fn child_many_trackers(url: &str) -> Result<()> {
    let (plugin, database) = (Plugin::embedded()?, Database::connect(url).await?);
    let before = resident_bytes();
    let mut trackers = Vec::new();
    for number in 0..TRACKERS {
        let options = Options { clock: Clock::manual().0, ..Options::default() };
        trackers.push(plugin.start(Uuid::from_u128(1 + u128::from(number)), database.clone(), options).await?);
    }
    // Each tracker processes one activity, and is then idle again.
    for tracker in &trackers {
        tracker.track(Uuid::from_u128(1), Uuid::from_u128(2), 1, 0)?;
    }
    for tracker in &trackers {
        until(|| tracker.status().waiting_activities == 0).await;
    }
    println!("{}", resident_bytes().saturating_sub(before) / TRACKERS);
    Ok(())
}

/// Returns the resident memory of this process in bytes.
pub(crate) fn resident_bytes() -> u64 {
    bytes("/proc/self/status", "VmRSS:")
}

/// Returns the largest resident memory of this process in bytes.
pub(crate) fn peak_resident_bytes() -> u64 {
    bytes("/proc/self/status", "VmHWM:")
}

/// Returns the memory of the machine in bytes.
pub(crate) fn machine_bytes() -> u64 {
    bytes("/proc/meminfo", "MemTotal:")
}

fn bytes(file: &str, name: &str) -> u64 {
    let lines = std::fs::read_to_string(file).unwrap_or_default();
    let line = lines.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1_024
}
