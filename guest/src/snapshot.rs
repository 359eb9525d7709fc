//! What one flush carries: the ids and the requests since the flush before it.

use crate::sketch::UniqueSketch;

/// The largest request count: that of the database's `bigint`. Counts stop there and never wrap.
pub const REQUESTS_MAX: u64 = i64::MAX as u64;

/// Adds two request counts, up to [`REQUESTS_MAX`].
pub fn saturating_requests(left: u64, right: u64) -> u64 {
    left.saturating_add(right).min(REQUESTS_MAX)
}

/// The two sets that are counted.
#[derive(Clone, Debug)]
pub struct Uniques {
    /// The workspaces that were active.
    pub workspaces: UniqueSketch,
    /// The users who own them.
    pub users: UniqueSketch,
}

impl Uniques {
    /// Whether these ids are among them already.
    pub(crate) fn hold_all(&self, other: &Self) -> bool {
        self.workspaces.holds_all(&other.workspaces) && self.users.holds_all(&other.users)
    }

    /// The ids of both.
    pub fn union(&self, other: &Self) -> Self {
        Self { workspaces: self.workspaces.union(&other.workspaces), users: self.users.union(&other.users) }
    }
}

/// Activity that left the tracker and is not yet known to be in the database.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The ids.
    pub uniques: Uniques,
    /// Requests let through.
    pub allowed: u64,
    /// Requests blocked.
    pub denied: u64,
}

impl Snapshot {
    /// Both snapshots as one.
    pub fn merge(&self, other: &Self) -> Self {
        Self {
            uniques: self.uniques.union(&other.uniques),
            allowed: saturating_requests(self.allowed, other.allowed),
            denied: saturating_requests(self.denied, other.denied),
        }
    }

    /// Merges two snapshots of which either may be missing.
    pub(crate) fn merge_some(left: Option<Self>, right: Option<Self>) -> Option<Self> {
        match (left, right) {
            (Some(left), Some(right)) => Some(left.merge(&right)),
            (one, None) | (None, one) => one,
        }
    }
}
