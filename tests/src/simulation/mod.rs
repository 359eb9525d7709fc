//! The deterministic simulation: replicas that run the real component, and a collector, on a database of the simulation's
//! own, in virtual time and on one thread, everything random drawn from one seed.
//!
//! ```text
//!  schedule ──────▶ world ──────▶ processes ──────▶ component ──────▶ database
//!  (what, when,     (acts)        (start, track,    (wasm, by the     (locks, sessions,
//!   which fault)                   flush, kill)      real host)        commits that come late)
//!                     │                                                   │
//!                     └────────── accepted ──────▶ model ◀── committed ───┘
//!                                                 (judges)
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `schedule.rs` | the random numbers: which faults a run knows and when they strike |
//! | `run.rs` | what the parts of one run share: its schedule, its trace, its model |
//! | `database.rs`, `session.rs` | the tables, the locks and what a connection does to them |
//! | `process.rs` | one replica's process: started, killed, started again |
//! | `world.rs` | the story of one run |
//! | `model.rs` | what was accepted, what may be lost, and whether the database says the same |
//! | `campaign.rs` | many seeds |
//!
//! A run with the same seed is the same run, event by event. For that the component must not be interrupted by real time:
//! its computing limit is far off, and endless loops are tested elsewhere.

mod campaign;
mod database;
mod model;
mod process;
mod run;
mod schedule;
mod session;
mod world;

pub use boundary_usage_misbehaving::Mutation;
pub use campaign::{Campaign, Length, replay_command};
pub use schedule::Fault;

use std::sync::Arc;

use self::run::Run;

/// What one run was and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it was drawn from.
    pub seed: u64,
    /// Events: what the world did and what the database was asked.
    pub steps: u64,
    /// Every event, one a line, with its virtual time.
    pub trace: String,
    /// How often each fault struck, in the order of [`Fault::ALL`].
    pub fired: [u64; Fault::ALL.len()],
    /// What does not hold; empty when the promise was kept.
    pub violations: Vec<String>,
}

/// Runs one seed, with a protection broken or none.
pub fn simulate(seed: u64, mutation: Option<Mutation>) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O asks nothing of the system");
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        let run = Arc::new(Run::new(seed, mutation));
        world::play(&run).await;
        run.report()
    }))
}
