//! What the component can do: the imports of its world, each with the checks that keep it to its own replica.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use boundary_usage_tracker::{HashingKey, InDoubt, LeftOver, Outcome, Snapshot, UniqueSketch};
use tokio::sync::oneshot;
use uuid::Uuid;
use wasmtime::component::{Accessor, HasSelf, Resource, ResourceTable};
use wasmtime::{Result as Trap, StoreLimits};

use super::bindings::boundary::usage::{locks, transactions, types};
use super::comparison;
use super::transaction::{Beginning, Granted, Transaction};
use crate::checkpoint::Keeper;
use crate::database::{Database, Stored, UniqueSet, Uniques, UniquesUpdate, Update};
use crate::error::{Error, chain};
use crate::ledger::{Forgotten, Ledger};

/// The state behind one instance.
pub(super) struct Capabilities {
    pub(super) limits: StoreLimits,
    pub(super) table: ResourceTable,
    pub(super) grants: Arc<Grants>,
    /// What the instance starts from, until it has asked for it: as of its making, because whatever it is told from then
    /// on is recorded in the ledger too.
    pub(super) left_over: Option<types::LeftOver>,
    /// The tick at which the component last began to compute.
    pub(super) entered: Arc<AtomicU64>,
    /// The transaction of a flush that has just been called, until the component begins it.
    pub(super) beginning: Option<Beginning>,
    /// A flush was called and has not returned. Outside of it, no transaction may be begun.
    pub(super) flushing: bool,
    pub(super) transaction_open: bool,
    /// Told when the component has taken the snapshot of the flush that was called.
    pub(super) snapshot_taken: Option<oneshot::Sender<()>>,
}

/// What all instances of one tracker are granted.
pub(crate) struct Grants {
    pub(crate) replica: Uuid,
    pub(crate) database: Database,
    pub(crate) hashing_key: HashingKey,
    pub(crate) flush_timeout: Duration,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    /// Keeps the ledger's account on disk, if that is asked for.
    pub(crate) keeper: Option<Arc<Keeper>>,
}

impl Grants {
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no holder of this lock panics")
    }

    /// Has the database begin the transaction of a flush.
    pub(super) fn begin(&self) -> Beginning {
        Beginning::start(&self.database, self.replica, self.flush_timeout)
    }

    /// The component has read what is stored.
    fn stored_read(&self, stored: &Stored) {
        if let Some(Forgotten { confirmed, stored }) = self.ledger().stored_read(stored) {
            tracing::warn!(
                replica = %self.replica, confirmed, stored,
                "the database no longer has flushes that it had confirmed: a backup was restored, or a standby that lagged \
                 behind took over; what flushes {} to {confirmed} carried is lost, unless a collected period holds it",
                stored + 1
            );
        }
    }

    /// An error says that the commit must not be sent.
    async fn checkpoint_before_commit(&self) -> Result<(), Error> {
        match &self.keeper {
            Some(keeper) => keeper.before_commit().await,
            None => Ok(()),
        }
    }
}

impl Capabilities {
    pub(super) fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }
}

impl types::Host for Capabilities {}
impl locks::Host for Capabilities {}

impl transactions::HostTransaction for Capabilities {
    /// Rolls back.
    fn drop(&mut self, transaction: Resource<Transaction>) -> Trap<()> {
        self.transaction_open = false;
        self.table.delete(transaction)?;
        Ok(())
    }
}

impl transactions::Host for Capabilities {
    fn hashing_key(&mut self) -> Trap<(u64, u64)> {
        let HashingKey(first, second) = self.grants.hashing_key;
        Ok((first, second))
    }

    fn restore(&mut self) -> Trap<types::LeftOver> {
        Ok(self.left_over.take().unwrap_or(types::LeftOver { delta: None, in_doubt: None }))
    }
}

impl<T: Send> transactions::HostTransactionWithStore<T> for HasSelf<Capabilities> {
    async fn begin(
        accessor: &Accessor<T, Self>,
        replica: types::Uuid,
    ) -> Trap<Result<Resource<Transaction>, types::Error>> {
        let replica = Uuid::from_u64_pair(replica.high, replica.low);
        let beginning = accessor.with(|mut access| {
            let capabilities = access.get();
            if replica != capabilities.grants.replica {
                return Err(refused(format!("replica {replica} is not the component's own")));
            }
            if !capabilities.flushing {
                return Err(refused("a transaction can be begun in a flush only"));
            }
            if capabilities.transaction_open {
                return Err(refused("the component has a transaction open"));
            }
            if !capabilities.grants.ledger().flush_begins() {
                return Err(refused("there is nothing to flush, or this flush has read what is stored already"));
            }
            if let Some(snapshot_taken) = capabilities.snapshot_taken.take() {
                // Whoever waited for it may have gone on without.
                let _ = snapshot_taken.send(());
            }
            capabilities.transaction_open = true;
            Ok(capabilities.beginning.take().unwrap_or_else(|| capabilities.grants.begin()))
        });
        let beginning = match beginning {
            Ok(beginning) => beginning,
            Err(error) => return Ok(Err(error)),
        };
        let begun = beginning.opened().await;
        accessor.with(|mut access| {
            let capabilities = access.get();
            match begun {
                Ok(open) => Ok(Ok(capabilities.table.push(Transaction::new(open))?)),
                Err(error) => {
                    capabilities.transaction_open = false;
                    Ok(Err(error.into()))
                }
            }
        })
    }

    async fn read(
        accessor: &Accessor<T, Self>,
        transaction: Resource<Transaction>,
    ) -> Trap<Result<types::Stored, types::Error>> {
        let taken = accessor.with(|mut access| -> Trap<_> {
            let transaction = access.get().table.get_mut(&transaction)?;
            if !transaction.granted.replica {
                return Ok(Err(refused("to read needs the replica's lock")));
            }
            Ok(transaction.take().map_err(Into::into))
        })?;
        let read = match taken {
            Ok(open) => open.read().await,
            Err(error) => return Ok(Err(error)),
        };
        accessor.with(|mut access| {
            let capabilities = access.get();
            let transaction = capabilities.table.get_mut(&transaction)?;
            Ok(match read {
                Ok((open, stored)) => {
                    transaction.put_back(open);
                    transaction.granted.has_read = true;
                    capabilities.grants.stored_read(&stored);
                    Ok(stored.into())
                }
                Err(error) => Err(error.into()),
            })
        })
    }

    async fn upsert(
        accessor: &Accessor<T, Self>,
        transaction: Resource<Transaction>,
        update: types::Update,
    ) -> Trap<Result<bool, types::Error>> {
        // It is sent with the commit.
        accessor.with(|mut access| {
            let capabilities = access.get();
            let transaction = capabilities.table.get_mut(&transaction)?;
            let Granted { cutover: true, replica: true, has_read: true } = transaction.granted else {
                return Ok(Err(refused("to upsert needs the cutover lock, the replica's lock, and a read")));
            };
            if transaction.update.is_some() {
                return Ok(Err(refused("the transaction has an upsert already")));
            }
            let planned = capabilities.grants.ledger().planned();
            let planned = comparison::of_updates(planned, update.into()).map_err(wasmtime::Error::msg)?;
            let new_period = matches!(planned.uniques, UniquesUpdate::Delta(_));
            transaction.update = Some(planned);
            Ok(Ok(new_period))
        })
    }

    async fn commit(
        accessor: &Accessor<T, Self>,
        transaction: Resource<Transaction>,
    ) -> Trap<Result<(), types::Error>> {
        let (mut transaction, grants) = accessor.with(|mut access| -> Trap<_> {
            let capabilities = access.get();
            capabilities.transaction_open = false;
            Ok((capabilities.table.delete(transaction)?, capabilities.grants.clone()))
        })?;
        let Some(update) = transaction.update.take() else {
            return Ok(Err(refused("there is nothing to commit")));
        };
        let open = match transaction.take() {
            Ok(open) => open,
            Err(error) => return Ok(Err(error.into())),
        };
        grants.ledger().commit_sent();
        if let Err(error) = open.within_its_time(grants.checkpoint_before_commit()).await {
            grants.ledger().commit_answered(Outcome::RolledBack);
            return Ok(Err(error.into()));
        }
        let result = open.commit(update).await;
        grants.ledger().commit_answered(match &result {
            Ok(()) => Outcome::Committed,
            Err(Error::CommitUnknown { .. }) => Outcome::Unknown,
            Err(_) => Outcome::RolledBack,
        });
        Ok(result.map_err(Into::into))
    }
}

impl<T: Send> locks::HostWithStore<T> for HasSelf<Capabilities> {
    async fn acquire(
        accessor: &Accessor<T, Self>,
        transaction: Resource<Transaction>,
        lock: types::Lock,
        mode: types::Mode,
    ) -> Trap<Result<(), types::Error>> {
        // The transaction has held both since it began; what is granted is what the component has asked for.
        let refusal = match (lock, mode) {
            (types::Lock::Cutover, types::Mode::Shared) | (types::Lock::Replica, types::Mode::Exclusive) => None,
            (types::Lock::Cutover, types::Mode::Exclusive) => Some("only a collection holds the cutover lock alone"),
            (types::Lock::Replica, types::Mode::Shared) => Some("a replica's lock is exclusive"),
        };
        if let Some(refusal) = refusal {
            return Ok(Err(refused(refusal)));
        }
        accessor.with(|mut access| {
            let granted = &mut access.get().table.get_mut(&transaction)?.granted;
            match lock {
                types::Lock::Cutover => granted.cutover = true,
                types::Lock::Replica => granted.replica = true,
            }
            Ok(Ok(()))
        })
    }
}

fn refused(message: impl Into<String>) -> types::Error {
    types::Error::Refused(message.into())
}

impl From<Stored> for types::Stored {
    fn from(stored: Stored) -> Self {
        Self { last_flush: stored.last_flush, uniques: stored.uniques.map(Into::into) }
    }
}

impl From<Uniques> for types::Uniques {
    fn from(uniques: Uniques) -> Self {
        Self { workspaces: uniques.workspaces.into(), users: uniques.users.into() }
    }
}

impl From<types::Update> for Update {
    fn from(update: types::Update) -> Self {
        let uniques = match update.uniques {
            types::UniquesUpdate::Delta(uniques) => UniquesUpdate::Delta(uniques.into()),
            types::UniquesUpdate::Cumulative(uniques) => UniquesUpdate::Cumulative(uniques.into()),
            types::UniquesUpdate::Unchanged => UniquesUpdate::Unchanged,
        };
        Self { flush: update.flush, uniques, allowed: update.allowed, denied: update.denied }
    }
}

impl From<types::Uniques> for Uniques {
    fn from(uniques: types::Uniques) -> Self {
        Self { workspaces: uniques.workspaces.into(), users: uniques.users.into() }
    }
}

impl From<types::UniqueSet> for UniqueSet {
    fn from(set: types::UniqueSet) -> Self {
        Self { count: set.count, sketch: set.sketch }
    }
}

impl From<UniqueSet> for types::UniqueSet {
    fn from(set: UniqueSet) -> Self {
        Self { count: set.count, sketch: set.sketch }
    }
}

impl From<&LeftOver> for types::LeftOver {
    fn from(left_over: &LeftOver) -> Self {
        Self { delta: left_over.delta.as_ref().map(Into::into), in_doubt: left_over.in_doubt.as_ref().map(Into::into) }
    }
}

impl From<&InDoubt> for types::InDoubt {
    fn from(in_doubt: &InDoubt) -> Self {
        Self { flush: in_doubt.flush, snapshot: (&in_doubt.snapshot).into() }
    }
}

impl From<&Snapshot> for types::Snapshot {
    fn from(snapshot: &Snapshot) -> Self {
        let uniques = &snapshot.uniques;
        Self {
            uniques: types::Uniques { workspaces: (&uniques.workspaces).into(), users: (&uniques.users).into() },
            allowed: snapshot.allowed,
            denied: snapshot.denied,
        }
    }
}

impl From<&UniqueSketch> for types::UniqueSet {
    fn from(sketch: &UniqueSketch) -> Self {
        Self { count: sketch.count(), sketch: sketch.to_bytes() }
    }
}

/// Across the border go the kind and one text, which [`from_component`] turns into an error again.
impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable { action, source } => Self::Unavailable(format!("{action} failed: {}", chain(&*source))),
            Error::Conflict { message } => Self::Conflict(message),
            Error::CommitUnknown { source } => Self::CommitUnknown(chain(&*source)),
            Error::Refused { message } => Self::Refused(message),
            other => Self::Refused(chain(&other)),
        }
    }
}

/// The error that a component answered.
pub(super) fn from_component(error: types::Error) -> Error {
    match error {
        types::Error::Unavailable(text) => Error::Unavailable { action: "the flush", source: text.into() },
        types::Error::Conflict(message) => Error::Conflict { message },
        types::Error::CommitUnknown(text) => Error::CommitUnknown { source: text.into() },
        types::Error::Refused(message) => Error::Refused { message },
    }
}
