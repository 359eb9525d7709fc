//! The steps of a component that a test can replace.

use crate::{Outcome, Unflushed, Update};

use super::world::{self, Transaction, types};

/// The component's calls to its host, and its interpretation of a flush's result.
///
/// The released component uses all the default implementations.
// The callers are generic and run on one thread, so no future needs to be `Send`.
#[allow(async_fn_in_trait)]
pub trait Hooks {
    /// Returns the unflushed activity of earlier instances.
    fn restore() -> Unflushed {
        let Ok(unflushed) = world::restore().try_into() else {
            unreachable!("a host restores the sketches of a tracker")
        };
        unflushed
    }

    /// Begins the transaction of a flush.
    async fn begin(replica: types::Uuid) -> Result<Transaction, types::Error> {
        Transaction::begin(replica).await
    }

    /// Reads the stored usage of the replica.
    async fn read(transaction: &Transaction) -> Result<types::StoredUsage, types::Error> {
        transaction.read().await
    }

    /// Writes an update, and returns whether the replica's row is new in the open period.
    async fn upsert(transaction: &Transaction, update: Update) -> Result<bool, types::Error> {
        transaction.upsert(update.into()).await
    }

    /// Commits the transaction.
    async fn commit(transaction: Transaction) -> Result<(), types::Error> {
        Transaction::commit(transaction).await
    }

    /// Returns whether the database has applied the flush that has this result.
    fn outcome(result: &Result<types::Flushed, types::Error>) -> Outcome {
        match result {
            Ok(_) => Outcome::Committed,
            Err(types::Error::CommitUnknown(_)) => Outcome::Unknown,
            Err(_) => Outcome::RolledBack,
        }
    }
}
