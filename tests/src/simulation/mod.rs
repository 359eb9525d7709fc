//! The deterministic simulation.
//!
//! Replicas, which run the real component, and a collector use a simulated database. Each simulation runs in virtual
//! time on one thread, and draws everything random from one seed.
//!
//! ```text
//!  schedule ──────▶ world ──────▶ processes ──────▶ component ──────▶ database
//!  (what, when,     (acts)        (start, track,    (wasm, by the     (locks, sessions,
//!   which fault)                   flush, kill)      real host)        late commits)
//!                     │                                                   │
//!                     └────────── accepted ──────▶ model ◀── committed ───┘
//!                                                 (checks)
//! ```
//!
//! | file | contents |
//! | --- | --- |
//! | `schedule.rs` | the random numbers, which select the faults of a run and when they strike |
//! | `run.rs` | the state that the parts of a run share: its schedule, its trace and its model |
//! | `database.rs`, `session.rs` | the tables, the locks and the transactions |
//! | `process.rs` | the process of a replica: starts, flushes, and ends |
//! | `world.rs` | the actions of a run |
//! | `model.rs` | the accepted activity, and whether the database contains it |
//! | `campaign.rs` | the runs of many seeds |
//!
//! Runs of the same seed have the same events. Therefore the real clock must not interrupt the component. Its CPU limit
//! is too long to be reached, and other tests cover endless loops.

mod campaign;
mod database;
mod days;
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

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed of its random numbers.
    pub seed: u64,
    /// The number of events, which are actions and calls of the database.
    pub steps: u64,
    /// All events with their virtual times, one per line.
    pub trace: String,
    /// The number of strikes of each fault, in the order of [`Fault::ALL`].
    pub fired: [u64; Fault::ALL.len()],
    /// The violations of the promise. Empty if the run succeeded.
    pub violations: Vec<String>,
}

/// Runs one seed, without the protection that the mutation removes, if any.
pub fn simulate(seed: u64, mutation: Option<Mutation>) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs no resources of the system");
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        let run = Arc::new(Run::new(seed, mutation));
        world::play(&run).await;
        run.report()
    }))
}
