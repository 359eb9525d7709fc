//! The activity that one flush carries.

use crate::sketch::CompactThetaSketch;

/// The largest request count, which is the maximum of the database's `bigint`.
///
/// Larger counts saturate at this maximum.
pub const REQUESTS_MAX: u64 = i64::MAX as u64;

/// Adds two request counts, up to [`REQUESTS_MAX`].
pub fn saturating_requests(left: u64, right: u64) -> u64 {
    left.saturating_add(right).min(REQUESTS_MAX)
}

/// The unique workspaces and users of some activity.
#[derive(Clone, Debug)]
pub struct Uniques {
    /// The workspaces that were active.
    pub workspaces: CompactThetaSketch,
    /// The owners of the active workspaces.
    pub users: CompactThetaSketch,
}

impl Uniques {
    /// Returns whether both sets already contain all ids of `other`.
    pub(crate) fn hold_all(&self, other: &Self) -> bool {
        self.workspaces.holds_all(&other.workspaces) && self.users.holds_all(&other.users)
    }

    /// Returns the union of both pairs of sets.
    pub fn union(&self, other: &Self) -> Self {
        Self { workspaces: self.workspaces.union(&other.workspaces), users: self.users.union(&other.users) }
    }
}

/// Unflushed activity that a flush carries.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The active ids.
    pub uniques: Uniques,
    /// Allowed requests.
    pub allowed: u64,
    /// Denied requests.
    pub denied: u64,
}

impl Snapshot {
    /// Merges two snapshots.
    pub fn merge(&self, other: &Self) -> Self {
        Self {
            uniques: self.uniques.union(&other.uniques),
            allowed: saturating_requests(self.allowed, other.allowed),
            denied: saturating_requests(self.denied, other.denied),
        }
    }

    /// Merges two snapshots of which either may be missing.
    pub(crate) fn merge_options(left: Option<Self>, right: Option<Self>) -> Option<Self> {
        match (left, right) {
            (Some(left), Some(right)) => Some(left.merge(&right)),
            (one, None) | (None, one) => one,
        }
    }
}
