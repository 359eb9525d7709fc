//! Parsers never panic on invalid input.
//!
//! The input is the corpus and the same mutations of it on every run. `make fuzz SECONDS=60` sets FUZZ_SECONDS, and
//! each target then continues for that time with new mutations. An input that causes a panic is written to the
//! temporary directory and belongs in the corpus.

use std::panic::catch_unwind;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use boundary_usage_tests::fuzzing::{Numbers, TARGETS, corpus};

const MUTATIONS: usize = 2_000;

fn fuzz(name: &str) -> Result<()> {
    let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).context("no such target")?;
    let run = |input: &[u8]| {
        if catch_unwind(|| target(input)).is_err() {
            let file = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            std::fs::write(&file, input)?;
            bail!("{name} panics on {} ({} bytes); add the file to tests/corpus/{name}", file.display(), input.len());
        }
        Ok(())
    };
    let inputs = corpus(name)?;
    let mut numbers = Numbers(1);
    for (position, input) in inputs.iter().enumerate() {
        run(input)?;
        let other = &inputs[(position + 1) % inputs.len()];
        (0..MUTATIONS).try_for_each(|_| run(&numbers.mutate(input, other)))?;
    }
    let Ok(seconds) = std::env::var("FUZZ_SECONDS") else { return Ok(()) };
    let limit = Duration::from_secs(seconds.parse().context("FUZZ_SECONDS is a number of seconds")?);
    let mut numbers = Numbers(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64);
    let (start, mut runs) = (Instant::now(), 0_u64);
    while start.elapsed() < limit {
        for (position, input) in inputs.iter().enumerate() {
            let mutated = numbers.mutate(input, &inputs[(position + 7) % inputs.len()]);
            run(&mutated)?;
            run(&numbers.mutate(&mutated, input))?;
            runs += 2;
        }
    }
    println!("{name}: {runs} inputs");
    Ok(())
}

#[test]
fn audit_frames_never_cause_a_panic() -> Result<()> {
    fuzz("audit_frames")
}

#[test]
fn recordings_never_cause_a_panic() -> Result<()> {
    fuzz("json_lines")
}

#[test]
fn stored_sketches_never_cause_a_panic() -> Result<()> {
    fuzz("sketch")
}

#[test]
fn checkpoints_never_cause_a_panic() -> Result<()> {
    assert_eq!(corpus("checkpoint")?.len(), 3);
    fuzz("checkpoint")
}

#[test]
fn database_urls_never_cause_a_panic_or_show_a_password() -> Result<()> {
    fuzz("database_url")
}

#[test]
fn the_same_seed_gives_the_same_inputs() {
    let inputs = |seed| (0..50).scan(Numbers(seed), |numbers, _| Some(numbers.mutate(b"input", b"other"))).collect();
    let first: Vec<Vec<u8>> = inputs(1);
    assert_eq!(first, inputs(1));
    assert_ne!(first, inputs(2));
}
