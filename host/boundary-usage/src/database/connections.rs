//! A few connections, shared: one is lent to each transaction, and comes back only if its owner says it is clean.
//!
//! sqlx's own pool takes every connection back, also one whose transaction was dropped in the middle of a statement, and
//! spends a round trip before and after each loan to find out. Here a lease that is dropped closes its connection:
//! the database then rolls back, whatever the connection was doing.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// At most so many connections are open: a flush, a collection, a status and some to spare.
const CONNECTIONS_MAX: usize = 8;

/// How long to wait for a connection to be free, and for a new one to be made.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// A connection that was idle for longer is not used again: firewalls forget such without a word.
const IDLE_MAX: Duration = Duration::from_secs(5 * 60);

/// The connections of one database.
pub(super) struct Connections<C: Connection> {
    options: C::Options,
    idle: Mutex<Vec<Idle<C>>>,
    permits: Arc<Semaphore>,
}

struct Idle<C> {
    connection: C,
    prepared: bool,
    since: Instant,
}

impl<C: Connection> Connections<C> {
    /// None yet.
    pub(super) fn new(options: C::Options) -> Arc<Self> {
        Arc::new(Self { options, idle: Mutex::default(), permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }

    /// An idle connection, or else a new one.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Lease<C>, sqlx::Error> {
        let permit = timeout(WAIT_LIMIT, self.permits.clone().acquire_owned());
        let permit = permit.await.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let home = self.clone();
        if let Some(Idle { connection, prepared, .. }) = self.pop() {
            return Ok(Lease { connection, reused: true, prepared, home, _permit: permit });
        }
        let connection = timeout(WAIT_LIMIT, C::connect_with(&self.options)).await;
        let connection = connection.map_err(|_| timed_out())??;
        Ok(Lease { connection, reused: false, prepared: false, home, _permit: permit })
    }

    /// Closes the idle connections now, and those on loan when they end.
    pub(super) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for Idle { connection, .. } in idle {
            // What fails to close is closed by the database when it notices.
            let _ = timeout(WAIT_LIMIT, connection.close()).await;
        }
    }

    fn pop(&self) -> Option<Idle<C>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < IDLE_MAX);
        idle.pop()
    }

    fn push(&self, connection: C, prepared: bool) {
        if !self.permits.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(Idle { connection, prepared, since: Instant::now() });
        }
    }
}

/// A connection on loan. To drop the lease closes the connection.
pub(super) struct Lease<C: Connection> {
    /// The connection.
    pub(super) connection: C,
    /// Whether it was used before, so that the database may have closed it in the meantime.
    pub(super) reused: bool,
    /// Whether its session has the statements of a flush prepared.
    pub(super) prepared: bool,
    home: Arc<Connections<C>>,
    _permit: OwnedSemaphorePermit,
}

impl<C: Connection> Lease<C> {
    /// Gives the connection back; it must be outside any transaction, and owe no reply.
    pub(super) fn give_back(self) {
        let Self { connection, prepared, home, .. } = self;
        home.push(connection, prepared);
    }
}

/// The database did not answer in time.
pub(super) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no reply from the database in time"))
}
