//! The host functions of `transactions.wit`.

use boundary_usage_tracker::{HashingKey, Outcome};
use uuid::Uuid;
use wasmtime::Result as Trap;
use wasmtime::component::{Accessor, HasSelf, Resource};

use super::open_transaction::OpenTransaction;
use super::{CallError, HostState, validation};
use crate::bindings::boundary::usage::{transactions, types};
use crate::error::Error;
use crate::records::UniquesUpdate;

/// The transaction that a component holds. Dropping this value rolls the transaction back.
#[allow(unreachable_pub)] // The generated bindings re-export it inside this crate.
pub struct Transaction {
    /// `None` while a call uses the transaction, and after a failed call.
    open: Option<OpenTransaction>,
    pub(super) holds_cutover_lock: bool,
    pub(super) holds_replica_lock: bool,
    has_read: bool,
    has_upserted: bool,
}

impl Transaction {
    fn new(open: OpenTransaction) -> Self {
        Self {
            open: Some(open),
            holds_cutover_lock: false,
            holds_replica_lock: false,
            has_read: false,
            has_upserted: false,
        }
    }

    /// Takes the database transaction for a call, because no borrow of the store may live while the call waits.
    pub(super) fn take(&mut self) -> Result<OpenTransaction, CallError> {
        let error = || Error::Unavailable { action: "using a transaction", source: "it is busy or failed".into() };
        self.open.take().ok_or_else(|| error().into())
    }

    /// Puts the database transaction back after a successful call.
    pub(super) fn put_back(&mut self, open: OpenTransaction) {
        self.open = Some(open);
    }
}

impl transactions::HostTransaction for HostState {
    /// Drops the component's handle, which rolls back an open transaction.
    fn drop(&mut self, transaction: Resource<Transaction>) -> Trap<()> {
        self.has_open_transaction = false;
        self.table.delete(transaction)?;
        Ok(())
    }
}

impl transactions::Host for HostState {
    fn hashing_key(&mut self) -> Trap<(u64, u64)> {
        let HashingKey(first, second) = self.context.hashing_key;
        Ok((first, second))
    }

    fn restore(&mut self) -> Trap<types::Unflushed> {
        Ok(self.unflushed.take().unwrap_or(types::Unflushed { delta: None, in_doubt: None }))
    }
}

impl HostState {
    /// Records that a transaction is open, if the component may begin one now.
    fn admit_transaction(&mut self, replica: Uuid) -> Result<(), CallError> {
        if replica != self.context.replica {
            return Err(CallError::refused(format!("replica {replica} is not the component's own")));
        }
        if !self.is_flushing {
            return Err(CallError::refused("only a flush can begin a transaction"));
        }
        if self.has_open_transaction {
            return Err(CallError::refused("the component has another open transaction"));
        }
        if !self.context.ledger().flush_begins() {
            return Err(CallError::refused("there is nothing to flush, or this flush has already read the usage"));
        }
        if let Some(snapshot_taken) = self.snapshot_taken.take() {
            // The receiver is gone if the flush was cancelled.
            let _ = snapshot_taken.send(());
        }
        self.has_open_transaction = true;
        Ok(())
    }
}

impl<T: Send> transactions::HostTransactionWithStore<T> for HasSelf<HostState> {
    async fn begin(accessor: &Accessor<T, Self>, replica: types::Uuid) -> Result<Resource<Transaction>, CallError> {
        let replica = Uuid::from_u64_pair(replica.high, replica.low);
        let context = accessor.with(|mut access| {
            let state = access.get();
            state.admit_transaction(replica)?;
            Ok::<_, CallError>(state.context.clone())
        })?;
        let begun = OpenTransaction::begin(&context.database, replica, context.flush_timeout).await;
        accessor.with(|mut access| {
            let state = access.get();
            match begun {
                Ok(open) => Ok(state.table.push(Transaction::new(open))?),
                Err(error) => {
                    state.has_open_transaction = false;
                    Err(error.into())
                }
            }
        })
    }

    async fn read(
        accessor: &Accessor<T, Self>,
        transaction: Resource<Transaction>,
    ) -> Result<types::StoredUsage, CallError> {
        let open = accessor.with(|mut access| {
            let transaction = access.get().table.get_mut(&transaction)?;
            if !transaction.holds_replica_lock {
                return Err(CallError::refused("a read needs the replica's lock"));
            }
            transaction.take()
        })?;
        let (open, stored) = open.read().await?;
        accessor.with(|mut access| {
            let state = access.get();
            let transaction = state.table.get_mut(&transaction)?;
            transaction.put_back(open);
            transaction.has_read = true;
            state.context.record_read(&stored);
            Ok(stored.into())
        })
    }

    async fn upsert(
        accessor: &Accessor<T, Self>,
        transaction: Resource<Transaction>,
        update: types::Update,
    ) -> Result<bool, CallError> {
        let (open, update) = accessor.with(|mut access| {
            let state = access.get();
            let transaction = state.table.get_mut(&transaction)?;
            if !(transaction.holds_cutover_lock && transaction.holds_replica_lock && transaction.has_read) {
                return Err(CallError::refused("an upsert needs the cutover lock, the replica's lock, and a read"));
            }
            if transaction.has_upserted {
                return Err(CallError::refused("this transaction already has an upsert"));
            }
            let planned = state.context.ledger().planned();
            let update = validation::validate_update(planned, update.into())
                .map_err(|difference| CallError::Trap(wasmtime::Error::msg(difference)))?;
            transaction.has_upserted = true;
            Ok((transaction.take()?, update))
        })?;
        let is_new_period = matches!(update.uniques, UniquesUpdate::Delta(_));
        let open = open.upsert(update).await?;
        accessor.with(|mut access| {
            access.get().table.get_mut(&transaction)?.put_back(open);
            Ok(is_new_period)
        })
    }

    async fn commit(accessor: &Accessor<T, Self>, transaction: Resource<Transaction>) -> Result<(), CallError> {
        let (mut transaction, context) = accessor.with(|mut access| {
            let state = access.get();
            state.has_open_transaction = false;
            Ok::<_, CallError>((state.table.delete(transaction)?, state.context.clone()))
        })?;
        if !transaction.has_upserted {
            return Err(CallError::refused("there is nothing to commit"));
        }
        let open = transaction.take()?;
        context.ledger().commit_sent();
        if let Err(error) = open.before_its_deadline(context.checkpoint_before_commit()).await {
            context.ledger().commit_completed(Outcome::RolledBack);
            return Err(error.into());
        }
        let result = open.commit().await;
        context.ledger().commit_completed(match &result {
            Ok(()) => Outcome::Committed,
            Err(Error::CommitUnknown { .. }) => Outcome::Unknown,
            Err(_) => Outcome::RolledBack,
        });
        Ok(result?)
    }
}
