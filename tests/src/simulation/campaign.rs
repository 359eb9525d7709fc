//! The runs of many seeds, on all processors of the machine.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::schedule::Fault;
use super::{Mutation, Report, simulate};

/// The number of lines that are printed of a failed run's trace.
const TRACE_LINES: usize = 40;

/// The length of a campaign.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// This number of seeds.
    Seeds(u64),
    /// Seeds until their runs have this number of steps.
    Steps(u64),
}

/// The results of many runs.
#[derive(Debug, Default)]
pub struct Campaign {
    /// The number of runs.
    pub runs: u64,
    /// The number of steps of all runs.
    pub steps: u64,
    /// The number of strikes of each fault, in the order of [`Fault::ALL`].
    pub fired: [u64; Fault::ALL.len()],
    /// The failed run with the lowest seed, if any.
    pub failure: Option<Report>,
    mutation: Option<Mutation>,
}

impl Campaign {
    /// Runs seeds from `first` upwards, until the length is reached or a run fails.
    pub fn run(first: u64, length: Length, mutation: Option<Mutation>) -> Self {
        let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
        let campaign = Mutex::new(Self { mutation, ..Self::default() });
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !failed.load(Ordering::Relaxed) && !campaign.lock().expect("no holder panics").reached(length)
                    {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if matches!(length, Length::Seeds(seeds) if seed - first >= seeds) {
                            return;
                        }
                        let report = simulate(seed, mutation);
                        if !report.violations.is_empty() {
                            failed.store(true, Ordering::Relaxed);
                        }
                        campaign.lock().expect("no holder panics").add(report);
                    }
                });
            }
        });
        campaign.into_inner().expect("no holder panics")
    }

    fn reached(&self, length: Length) -> bool {
        matches!(length, Length::Steps(steps) if self.steps >= steps)
    }

    fn add(&mut self, report: Report) {
        self.runs += 1;
        self.steps += report.steps;
        self.fired.iter_mut().zip(report.fired).for_each(|(sum, fired)| *sum += fired);
        let is_first = self.failure.as_ref().is_none_or(|failure| report.seed < failure.seed);
        if !report.violations.is_empty() && is_first {
            self.failure = Some(report);
        }
    }
}

/// Returns the command that replays a seed.
pub fn replay_command(seed: u64, mutation: Option<Mutation>) -> String {
    match mutation {
        Some(mutation) => format!("make simulate SEED={seed} MUTATION={mutation:?}"),
        None => format!("make simulate SEED={seed}"),
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} seeds, {} steps", self.runs, self.steps)?;
        for (fault, fired) in Fault::ALL.iter().zip(self.fired) {
            writeln!(formatter, "  {:<18} {fired:>8}", format!("{fault:?}"))?;
        }
        let Some(Report { seed, trace, violations, .. }) = &self.failure else { return Ok(()) };
        let lines: Vec<_> = trace.lines().collect();
        for line in &lines[lines.len().saturating_sub(TRACE_LINES)..] {
            writeln!(formatter, "{line}")?;
        }
        writeln!(formatter, "seed {seed} failed:")?;
        violations.iter().try_for_each(|violation| writeln!(formatter, "  {violation}"))?;
        writeln!(formatter, "replay it with: {}", replay_command(*seed, self.mutation))
    }
}
