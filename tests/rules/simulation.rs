//! The deterministic simulation with fixed seeds (D1 to D4, R3 to R8, C1).
//!
//! Every activity counts exactly once, in exactly one period, despite all faults.

use boundary_usage_tests::simulation::{Campaign, Fault, Length, Mutation, replay_command, simulate};

/// These seeds take a few seconds on two cores. `make simulate` runs more.
const SEEDS: u64 = 2_000;

/// The number of seeds that suffices to detect every mutation.
const SEEDS_FOR_A_MUTATION: u64 = 150;

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..40 {
        let (first, second) = (simulate(seed, None), simulate(seed, None));
        assert!(first.steps > 50, "seed {seed} has only {} steps", first.steps);
        let differs = first.trace.lines().zip(second.trace.lines()).find(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(simulate(1, None).trace, simulate(2, None).trace);
}

#[test]
fn every_activity_counts_exactly_once_in_exactly_one_period_whatever_fails() {
    let campaign = Campaign::run(0, Length::Seeds(SEEDS), None);
    assert!(campaign.failure.is_none(), "{campaign}");
    assert_eq!(campaign.runs, SEEDS);
    for (fault, fired) in Fault::ALL.into_iter().zip(campaign.fired) {
        assert!(fired >= least(fault), "{fault:?} occurred only {fired} times\n{campaign}");
    }
}

/// Returns how often a fault must occur over the fixed seeds, so that no change of the schedule removes it.
fn least(fault: Fault) -> u64 {
    match fault {
        Fault::FlushWithoutEnd | Fault::MemoryBomb | Fault::StackOverflow => 50,
        Fault::SlowReply | Fault::Outage | Fault::Kill | Fault::HandleDropped | Fault::TimeLeap => 200,
        Fault::RowsBreakOff | Fault::PeriodFails | Fault::TrapAfterCommit => 200,
        _ => 500,
    }
}

#[test]
fn every_broken_protection_is_noticed() {
    let mut unnoticed = Vec::new();
    for &mutation in Mutation::ALL {
        let campaign = Campaign::run(0, Length::Seeds(SEEDS_FOR_A_MUTATION), Some(mutation));
        match &campaign.failure {
            Some(failure) => println!("{mutation:?}: seed {}: {}", failure.seed, failure.violations[0]),
            None => unnoticed.push(mutation),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed within {SEEDS_FOR_A_MUTATION} seeds: {unnoticed:?}");
}

#[test]
fn a_failing_run_prints_its_seed_and_the_command_that_replays_it() {
    let mutation = Mutation::DoubtSentAgain;
    let campaign = Campaign::run(0, Length::Seeds(SEEDS_FOR_A_MUTATION), Some(mutation));
    let failure = campaign.failure.as_ref().expect("the broken protection is noticed");
    let text = campaign.to_string();
    assert!(text.contains(&format!("seed {} failed", failure.seed)), "{text}");
    assert!(text.contains(&format!("make simulate SEED={} MUTATION=DoubtSentAgain", failure.seed)), "{text}");
    assert!(text.contains(&failure.violations[0]), "{text}");
    assert_eq!(replay_command(7, None), "make simulate SEED=7");
    assert_eq!(&simulate(failure.seed, Some(mutation)), failure, "the replay differs from the run");
}
