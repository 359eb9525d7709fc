//! The logs that clients of a replica reported as dropped, for the summary of the period.

use uuid::Uuid;

use super::{Database, Lock, LockMode, Purpose};
use crate::error::Error;

impl Database {
    /// Adds to the logs that clients of a replica reported as dropped in the open period.
    ///
    /// The next collection stores the sum over all replicas in its summary.
    ///
    /// # Errors
    ///
    /// After any error except `CommitUnknown`, nothing is recorded, and the caller can try again.
    ///
    /// - [`Error::Unavailable`] if the database is unavailable.
    /// - [`Error::Conflict`] if a collection holds the lock for too long.
    /// - [`Error::Refused`] if the role may not record dropped logs.
    /// - [`Error::CommitUnknown`] if the commit has no reply. A second try could then count the logs twice.
    pub async fn record_client_drops(&self, replica: Uuid, logs: u64) -> Result<(), Error> {
        let mut transaction = self.backend().begin(Purpose::Flush).await?;
        // A collection deletes the row of this replica. The lock keeps this transaction in one period.
        transaction.acquire(Lock::Cutover, LockMode::Shared).await?;
        transaction.add_client_drops(replica, logs).await?;
        transaction.commit().await
    }
}
