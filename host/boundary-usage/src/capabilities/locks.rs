//! The host functions of `locks.wit`.

use wasmtime::component::{Accessor, HasSelf, Resource};

use super::{CallError, HostState, Transaction};
use crate::bindings::boundary::usage::{locks, types};
use crate::database::{Lock, LockMode};

impl locks::Host for HostState {}

impl<T: Send> locks::HostWithStore<T> for HasSelf<HostState> {
    async fn acquire(
        accessor: &Accessor<T, Self>,
        transaction: Resource<Transaction>,
        lock: types::Lock,
        mode: types::Mode,
    ) -> Result<(), CallError> {
        let open = accessor.with(|mut access| {
            let state = access.get();
            let replica = state.context.replica;
            let (lock, mode) = match (lock, mode) {
                (types::Lock::Cutover, types::Mode::Shared) => (Lock::Cutover, LockMode::Shared),
                (types::Lock::Replica, types::Mode::Exclusive) => (Lock::Replica(replica), LockMode::Exclusive),
                (types::Lock::Cutover, types::Mode::Exclusive) => {
                    return Err(CallError::refused("only a collection acquires the cutover lock exclusively"));
                }
                (types::Lock::Replica, types::Mode::Shared) => {
                    return Err(CallError::refused("a replica's lock is exclusive"));
                }
            };
            let open = state.table.get_mut(&transaction)?.take()?;
            Ok((open, lock, mode))
        });
        let (open, database_lock, mode) = open?;
        let open = open.acquire(database_lock, mode).await?;
        accessor.with(|mut access| {
            let transaction = access.get().table.get_mut(&transaction)?;
            transaction.put_back(open);
            match lock {
                types::Lock::Cutover => transaction.holds_cutover_lock = true,
                types::Lock::Replica => transaction.holds_replica_lock = true,
            }
            Ok(())
        })
    }
}
