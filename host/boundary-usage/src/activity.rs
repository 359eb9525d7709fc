//! The activity that a proxy reports.

use uuid::Uuid;

use crate::error::TrackError;

/// The usage of one batch of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The workspace that sent the requests.
    pub workspace: Uuid,
    /// The owner of the workspace.
    pub owner: Uuid,
    /// Allowed requests. Counts saturate at 2^63 - 1.
    pub allowed: u64,
    /// Denied requests. Counts saturate at 2^63 - 1.
    pub denied: u64,
}

impl Activity {
    /// Returns an activity with nil ids, which the component does not record.
    pub(crate) fn without_ids(allowed: u64, denied: u64) -> Self {
        Self { workspace: Uuid::nil(), owner: Uuid::nil(), allowed, denied }
    }

    /// Returns an error for a nil id, which a caller must not pass.
    pub(crate) fn check(&self) -> Result<(), TrackError> {
        if self.workspace.is_nil() {
            return Err(TrackError::NilId { field: "workspace" });
        }
        if self.owner.is_nil() {
            return Err(TrackError::NilId { field: "owner" });
        }
        Ok(())
    }
}
