//! A component's handle of a database transaction, and the task that owns the transaction itself.
//!
//! The task begins with all that a flush needs first: both locks, and what is stored. The component asks for them one after
//! the other, and finds them there; each would be a wait of its own. The handle then sends requests, which the task
//! carries out one after the other. So the end of a handle, however it comes (the component drops it, traps, or its store
//! is torn down in the middle of a call), is a closed channel, and the task answers that with a rollback. No future of the database is ever dropped half way.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use crate::database::{self, Database, Stored, Update};
use crate::error::Error;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

enum Request {
    Read(Reply<Stored>),
    Upsert(Box<Update>, Reply<bool>),
    Commit(Reply<()>),
}

/// What a component holds. To drop it rolls back.
#[allow(unreachable_pub)] // the generated bindings re-export it, inside this module
pub struct Transaction {
    requests: mpsc::Sender<Request>,
    deadline: Instant,
    pub(super) granted: Granted,
    /// Until the component asks for it.
    pub(super) stored: Option<Stored>,
}

/// What the component has been granted within the transaction.
#[derive(Clone, Copy, Default)]
pub(super) struct Granted {
    pub(super) cutover: bool,
    pub(super) replica: bool,
    pub(super) read: bool,
    pub(super) upserted: bool,
}

/// A way to one transaction's task, taken out of the store so that no borrow of the store is held while waiting.
#[derive(Clone)]
pub(super) struct Requests {
    sender: mpsc::Sender<Request>,
    deadline: Instant,
}

impl Transaction {
    /// Opens a transaction that answers everything within `limit`.
    pub(super) async fn begin(database: &Database, replica: Uuid, limit: Duration) -> Result<Self, Error> {
        let (requests, receiver) = mpsc::channel(1);
        let (reply, begun) = oneshot::channel();
        let backend = database.backend().clone();
        database.runtime().spawn(async move {
            match backend.begin_flush(replica).await {
                Ok((transaction, stored)) => {
                    // A component that no longer waits has closed the channel, and the rollback follows.
                    let _ = reply.send(Ok(stored));
                    serve(transaction, replica, receiver).await;
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        });
        let deadline = Instant::now() + limit;
        let stored = answer(begun, deadline, "beginning a transaction").await?;
        Ok(Self { requests, deadline, granted: Granted::default(), stored: Some(stored) })
    }

    pub(super) fn requests(&self) -> Requests {
        Requests { sender: self.requests.clone(), deadline: self.deadline }
    }

    /// Waits for something that the transaction needs, as long as it has time.
    pub(super) async fn within_its_time<T>(&self, needed: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = |_| Err(late("the checkpoint before the commit"));
        tokio::time::timeout_at(self.deadline, needed).await.unwrap_or_else(late)
    }

    /// Commits. Once the request is under way, only the database's answer tells the outcome.
    pub(super) async fn commit(self) -> Result<(), Error> {
        let unknown = |source: Error| Error::CommitUnknown { source: source.into() };
        let (reply, answered) = oneshot::channel();
        // Nobody else sends: the channel has room, and it is closed only if the task has died.
        self.requests.try_send(Request::Commit(reply)).map_err(|_| lost("the commit"))?;
        match tokio::time::timeout_at(self.deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unknown(lost("the commit"))),
            Err(_) => Err(unknown(late("the commit"))),
        }
    }
}

impl Requests {
    pub(super) async fn read(&self) -> Result<Stored, Error> {
        self.ask("reading the replica's usage", Request::Read).await
    }

    pub(super) async fn upsert(&self, update: Update) -> Result<bool, Error> {
        self.ask("writing the replica's usage", |reply| Request::Upsert(Box::new(update), reply)).await
    }

    async fn ask<T>(&self, action: &'static str, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answered) = oneshot::channel();
        self.sender.try_send(request(reply)).map_err(|_| lost(action))?;
        answer(answered, self.deadline, action).await
    }
}

async fn answer<T>(
    answered: oneshot::Receiver<Result<T, Error>>,
    deadline: Instant,
    action: &'static str,
) -> Result<T, Error> {
    match tokio::time::timeout_at(deadline, answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(lost(action)),
        Err(_) => Err(late(action)),
    }
}

fn late(action: &'static str) -> Error {
    Error::Unavailable { action, source: "the time for a flush is over".into() }
}

fn lost(action: &'static str) -> Error {
    Error::Unavailable { action, source: "the transaction is busy or gone".into() }
}

/// Owns the transaction until its end.
async fn serve(mut transaction: Box<dyn database::Transaction>, replica: Uuid, mut requests: mpsc::Receiver<Request>) {
    // Replies to a component that no longer waits go nowhere; the closed channel then ends the loop.
    while let Some(request) = requests.recv().await {
        match request {
            Request::Read(reply) => {
                let _ = reply.send(transaction.read(replica).await);
            }
            Request::Upsert(update, reply) => {
                let _ = reply.send(transaction.upsert(replica, &update).await);
            }
            Request::Commit(reply) => {
                let _ = reply.send(transaction.commit().await);
                return;
            }
        }
    }
    transaction.rollback().await;
}
