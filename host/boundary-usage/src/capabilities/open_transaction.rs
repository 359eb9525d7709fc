//! A database transaction between its begin and its commit.
//!
//! If the component crashes during a call, or the flush exceeds its time limit, a task finishes the call. The
//! transaction then rolls back. See [`super::database_work`].

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::database_work::DatabaseWork;
use crate::database::{self, Database, Lock, LockMode, Purpose};
use crate::error::Error;
use crate::records::{StoredUsage, Update};

/// A database transaction of one flush. Dropping this value rolls the transaction back, and a call that fails drops it.
pub(super) struct OpenTransaction {
    /// `None` after the commit has taken the transaction.
    transaction: Option<Box<dyn database::Transaction>>,
    replica: Uuid,
    /// The runtime of the database's connections.
    runtime: Handle,
    /// No call waits longer than this.
    deadline: Instant,
}

impl OpenTransaction {
    /// Begins a transaction. All of its calls end within `limit` from now.
    pub(super) async fn begin(database: &Database, replica: Uuid, limit: Duration) -> Result<Self, Error> {
        let (runtime, deadline) = (database.runtime().clone(), Instant::now() + limit);
        let backend = database.backend().clone();
        run(&runtime.clone(), deadline, "beginning a transaction", async move {
            let transaction = Some(backend.begin(Purpose::Flush).await?);
            Ok(Self { transaction, replica, runtime, deadline })
        })
        .await
    }

    pub(super) async fn acquire(self, lock: Lock, mode: LockMode) -> Result<Self, Error> {
        self.call("acquiring a lock", async move |mut open| {
            open.transaction().acquire(lock, mode).await?;
            Ok(open)
        })
        .await
    }

    pub(super) async fn read(self) -> Result<(Self, StoredUsage), Error> {
        self.call("reading the replica's usage", async move |mut open| {
            let replica = open.replica;
            let stored = open.transaction().read(replica).await?;
            Ok((open, stored))
        })
        .await
    }

    pub(super) async fn upsert(self, update: Update) -> Result<Self, Error> {
        self.call("writing the replica's usage", async move |mut open| {
            let replica = open.replica;
            open.transaction().upsert(replica, &update).await?;
            Ok(open)
        })
        .await
    }

    /// Waits for a step outside the database that must precede the commit.
    pub(super) fn before_its_deadline<T, F>(&self, step: F) -> impl Future<Output = Result<T, Error>> + use<T, F>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let step = timeout_at(self.deadline, step);
        async { step.await.unwrap_or_else(|_| Err(timed_out("the checkpoint before the commit"))) }
    }

    /// Commits. Once the commit is sent, only the database's reply shows its outcome.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        let transaction = self.transaction.take().expect(NOT_COMMITTED);
        let commit = async move { Ok(transaction.commit().await) };
        match run(&self.runtime, self.deadline, "the commit", commit).await {
            Ok(result) => result,
            Err(no_reply) => Err(Error::CommitUnknown { source: no_reply.into() }),
        }
    }

    async fn call<T, F>(self, action: &'static str, call: impl FnOnce(Self) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (runtime, deadline) = (self.runtime.clone(), self.deadline);
        run(&runtime, deadline, action, call(self)).await
    }

    fn transaction(&mut self) -> &mut dyn database::Transaction {
        self.transaction.as_deref_mut().expect(NOT_COMMITTED)
    }
}

const NOT_COMMITTED: &str = "the commit consumes this value";

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.runtime.spawn(transaction.rollback());
        }
    }
}

/// Waits for database work, which continues to its end if the time limit passes.
async fn run<T: Send + 'static>(
    runtime: &Handle,
    deadline: Instant,
    action: &'static str,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match timeout_at(deadline, DatabaseWork::new(runtime.clone(), work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(unavailable(action, "the database driver panicked, or its Tokio runtime has ended")),
        Err(_) => Err(timed_out(action)),
    }
}

fn timed_out(action: &'static str) -> Error {
    unavailable(action, "the time limit of the flush has passed")
}

fn unavailable(action: &'static str, reason: &'static str) -> Error {
    Error::Unavailable { action, source: reason.into() }
}
