//! The progress of a replay: what was tracked, and what is in the database.
//!
//! The thread that reads and the task that waits for signals share the progress. The task cannot interrupt a thread
//! that waits for input. The task sets `closed` instead, and the thread then tracks nothing more.

use std::sync::{Mutex, MutexGuard, PoisonError};

use boundary_usage::{Error, Flushed};
use serde::Serialize;

/// The result of a replay.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Replayed {
    pub(super) activities: u64,
    pub(super) skipped: u64,
    pub(super) flushes: u64,
    pub(super) seconds: f64,
}

/// A line of a recording. Recordings are counted from 0, lines from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) input: usize,
    pub(super) line: u64,
}

const START: Position = Position { input: 0, line: 1 };

/// The number of activities before a position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) activities: u64,
    pub(super) next: Position,
}

/// The state of a replay.
#[derive(Debug)]
pub(super) struct State {
    pub(super) replayed: Replayed,
    /// The first line that was neither tracked nor skipped.
    pub(super) next: Position,
    /// The activities that the last successful flush covered.
    pub(super) written: Mark,
    /// The number of the last successful flush of this replay.
    pub(super) last_flush: Option<u64>,
    /// Whether a flush since the last successful one has an unknown outcome.
    pub(super) in_doubt: bool,
    /// The first skipped line, and its fault.
    pub(super) first_skipped: Option<String>,
    /// Whether the replay must stop.
    pub(super) closed: bool,
}

impl State {
    pub(super) fn mark(&self) -> Mark {
        Mark { activities: self.replayed.activities, next: self.next }
    }

    /// Records the outcome of a flush that carried everything before the mark.
    pub(super) fn flushed(&mut self, outcome: &Result<Flushed, Error>, carried: Mark) {
        match outcome {
            Ok(flushed) => {
                self.replayed.flushes += u64::from(*flushed != Flushed::Idle);
                if let Flushed::Written { flush, .. } | Flushed::Confirmed { flush } = flushed {
                    self.last_flush = Some(*flush);
                }
                self.written = carried;
                self.in_doubt = false;
            }
            Err(error) => self.in_doubt |= !is_certain(error),
        }
    }
}

/// Returns whether a flush with this error was certainly not applied.
fn is_certain(error: &Error) -> bool {
    matches!(
        error,
        Error::Unavailable { .. } | Error::Conflict { .. } | Error::Refused { .. } | Error::Configuration { .. }
    )
}

/// The state, shared by the thread that reads and the task that waits for signals.
pub(super) struct Progress(Mutex<State>);

impl Progress {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            replayed: Replayed::default(),
            next: START,
            written: Mark { activities: 0, next: START },
            last_flush: None,
            in_doubt: false,
            first_skipped: None,
            closed: false,
        }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
