//! Runs the scenarios in `tests/scenarios`: the behaviour of the whole, as lines of text that any host can read.
//!
//! | line | does |
//! | --- | --- |
//! | `track R W U A D` | replica R tracks workspace W of user U: A allowed, D denied |
//! | `threads R N T A D` | N threads track at once, each ids of its own, T times |
//! | `beside R N A D` | N tracks, each with ids of its own, while N flushes run |
//! | `flush R => OUTCOME` | R flushes; `written`, `idle`, `confirmed`, `error`, or `any` |
//! | `fail STEP` | the next `begin`, `acquire`, `read`, `upsert` or `commit` fails, or the next commit has its fate unknown: `commit-lost`, `commit-reply-lost` |
//! | `restart R` | R shuts down; its next line starts it again |
//! | `collect => W U A D` | closes the period: uniques, allowed, denied |
//! | `rows => N` | so many rows are in the open period |
//!
//! Replicas, workspaces and users are a letter and a number. A line that begins with `#` is a comment.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use boundary_usage::{Clock, CollectOptions, Collection, Database, Error, Flushed, Options, Tracker};
use uuid::Uuid;

use crate::faults::{Fault, Faults};
use crate::plugin;

/// Runs a scenario's text on a database that nobody else uses.
///
/// # Errors
///
/// The first line that does not hold or cannot be read, by number.
pub async fn run(text: &str, database: &Database) -> Result<()> {
    let (database, faults) = Faults::in_front_of(database);
    let mut world = World { database, faults, trackers: HashMap::new() };
    for (number, line) in (1..).zip(text.lines()) {
        if !line.is_empty() && !line.starts_with('#') {
            world.step(line).await.with_context(|| format!("line {number}: {line}"))?;
        }
    }
    ensure!(world.faults.pending() == 0, "a fault did not strike");
    Ok(())
}

struct World {
    database: Database,
    faults: Faults,
    trackers: HashMap<String, Tracker>,
}

impl World {
    async fn step(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["track", replica, workspace, user, allowed, denied] => {
                let tracker = self.tracker(replica).await?;
                tracker.track(id(workspace)?, id(user)?, allowed.parse()?, denied.parse()?)?;
            }
            ["threads", replica, threads, times, allowed, denied] => {
                let tracker = self.tracker(replica).await?;
                track_from_threads(&tracker, threads.parse()?, times.parse()?, allowed.parse()?, denied.parse()?);
            }
            ["beside", replica, count, allowed, denied] => {
                let tracker = self.tracker(replica).await?;
                track_beside_flushes(&tracker, count.parse()?, allowed.parse()?, denied.parse()?).await?;
            }
            ["flush", replica, "=>", expected] => {
                let outcome = outcome(&self.tracker(replica).await?.flush().await);
                ensure!(expected == "any" || expected == outcome, "{outcome}");
            }
            ["fail", step] => self.faults.inject(fault(step)?),
            ["restart", replica] => {
                let tracker = self.trackers.remove(replica).context("this replica has not started")?;
                tracker.shutdown().await?;
            }
            ["collect", "=>", workspaces, users, allowed, denied] => {
                let collected = self.collect().await?;
                let expected = [workspaces, users, allowed, denied].join(" ");
                ensure!(collected == expected, "{collected}");
            }
            ["rows", "=>", rows] => {
                let found = self.database.status().await?.rows.len();
                ensure!(rows.parse() == Ok(found), "{found} rows");
            }
            _ => bail!("not a scenario's line"),
        }
        Ok(())
    }

    async fn tracker(&mut self, replica: &str) -> Result<Tracker> {
        if let Some(tracker) = self.trackers.get(replica) {
            return Ok(tracker.clone());
        }
        let options = Options { clock: Clock::manual().0, ..Options::default() };
        let tracker = plugin().start(id(replica)?, self.database.clone(), options).await?;
        self.trackers.insert(replica.into(), tracker.clone());
        Ok(tracker)
    }

    async fn collect(&self) -> Result<String> {
        let Collection::Closed(summary) = self.database.collect(CollectOptions::default()).await? else {
            bail!("not due, though no age was asked for");
        };
        Ok(format!(
            "W{} U{} A{} D{}",
            summary.unique_workspaces, summary.unique_users, summary.allowed_requests, summary.denied_requests
        ))
    }
}

fn track_from_threads(tracker: &Tracker, threads: u128, times: u64, allowed: u64, denied: u64) {
    std::thread::scope(|scope| {
        for number in 1..=threads {
            scope.spawn(move || {
                for _ in 0..times {
                    let id = Uuid::from_u128(number);
                    tracker.track(id, id, allowed, denied).expect("a running tracker accepts");
                }
            });
        }
    });
}

async fn track_beside_flushes(tracker: &Tracker, count: u128, allowed: u64, denied: u64) -> Result<()> {
    let flushing = tokio::spawn({
        let tracker = tracker.clone();
        async move {
            for _ in 0..count {
                tracker.flush().await?;
            }
            Ok::<_, Error>(())
        }
    });
    for number in 1..=count {
        tracker.track(Uuid::from_u128(number), Uuid::from_u128(number), allowed, denied)?;
        tokio::task::yield_now().await;
    }
    flushing.await??;
    Ok(())
}

fn outcome(flushed: &Result<Flushed, Error>) -> &'static str {
    match flushed {
        Ok(Flushed::Idle) => "idle",
        Ok(Flushed::Confirmed { .. }) => "confirmed",
        Ok(Flushed::Written { .. }) => "written",
        Err(_) => "error",
    }
}

fn fault(step: &str) -> Result<Fault> {
    Ok(match step {
        "begin" => Fault::Begin,
        "acquire" => Fault::Acquire,
        "read" => Fault::Read,
        "upsert" => Fault::Upsert,
        "commit" => Fault::Commit,
        "commit-lost" => Fault::CommitLost,
        "commit-reply-lost" => Fault::CommitReplyLost,
        _ => bail!("no step is called {step:?}"),
    })
}

/// `w7` is the UUID whose first byte is the letter and whose last bytes are the number.
fn id(name: &str) -> Result<Uuid> {
    let letter = *name.as_bytes().first().context("an id is a letter and a number")?;
    let number: u64 = name[1..].parse().with_context(|| format!("{name:?} is not a letter and a number"))?;
    Ok(Uuid::from_u64_pair(u64::from(letter) << 56, number))
}
