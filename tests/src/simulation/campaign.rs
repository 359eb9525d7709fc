//! Many seeds, each a run of its own, on as many threads as the machine has.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::schedule::Fault;
use super::{Mutation, Report, simulate};

/// How many lines of a failed run's trace are shown.
const TRACE_LINES: usize = 40;

/// How long a campaign is.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// So many seeds.
    Seeds(u64),
    /// As many seeds as give so many steps.
    Steps(u64),
}

/// What a campaign has seen.
#[derive(Debug, Default)]
pub struct Campaign {
    /// Seeds that were run.
    pub runs: u64,
    /// Their steps.
    pub steps: u64,
    /// How often each fault struck, in the order of [`Fault::ALL`].
    pub fired: [u64; Fault::ALL.len()],
    /// The run of the lowest seed that failed.
    pub failure: Option<Report>,
    mutation: Option<Mutation>,
}

impl Campaign {
    /// Runs seeds from the first one up, until the length is reached or one fails.
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

/// What replays a seed.
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
