//! The state that all parts of a run share.

use std::fmt;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use boundary_usage::HashingKey;
use tokio::time::Instant;

use super::model::Model;
use super::schedule::{Fault, Schedule};
use super::{Mutation, Report};

pub(super) struct Run {
    pub(super) seed: u64,
    pub(super) mutation: Option<Mutation>,
    start: Instant,
    schedule: Mutex<Schedule>,
    trace: Mutex<Trace>,
    model: Mutex<Model>,
}

#[derive(Default)]
struct Trace {
    text: String,
    steps: u64,
}

impl Run {
    pub(super) fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        Self {
            seed,
            mutation,
            start: Instant::now(),
            schedule: Mutex::new(Schedule::new(seed)),
            trace: Mutex::default(),
            model: Mutex::new(Model::new(hashing_key(mutation))),
        }
    }

    pub(super) fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().expect("no holder of this lock panics")
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect("no holder of this lock panics")
    }

    pub(super) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Returns the virtual time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Adds an event of an actor to the trace.
    pub(super) fn note(&self, actor: impl fmt::Display, event: impl fmt::Display) {
        let seconds = self.elapsed().as_secs_f64();
        let mut trace = self.trace.lock().expect("no holder of this lock panics");
        trace.steps += 1;
        writeln!(trace.text, "{seconds:>10.3} {actor:<6} {event}").expect("writing to a string does not fail");
    }

    /// Returns whether a fault strikes now, and adds a strike to the trace.
    pub(super) fn strikes(&self, fault: Fault, actor: impl fmt::Display) -> bool {
        let strikes = self.schedule().strikes(fault);
        if strikes {
            self.note(actor, format_args!("FAULT {fault:?}"));
        }
        strikes
    }

    pub(super) async fn pause(&self, duration: Duration) {
        match duration.is_zero() {
            true => tokio::task::yield_now().await,
            false => tokio::time::sleep(duration).await,
        }
    }

    pub(super) fn report(&self) -> Report {
        let trace = self.trace.lock().expect("no holder of this lock panics");
        Report {
            seed: self.seed,
            steps: trace.steps,
            trace: trace.text.clone(),
            fired: self.schedule().fired(),
            violations: self.model().violations().to_vec(),
        }
    }
}

/// Returns the hashing key of the database, which selects the mutation of the component.
pub(super) fn hashing_key(mutation: Option<Mutation>) -> HashingKey {
    let (first, second) = mutation.map_or((17, 4), Mutation::hashing_key);
    HashingKey(first, second)
}
