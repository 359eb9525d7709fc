//! A few connections, shared: one is lent to each transaction, and comes back only if its owner says it is clean.
//!
//! sqlx's own pool takes every connection back, also one whose transaction was dropped in the middle of a statement, and
//! spends a round trip before and after each loan to find out. Here a lease that is dropped closes its connection:
//! the database then rolls back, whatever the connection was doing.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// At most so many connections are open: a flush, a collection, a status and some to spare.
const CONNECTIONS_MAX: usize = 8;

/// How long to wait for a connection to be free, and for one to be closed.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// A connection that was idle for longer is not used again: firewalls forget such without a word.
const IDLE_MAX: Duration = Duration::from_secs(5 * 60);

/// The connections of one database. Each has notes of type `N`, which live as long as it does.
pub(super) struct Pool<C: Connection, N> {
    options: C::Options,
    /// How long a new connection may take.
    connect_limit: Duration,
    idle: Mutex<Vec<Idle<C, N>>>,
    permits: Arc<Semaphore>,
    /// Pool of an earlier generation are closed when they come back.
    generation: AtomicU64,
}

struct Idle<C, N> {
    connection: C,
    notes: N,
    since: Instant,
}

impl<C: Connection, N: Default> Pool<C, N> {
    /// Has no connection yet.
    pub(super) fn new(options: C::Options, connect_limit: Duration) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Arc::new(Self { options, connect_limit, idle: Mutex::default(), permits, generation: AtomicU64::new(0) })
    }

    /// An idle connection, or else a new one.
    pub(super) async fn take(self: &Arc<Self>) -> Result<PooledConnection<C, N>, sqlx::Error> {
        let permit = timeout(WAIT_LIMIT, self.permits.clone().acquire_owned());
        let permit = permit.await.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(idle) = self.pop() {
            return Ok(self.lend(idle, true, generation, permit));
        }
        let connection = timeout(self.connect_limit, C::connect_with(&self.options)).await;
        let connection = connection.map_err(|_| timed_out(self.connect_limit))??;
        let new = Idle { connection, notes: N::default(), since: Instant::now() };
        Ok(self.lend(new, false, generation, permit))
    }

    /// An idle connection, if there is one.
    pub(super) fn take_idle(self: &Arc<Self>) -> Option<PooledConnection<C, N>> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let generation = self.generation.load(Ordering::Acquire);
        Some(self.lend(self.pop()?, true, generation, permit))
    }

    fn lend(
        self: &Arc<Self>,
        Idle { connection, notes, .. }: Idle<C, N>,
        reused: bool,
        generation: u64,
        permit: OwnedSemaphorePermit,
    ) -> PooledConnection<C, N> {
        PooledConnection {
            connection,
            reused,
            is_reusable: true,
            notes,
            home: self.clone(),
            generation,
            _permit: permit,
        }
    }

    /// Closes the idle connections now, and those on loan when they end. No other is opened.
    pub(super) async fn close(&self) {
        self.permits.close();
        self.renew().await;
    }

    /// Closes the idle connections now, and those on loan when they end. The next one is new.
    pub(super) async fn renew(&self) {
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            self.generation.fetch_add(1, Ordering::AcqRel);
            std::mem::take(&mut *idle)
        };
        for Idle { connection, .. } in idle {
            // What fails to close is closed by the database when it notices.
            let _ = timeout(WAIT_LIMIT, connection.close()).await;
        }
    }

    fn pop(&self) -> Option<Idle<C, N>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < IDLE_MAX);
        idle.pop()
    }

    fn push(&self, connection: C, notes: N, generation: u64) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.permits.is_closed() && self.generation.load(Ordering::Acquire) == generation {
            idle.push(Idle { connection, notes, since: Instant::now() });
        }
    }
}

/// A connection on loan. To drop the lease closes the connection.
pub(super) struct PooledConnection<C: Connection, N> {
    /// The connection.
    pub(super) connection: C,
    /// Whether it was used before, so that the database may have closed it in the meantime.
    pub(super) reused: bool,
    /// Whether it can be used again after it is given back.
    pub(super) is_reusable: bool,
    /// What is known of the connection.
    pub(super) notes: N,
    home: Arc<Pool<C, N>>,
    generation: u64,
    _permit: OwnedSemaphorePermit,
}

impl<C: Connection, N: Default> PooledConnection<C, N> {
    /// Gives the connection back; it must be outside any transaction, and owe no reply.
    pub(super) fn give_back(self) {
        let Self { connection, notes, home, generation, is_reusable, .. } = self;
        if is_reusable {
            home.push(connection, notes, generation);
        }
    }
}

impl<C: Connection, N> PooledConnection<C, N> {
    /// Closes the connection, and waits for that.
    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        timeout(WAIT_LIMIT, self.connection.close()).await.unwrap_or_else(|_| Err(timed_out(WAIT_LIMIT)))
    }
}

/// The database did not reply within this time.
pub(super) fn timed_out(limit: Duration) -> sqlx::Error {
    let message = format!("no reply from the database within {} s", limit.as_secs_f64());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message))
}

#[cfg(test)]
mod tests {
    use sqlx::SqliteConnection;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    type TestConnections = Arc<Pool<SqliteConnection, u32>>;

    fn connections() -> TestConnections {
        Pool::new(SqliteConnectOptions::new().in_memory(true), Duration::from_secs(5))
    }

    /// Leaves an idle connection with a note.
    async fn leave_idle(connections: &TestConnections, note: u32) {
        let mut lease = connections.take().await.unwrap();
        lease.notes = note;
        lease.give_back();
    }

    fn idle(connections: &TestConnections) -> usize {
        connections.idle.lock().unwrap().len()
    }

    #[tokio::test]
    async fn a_returned_connection_is_lent_again_with_its_notes() {
        let connections = connections();
        assert!(connections.take_idle().is_none());
        leave_idle(&connections, 7).await;
        let lease = connections.take().await.unwrap();
        assert_eq!((lease.reused, lease.notes, idle(&connections)), (true, 7, 0));
        let another = connections.take().await.unwrap();
        assert_eq!((another.reused, another.notes), (false, 0));
        lease.give_back();
        assert_eq!(connections.take_idle().map(|lease| lease.notes), Some(7));
    }

    #[tokio::test]
    async fn a_dropped_or_unusable_connection_is_not_lent_again() {
        let connections = connections();
        drop(connections.take().await.unwrap());
        let mut lease = connections.take().await.unwrap();
        lease.is_reusable = false;
        lease.give_back();
        assert_eq!(idle(&connections), 0);
    }

    #[tokio::test]
    async fn a_connection_is_lent_again_until_it_was_idle_for_five_minutes() {
        let connections = connections();
        for (seconds, is_lent) in [(0, true), (299, true), (300, false), (600, false)] {
            leave_idle(&connections, 7).await;
            connections.idle.lock().unwrap()[0].since -= Duration::from_secs(seconds);
            assert_eq!(connections.take_idle().is_some(), is_lent, "{seconds} s");
        }
    }

    #[tokio::test]
    async fn renewing_closes_idle_connections_and_lent_ones_when_they_end() {
        let connections = connections();
        let lent = connections.take().await.unwrap();
        leave_idle(&connections, 7).await;
        connections.renew().await;
        assert_eq!(idle(&connections), 0);
        lent.give_back();
        assert_eq!(idle(&connections), 0, "a connection of an earlier generation came back");
        leave_idle(&connections, 7).await;
        assert_eq!(idle(&connections), 1);
    }

    #[tokio::test]
    async fn closed_connections_are_neither_kept_nor_opened() {
        let connections = connections();
        let lent = connections.take().await.unwrap();
        leave_idle(&connections, 7).await;
        connections.close().await;
        assert_eq!(idle(&connections), 0);
        // A connection of the new generation, too, is closed.
        connections.push(lent.connection, 7, connections.generation.load(Ordering::Acquire));
        assert_eq!(idle(&connections), 0);
        assert!(matches!(connections.take().await.map(drop), Err(sqlx::Error::PoolClosed)));
    }
}
