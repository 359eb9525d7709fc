//! Runs the scenarios in `tests/scenarios`.
//!
//! A scenario describes the behaviour of every host as lines of text.
//!
//! | line | meaning |
//! | --- | --- |
//! | `track R W U A D` | replica R tracks workspace W of user U: A allowed, D denied |
//! | `threads R N T A D` | N threads track simultaneously, T times each, every thread with its own ids |
//! | `beside R N A D` | N calls of `track` with different ids, while N flushes run |
//! | `flush R => OUTCOME` | R flushes, with the outcome `written`, `idle`, `confirmed`, `error`, or `any` |
//! | `fail STEP` | the next `begin`, `acquire`, `read`, `upsert` or `commit` fails |
//! | `fail commit-lost` | the next commit is not applied, and has no reply |
//! | `fail commit-reply-lost` | the next commit is applied, and has no reply |
//! | `restart R` | R shuts down, and its next line starts it again |
//! | `collect => W U A D` | a collection returns unique workspaces, unique users, allowed and denied requests |
//! | `rows => N` | the open period has N rows |
//!
//! The id of a replica, a workspace or a user is a letter and a number. A line that begins with `#` is a comment.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use boundary_usage::{Clock, CollectOptions, Collection, Database, Error, Flushed, Options, Tracker};
use uuid::Uuid;

use crate::faults::{Fault, Faults};
use crate::plugin;

/// Runs the text of a scenario on an empty database.
///
/// # Errors
///
/// Returns an error with the number of the first line that is false or invalid.
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
                ensure!(expected == "any" || expected == outcome, "the outcome is {outcome}");
            }
            ["fail", step] => self.faults.inject(fault(step)?),
            ["restart", replica] => {
                let tracker = self.trackers.remove(replica).context("this replica has not started")?;
                tracker.shutdown().await?;
            }
            ["collect", "=>", workspaces, users, allowed, denied] => {
                let collected = self.collect().await?;
                let expected = [workspaces, users, allowed, denied].join(" ");
                ensure!(collected == expected, "the collection returned {collected}");
            }
            ["rows", "=>", rows] => {
                let found = self.database.status().await?.rows.len();
                ensure!(rows.parse() == Ok(found), "there are {found} rows");
            }
            _ => bail!("unknown line"),
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
            bail!("the collection is not due although it has no minimum age");
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
        _ => bail!("unknown step {step:?}"),
    })
}

/// Returns the UUID of an id.
///
/// The first byte is the letter, and the last eight bytes are the number.
fn id(name: &str) -> Result<Uuid> {
    let letter = *name.as_bytes().first().context("an id is a letter and a number")?;
    let number: u64 = name[1..].parse().with_context(|| format!("{name:?} is not a letter and a number"))?;
    Ok(Uuid::from_u64_pair(u64::from(letter) << 56, number))
}
