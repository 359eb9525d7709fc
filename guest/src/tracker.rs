//! The only state that changes: activity is recorded, taken as a snapshot, and put back when a flush fails.
//!
//! The tracker remembers nothing of what it has flushed: its memory is that of two sketches, and of one snapshot
//! besides while a flush runs or has failed, however many ids come and however long the database is away (R6).

use crate::flush::{Flush, InDoubt, Outcome};
use crate::sketch::{HashingKey, UniqueSet};
use crate::snapshot::{Snapshot, Uniques, saturating_requests};

/// What one batch of requests adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The workspace that the requests came from.
    pub workspace: u128,
    /// The user who owns it.
    pub owner: u128,
    /// Requests let through.
    pub allowed: u64,
    /// Requests blocked.
    pub denied: u64,
}

/// A flush was asked for while another one runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another flush of this replica is running")]
pub struct AlreadyFlushing;

/// The usage of one replica since its last flush.
pub struct Tracker {
    key: HashingKey,
    workspaces: UniqueSet,
    users: UniqueSet,
    allowed: u64,
    denied: u64,
    /// Put back by a flush that failed (D2).
    returned: Option<Snapshot>,
    /// Left by a flush whose commit brought no reply (D3).
    in_doubt: Option<InDoubt>,
    flushing: bool,
}

impl Tracker {
    /// A tracker that has seen nothing, and hashes ids under this key.
    pub fn new(key: HashingKey) -> Self {
        Self {
            key,
            workspaces: UniqueSet::new(),
            users: UniqueSet::new(),
            allowed: 0,
            denied: 0,
            returned: None,
            in_doubt: None,
            flushing: false,
        }
    }

    /// Records both ids as active and adds both counts; counts of 0 still record the ids (R1).
    pub fn record(&mut self, activity: Activity) {
        self.workspaces.insert(self.key, activity.workspace);
        self.users.insert(self.key, activity.owner);
        self.allowed = saturating_requests(self.allowed, activity.allowed);
        self.denied = saturating_requests(self.denied, activity.denied);
    }

    /// Takes what there is to flush and starts again from nothing, in one step (R3). `None` when there is nothing to
    /// flush and nothing in doubt (R2). Every flush that is started must be ended with [`Tracker::end_flush`].
    ///
    /// # Errors
    ///
    /// When a flush runs already: it holds the snapshot that this one would have to wait for.
    pub fn start_flush(&mut self) -> Result<Option<Flush>, AlreadyFlushing> {
        if self.flushing {
            return Err(AlreadyFlushing);
        }
        let delta = Snapshot::merge_some(self.returned.take(), self.take_open());
        let in_doubt = self.in_doubt.take();
        if delta.is_none() && in_doubt.is_none() {
            return Ok(None);
        }
        self.flushing = true;
        Ok(Some(Flush::new(delta, in_doubt)))
    }

    /// Ends a flush: what is not in the database for certain comes back and goes out with the next one.
    pub fn end_flush(&mut self, flush: Flush, outcome: Outcome) {
        assert!(self.flushing, "a flush is ended once");
        assert!(self.returned.is_none() && self.in_doubt.is_none(), "a running flush holds all that was left");
        self.flushing = false;
        (self.returned, self.in_doubt) = flush.left_over(outcome);
    }

    fn take_open(&mut self) -> Option<Snapshot> {
        // Every record puts a workspace in, so that its set tells whether there was any.
        if self.workspaces.is_empty() {
            return None;
        }
        Some(Snapshot {
            uniques: Uniques { workspaces: self.workspaces.take(), users: self.users.take() },
            allowed: std::mem::take(&mut self.allowed),
            denied: std::mem::take(&mut self.denied),
        })
    }
}
