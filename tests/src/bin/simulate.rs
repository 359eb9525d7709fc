//! Runs the deterministic simulation for long, or replays one seed with its trace.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use boundary_usage_tests::simulation::{Campaign, Length, Mutation, simulate};
use clap::Parser;

/// Runs the deterministic simulation. Exits with 1 if a seed violates the promise.
#[derive(Parser)]
struct Arguments {
    /// Number of seeds to run.
    #[arg(long, default_value_t = 2_000, conflicts_with_all = ["steps", "seed"])]
    seeds: u64,
    /// Number of steps to run, over all seeds.
    #[arg(long, conflicts_with = "seed")]
    steps: Option<u64>,
    /// Replay this seed, and print all events.
    #[arg(long)]
    seed: Option<u64>,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Remove a protection, to check that the simulation fails.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
}

fn mutation(name: &str) -> Result<Mutation> {
    let mutation = Mutation::ALL.iter().find(|mutation| format!("{mutation:?}") == name);
    mutation.copied().with_context(|| format!("unknown mutation; the mutations are {:?}", Mutation::ALL))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let failed = match arguments.seed {
        Some(seed) => replay(seed, arguments.mutation),
        None => campaign(&arguments),
    };
    ExitCode::from(u8::from(failed))
}

/// Replays one seed, and returns whether the run failed.
fn replay(seed: u64, mutation: Option<Mutation>) -> bool {
    let report = simulate(seed, mutation);
    print!("{}", report.trace);
    report.violations.iter().for_each(|violation| println!("{violation}"));
    println!("seed {seed}: {} steps, {} violations", report.steps, report.violations.len());
    !report.violations.is_empty()
}

/// Runs many seeds, and returns whether one failed.
fn campaign(arguments: &Arguments) -> bool {
    let length = arguments.steps.map_or(Length::Seeds(arguments.seeds), Length::Steps);
    let start = Instant::now();
    let campaign = Campaign::run(arguments.first, length, arguments.mutation);
    let seconds = start.elapsed().as_secs_f64();
    print!("{campaign}");
    let (seeds, steps) = (campaign.runs as f64 / seconds, campaign.steps as f64 / seconds);
    println!("{seconds:.1} s: {seeds:.0} seeds and {steps:.0} steps per second");
    campaign.failure.is_some()
}
