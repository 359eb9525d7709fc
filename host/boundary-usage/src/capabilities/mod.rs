//! The capabilities of a component: the imports of its world, each with the checks that confine it to its own replica.
//!
//! | file | duty |
//! | --- | --- |
//! | `transactions.rs`, `locks.rs` | the host functions of `transactions.wit` and `locks.wit` |
//! | `open_transaction.rs` | a database transaction between its begin and its commit |
//! | `database_work.rs` | runs a call of the database, and finishes it as a task if the component crashes |
//! | `validation.rs` | compares what a component writes and returns with the host's ledger |
//! | `conversions.rs` | converts between the contract's types and those of this library |

mod conversions;
mod database_work;
mod locks;
mod open_transaction;
mod transactions;
mod validation;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use boundary_usage_tracker::HashingKey;
use tokio::sync::oneshot;
use uuid::Uuid;
use wasmtime::StoreLimits;
use wasmtime::component::ResourceTable;

pub(crate) use self::conversions::{CallError, from_component};
#[allow(unreachable_pub)] // The generated bindings name it.
pub use self::transactions::Transaction;
pub(crate) use self::validation::validate_result;
use crate::bindings::boundary::usage::types;
use crate::checkpoint::CheckpointWriter;
use crate::database::Database;
use crate::error::Error;
use crate::ledger::{Forgotten, Ledger};
use crate::records::StoredUsage;

/// The host's state behind one instance of the component.
pub(crate) struct HostState {
    pub(crate) limits: StoreLimits,
    pub(crate) table: ResourceTable,
    pub(crate) context: Arc<ReplicaContext>,
    /// The unflushed activity that the instance restores.
    ///
    /// The host copies this activity from the ledger before the instance starts, because the ledger later also contains
    /// the instance's own activity.
    pub(crate) unflushed: Option<types::Unflushed>,
    /// The tick of the engine's clock at which the component last began to compute.
    pub(crate) entered: Arc<AtomicU64>,
    /// Whether a flush runs. The component can begin a transaction only then.
    pub(crate) is_flushing: bool,
    pub(crate) has_open_transaction: bool,
    /// Notified when the component has taken the snapshot of the running flush.
    pub(crate) snapshot_taken: Option<oneshot::Sender<()>>,
}

impl HostState {
    pub(crate) fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }
}

/// The state that all instances of one tracker share.
pub(crate) struct ReplicaContext {
    pub(crate) replica: Uuid,
    pub(crate) database: Database,
    pub(crate) hashing_key: HashingKey,
    pub(crate) flush_timeout: Duration,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    /// Writes the ledger to disk; `None` without a state directory.
    pub(crate) checkpoint_writer: Option<Arc<CheckpointWriter>>,
}

impl ReplicaContext {
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no holder of this lock panics")
    }

    /// Records what the component has read, and warns if the database has lost flushes.
    fn record_read(&self, stored: &StoredUsage) {
        if let Some(Forgotten { confirmed, stored }) = self.ledger().stored_read(stored) {
            tracing::warn!(
                replica = %self.replica, confirmed, stored,
                "the database has lost flushes {} to {confirmed}, which it had confirmed: a backup was restored, a \
                 lagging standby took over, or the replica was idle and pruned; their usage is lost unless a collected \
                 period contains it",
                stored + 1
            );
        }
    }

    /// Writes the checkpoint that must precede a commit.
    async fn checkpoint_before_commit(&self) -> Result<(), Error> {
        match &self.checkpoint_writer {
            Some(writer) => writer.before_commit().await,
            None => Ok(()),
        }
    }
}
