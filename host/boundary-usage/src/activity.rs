//! What a proxy reports: who was active, and how many requests were let through or blocked.

use uuid::Uuid;

use crate::error::TrackError;

/// What one batch of requests adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The workspace that the requests came from.
    pub workspace: Uuid,
    /// The user who owns it.
    pub owner: Uuid,
    /// Requests let through. Counts saturate at 2^63 - 1.
    pub allowed: u64,
    /// Requests blocked. Counts saturate at 2^63 - 1.
    pub denied: u64,
}

impl Activity {
    /// Requests whose workspace and owner do not count. The component records no nil id.
    pub(crate) fn without_ids(allowed: u64, denied: u64) -> Self {
        Self { workspace: Uuid::nil(), owner: Uuid::nil(), allowed, denied }
    }

    /// Refuses nil ids, so that they never reach the component.
    pub(crate) fn check(&self) -> Result<(), TrackError> {
        match (self.workspace.is_nil(), self.owner.is_nil()) {
            (false, false) => Ok(()),
            (true, _) => Err(TrackError::NilId { field: "workspace" }),
            (_, true) => Err(TrackError::NilId { field: "owner" }),
        }
    }
}
