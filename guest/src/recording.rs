//! The activity since the last flush started.

use crate::sketch::{HashingKey, ThetaSketch};
use crate::snapshot::{Snapshot, Uniques, saturating_requests};

/// The usage of one batch of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The workspace that sent the requests, or 0 (the nil UUID) for none.
    pub workspace: u128,
    /// The owner of the workspace, or 0 (the nil UUID) for none.
    pub owner: u128,
    /// Allowed requests.
    pub allowed: u64,
    /// Denied requests.
    pub denied: u64,
}

/// A growing record of the activity since the last flush.
#[derive(Default)]
pub(crate) struct Recording {
    workspaces: ThetaSketch,
    users: ThetaSketch,
    allowed: u64,
    denied: u64,
}

impl Recording {
    /// Records both ids as active and adds both counts. Counts of 0 still record the ids (R1), and nil ids are ignored.
    pub(crate) fn record(&mut self, key: HashingKey, activity: Activity) {
        if activity.workspace != 0 {
            self.workspaces.insert(key, activity.workspace);
        }
        if activity.owner != 0 {
            self.users.insert(key, activity.owner);
        }
        self.allowed = saturating_requests(self.allowed, activity.allowed);
        self.denied = saturating_requests(self.denied, activity.denied);
    }

    /// Takes the record and leaves an empty one; returns `None` if it is empty.
    ///
    /// The caller compacts the sets later, because a compaction would make this step too long.
    pub(crate) fn take(&mut self) -> Option<Self> {
        (!self.is_empty()).then(|| core::mem::take(self))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.workspaces.is_empty() && self.users.is_empty() && self.allowed == 0 && self.denied == 0
    }

    pub(crate) fn compact(self) -> Snapshot {
        Snapshot {
            uniques: Uniques { workspaces: self.workspaces.compact(), users: self.users.compact() },
            allowed: self.allowed,
            denied: self.denied,
        }
    }
}
