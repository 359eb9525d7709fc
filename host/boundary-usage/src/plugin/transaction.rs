//! A component's handle of a database transaction, and how the database's work is done in its calls.
//!
//! The transaction begins with all that a flush needs first: both locks, and what is stored. The component asks for them one
//! after the other, and finds them there; each would be a wait of its own. It begins as soon as a flush is called, while the
//! component takes its snapshot. Its update is kept here, and sent with the commit.
//!
//! The work is done in the component's own calls, on the thread that runs it, because to hand it to another thread costs more
//! than the work. But a component can end in the middle of a call: it traps, or its time is over, or its store is torn down. What
//! has begun then goes on as a task, to its end and the rollback. No future of the database is ever dropped half way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::database::{self, Database, Stored, Update};
use crate::error::Error;

/// What a component holds. To drop it rolls back.
#[allow(unreachable_pub)] // the generated bindings re-export it, inside this module
pub struct Transaction {
    /// `None` while a call works with it, and after one that failed.
    open: Option<Open>,
    pub(super) granted: Granted,
    /// What the commit writes. Until then nothing of it is on its way: one request less, and locks held for a shorter time.
    pub(super) update: Option<Update>,
}

/// What the component has been granted within the transaction.
#[derive(Clone, Copy, Default)]
pub(super) struct Granted {
    pub(super) cutover: bool,
    pub(super) replica: bool,
    pub(super) has_read: bool,
}

impl Transaction {
    pub(super) fn new(open: Open) -> Self {
        Self { open: Some(open), granted: Granted::default(), update: None }
    }

    /// Takes it out of the store, so that no borrow of the store is held while a call works with it.
    pub(super) fn take(&mut self) -> Result<Open, Error> {
        let gone = || Error::Unavailable { action: "using a transaction", source: "it is busy or gone".into() };
        self.open.take().ok_or_else(gone)
    }

    pub(super) fn put_back(&mut self, open: Open) {
        self.open = Some(open);
    }
}

/// A transaction that is being opened. To drop it rolls back.
pub(super) struct Beginning(Work<Result<Open, Error>>);

impl Beginning {
    /// Has the database begin, with a transaction that answers everything within `limit`; does not wait for it.
    pub(super) fn start(database: &Database, replica: Uuid, limit: Duration) -> Self {
        let bounds = Bounds { runtime: database.runtime().clone(), deadline: Instant::now() + limit };
        let backend = database.backend().clone();
        let mut work = Work::new(bounds.clone(), async move {
            let (transaction, stored) = backend.begin_flush(replica).await?;
            Ok(Open { transaction: Some(transaction), replica, stored: Some(stored), bounds })
        });
        work.start();
        Self(work)
    }

    pub(super) async fn opened(self) -> Result<Open, Error> {
        self.0.answered("beginning a transaction").await?
    }
}

/// Where the database's work belongs, and until when it is waited for: the same for all the work of one transaction.
#[derive(Clone)]
struct Bounds {
    /// The database's, where its connections are.
    runtime: Handle,
    deadline: Instant,
}

/// A database transaction between its begin and its commit. To drop it rolls back, and so does a call that fails.
pub(super) struct Open {
    /// `None` only once it ends.
    transaction: Option<Box<dyn database::Transaction>>,
    replica: Uuid,
    /// What was read when it began, until the component asks for it.
    stored: Option<Stored>,
    bounds: Bounds,
}

impl Open {
    pub(super) async fn read(mut self) -> Result<(Self, Stored), Error> {
        if let Some(stored) = self.stored.take() {
            return Ok((self, stored));
        }
        let work = Work::new(self.bounds.clone(), async move {
            let replica = self.replica;
            let stored = self.transaction().read(replica).await?;
            Ok((self, stored))
        });
        work.answered("reading the replica's usage").await?
    }

    /// Waits for something that the transaction needs, as long as it has time.
    pub(super) fn within_its_time<T, F: Future<Output = Result<T, Error>>>(
        &self,
        needed: F,
    ) -> impl Future<Output = Result<T, Error>> + use<T, F> {
        let answer = tokio::time::timeout_at(self.bounds.deadline, needed);
        async { answer.await.unwrap_or_else(|_| Err(late("the checkpoint before the commit"))) }
    }

    /// Writes the update and commits. Once that has begun, only the database's answer tells the outcome.
    pub(super) async fn commit(mut self, update: Update) -> Result<(), Error> {
        let transaction = self.transaction.take().expect(NOT_ENDED);
        let replica = self.replica;
        let committed = async move { transaction.upsert_and_commit(replica, &update).await };
        let answer = Work::new(self.bounds.clone(), committed).answered("the commit").await;
        answer.unwrap_or_else(|no_answer| Err(Error::CommitUnknown { source: no_answer.into() }))
    }

    fn transaction(&mut self) -> &mut dyn database::Transaction {
        self.transaction.as_deref_mut().expect(NOT_ENDED)
    }
}

const NOT_ENDED: &str = "what ends the transaction takes all of this";

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.bounds.runtime.spawn(transaction.rollback());
        }
    }
}

/// Work of the database, done where it is awaited. When it is dropped before its end, a task does the rest.
struct Work<T: Send + 'static> {
    bounds: Bounds,
    /// `None` after its end.
    rest: Option<BoxFuture<'static, T>>,
    /// From its end until somebody waits for it.
    answer: Option<Result<T, Panicked>>,
}

/// As a task's panic is its own end only, so is that of work that is done here.
struct Panicked;

impl<T: Send + 'static> Work<T> {
    fn new(bounds: Bounds, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { bounds, rest: Some(Box::pin(work)), answer: None }
    }

    /// Begins the work, before anybody waits for it.
    fn start(&mut self) {
        self.advance(&mut Context::from_waker(Waker::noop()));
    }

    /// An error says that no answer came.
    async fn answered(self, action: &'static str) -> Result<T, Error> {
        let answer = tokio::time::timeout_at(self.bounds.deadline, self).await.map_err(|_| late(action))?;
        answer.map_err(|Panicked| Error::Unavailable { action, source: "the database's driver panicked".into() })
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        let Some(rest) = &mut self.rest else { return };
        let entered = self.bounds.runtime.enter();
        let polled = catch_unwind(AssertUnwindSafe(|| rest.as_mut().poll(context)));
        drop(entered);
        self.answer = match polled {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(answer)) => Some(Ok(answer)),
            Err(_) => Some(Err(Panicked)),
        };
        self.rest = None;
    }
}

impl<T: Send + 'static> Future for Work<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.advance(context);
        self.answer.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What it holds may be anything: nothing here is pinned but the work, in its box.
impl<T: Send + 'static> Unpin for Work<T> {}

impl<T: Send + 'static> Drop for Work<T> {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            self.bounds.runtime.spawn(rest);
        }
    }
}

fn late(action: &'static str) -> Error {
    Error::Unavailable { action, source: "the time for a flush is over".into() }
}
