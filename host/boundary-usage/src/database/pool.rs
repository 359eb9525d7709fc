//! A pool of connections. A transaction holds a connection, and releases it only if the connection's state is certain.
//!
//! The pool of sqlx also reuses a connection whose transaction was dropped in the middle of a statement. The sqlx pool
//! also checks each connection with a round trip before and after its use. In this pool, dropping a connection closes
//! it, and the database rolls back. No round trip is necessary.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The maximum number of open connections: a flush, a collection, a status and some reserve.
const CONNECTIONS_MAX: usize = 8;

/// The longest wait for a free connection, and for a connection to close.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// The reaction of a pool to idle connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleMode {
    /// Keep idle connections open.
    Keep,
    /// Close each connection that has been idle for this time.
    ///
    /// The check may come late, but at the latest after twice this time.
    ///
    /// A pooler may have fewer connections to the server than there are clients. In session mode, an idle client keeps
    /// one of them, and other clients would wait for it forever. Firewalls also drop connections that are idle for
    /// minutes.
    CloseAfter(Duration),
}

/// The connections of one database. Each connection has metadata of type `M` while it is open.
pub(super) struct Pool<C: Connection, M> {
    options: C::Options,
    /// The time limit of a new connection.
    connect_limit: Duration,
    idle_mode: IdleMode,
    idle: Mutex<Vec<Idle<C, M>>>,
    /// Whether a task closes idle connections. This field changes only while `idle` is locked.
    is_closing_idle: AtomicBool,
    permits: Arc<Semaphore>,
    /// Connections of an earlier generation are closed when they are released.
    generation: AtomicU64,
}

struct Idle<C, M> {
    connection: C,
    metadata: M,
    since: Instant,
}

impl<C: Connection + 'static, M: Default + Send + 'static> Pool<C, M> {
    /// Creates a pool without connections.
    pub(super) fn new(options: C::Options, connect_limit: Duration, idle_mode: IdleMode) -> Arc<Self> {
        Arc::new(Self {
            options,
            connect_limit,
            idle_mode,
            idle: Mutex::default(),
            is_closing_idle: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            generation: AtomicU64::new(0),
        })
    }

    /// Returns an idle connection, or else a new one.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<PooledConnection<C, M>, sqlx::Error> {
        let permit = timeout(WAIT_LIMIT, self.permits.clone().acquire_owned());
        let permit = permit.await.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(idle) = self.pop() {
            return Ok(self.check_out(idle, true, generation, permit));
        }
        let connection = timeout(self.connect_limit, C::connect_with(&self.options)).await;
        let connection = connection.map_err(|_| timed_out(self.connect_limit))??;
        let new = Idle { connection, metadata: M::default(), since: Instant::now() };
        Ok(self.check_out(new, false, generation, permit))
    }

    /// Returns an idle connection, if there is one.
    pub(super) fn acquire_idle(self: &Arc<Self>) -> Option<PooledConnection<C, M>> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let generation = self.generation.load(Ordering::Acquire);
        Some(self.check_out(self.pop()?, true, generation, permit))
    }

    fn check_out(
        self: &Arc<Self>,
        Idle { connection, metadata, .. }: Idle<C, M>,
        reused: bool,
        generation: u64,
        permit: OwnedSemaphorePermit,
    ) -> PooledConnection<C, M> {
        PooledConnection {
            connection,
            reused,
            is_reusable: true,
            metadata,
            pool: self.clone(),
            generation,
            _permit: permit,
        }
    }

    /// Closes idle connections now and others when they are released. After that, the pool opens no more connections.
    pub(super) async fn close(&self) {
        self.permits.close();
        self.renew().await;
    }

    /// Closes idle connections now and others when they are released. Later acquisitions open new connections.
    pub(super) async fn renew(&self) {
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            self.generation.fetch_add(1, Ordering::AcqRel);
            std::mem::take(&mut *idle)
        };
        close_all(idle).await;
    }

    fn pop(&self) -> Option<Idle<C, M>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn push(self: &Arc<Self>, connection: C, metadata: M, generation: u64) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if self.permits.is_closed() || self.generation.load(Ordering::Acquire) != generation {
            return;
        }
        idle.push(Idle { connection, metadata, since: Instant::now() });
        if let IdleMode::CloseAfter(limit) = self.idle_mode
            && !self.is_closing_idle.swap(true, Ordering::Relaxed)
        {
            tokio::spawn(close_idle(Arc::downgrade(self), limit));
        }
    }
}

/// Closes connections that are idle for longer than the limit, until none is idle.
async fn close_idle<C: Connection, M>(pool: Weak<Pool<C, M>>, limit: Duration) {
    loop {
        tokio::time::sleep(limit).await;
        let Some(pool) = pool.upgrade() else { return };
        let (expired, is_done) = {
            let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let expired: Vec<_> = idle.extract_if(.., |idle| idle.since.elapsed() >= limit).collect();
            let is_done = idle.is_empty();
            pool.is_closing_idle.store(!is_done, Ordering::Relaxed);
            (expired, is_done)
        };
        close_all(expired).await;
        if is_done {
            return;
        }
    }
}

async fn close_all<C: Connection, M>(idle: Vec<Idle<C, M>>) {
    for Idle { connection, .. } in idle {
        // If this fails, the server closes the connection when it notices that the client is gone.
        let _ = timeout(WAIT_LIMIT, connection.close()).await;
    }
}

/// A connection in use. Dropping this value closes the connection.
pub(super) struct PooledConnection<C: Connection, M> {
    /// The connection.
    pub(super) connection: C,
    /// Whether the connection was idle before, so the server may have closed it.
    pub(super) reused: bool,
    /// Whether the connection can be reused after its release.
    pub(super) is_reusable: bool,
    /// The metadata of the connection.
    pub(super) metadata: M,
    pool: Arc<Pool<C, M>>,
    generation: u64,
    _permit: OwnedSemaphorePermit,
}

impl<C: Connection + 'static, M: Default + Send + 'static> PooledConnection<C, M> {
    /// Returns the connection to the pool.
    ///
    /// The connection must be outside any transaction and must not await a reply.
    pub(super) fn release(self) {
        let Self { connection, metadata, pool, generation, is_reusable, .. } = self;
        if is_reusable {
            pool.push(connection, metadata, generation);
        }
    }
}

impl<C: Connection, M> PooledConnection<C, M> {
    /// Closes the connection and waits until it is closed.
    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        timeout(WAIT_LIMIT, self.connection.close()).await.unwrap_or_else(|_| Err(timed_out(WAIT_LIMIT)))
    }
}

/// Returns the error of a database that did not reply in time.
pub(super) fn timed_out(limit: Duration) -> sqlx::Error {
    let message = format!("no reply from the database within {} s", limit.as_secs_f64());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message))
}

#[cfg(test)]
mod tests {
    use sqlx::SqliteConnection;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    type TestPool = Arc<Pool<SqliteConnection, u32>>;

    fn pool() -> TestPool {
        pool_with(IdleMode::Keep)
    }

    fn pool_with(idle_mode: IdleMode) -> TestPool {
        Pool::new(SqliteConnectOptions::new().in_memory(true), Duration::from_secs(5), idle_mode)
    }

    /// Adds an idle connection with this metadata to the pool.
    async fn leave_idle(pool: &TestPool, metadata: u32) {
        let mut pooled = pool.acquire().await.unwrap();
        pooled.metadata = metadata;
        pooled.release();
    }

    fn idle(pool: &TestPool) -> usize {
        pool.idle.lock().unwrap().len()
    }

    #[tokio::test]
    async fn a_released_connection_is_reused_with_its_metadata() {
        let pool = pool();
        assert!(pool.acquire_idle().is_none());
        leave_idle(&pool, 7).await;
        let pooled = pool.acquire().await.unwrap();
        assert_eq!((pooled.reused, pooled.metadata, idle(&pool)), (true, 7, 0));
        let another = pool.acquire().await.unwrap();
        assert_eq!((another.reused, another.metadata), (false, 0));
        pooled.release();
        assert_eq!(pool.acquire_idle().map(|pooled| pooled.metadata), Some(7));
    }

    #[tokio::test]
    async fn a_dropped_or_unusable_connection_is_not_reused() {
        let pool = pool();
        drop(pool.acquire().await.unwrap());
        let mut pooled = pool.acquire().await.unwrap();
        pooled.is_reusable = false;
        pooled.release();
        assert_eq!(idle(&pool), 0);
    }

    #[tokio::test]
    async fn idle_connections_are_closed_after_their_limit() {
        let limit = Duration::from_millis(50);
        let pool = pool_with(IdleMode::CloseAfter(limit));
        // The second round needs a second task, because the first one has ended.
        for _ in 0..2 {
            let (first, second) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
            first.release();
            assert_eq!(idle(&pool), 1);
            tokio::time::sleep(limit / 2).await;
            second.release();
            let are_closed = async {
                while idle(&pool) > 0 || pool.is_closing_idle.load(Ordering::Relaxed) {
                    tokio::time::sleep(limit / 10).await;
                }
            };
            timeout(Duration::from_secs(60), are_closed).await.expect("idle connections stay open");
        }
    }

    #[tokio::test]
    async fn a_connection_is_reused_within_its_limit() {
        let pool = pool_with(IdleMode::CloseAfter(Duration::from_secs(60)));
        leave_idle(&pool, 7).await;
        assert!(pool.acquire().await.unwrap().reused);
    }

    #[tokio::test]
    async fn renewing_closes_idle_connections_and_others_at_their_release() {
        let pool = pool();
        let used = pool.acquire().await.unwrap();
        leave_idle(&pool, 7).await;
        pool.renew().await;
        assert_eq!(idle(&pool), 0);
        used.release();
        assert_eq!(idle(&pool), 0, "a connection of an earlier generation was kept");
        leave_idle(&pool, 7).await;
        assert_eq!(idle(&pool), 1);
    }

    #[tokio::test]
    async fn closing_a_connection_waits_for_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(directory.path().join("usage.db")).create_if_missing(true);
        let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
        let pool: TestPool = Pool::new(options, Duration::from_secs(5), IdleMode::Keep);
        let mut pooled = pool.acquire().await.unwrap();
        sqlx::query("CREATE TABLE usage (id)").execute(&mut pooled.connection).await.unwrap();
        let log = directory.path().join("usage.db-wal");
        assert!(log.exists());
        pooled.close().await.unwrap();
        assert!(!log.exists(), "the last connection removes the log");
    }

    #[tokio::test]
    async fn a_closed_pool_neither_keeps_nor_opens_connections() {
        let pool = pool();
        let used = pool.acquire().await.unwrap();
        leave_idle(&pool, 7).await;
        pool.close().await;
        assert_eq!(idle(&pool), 0);
        // A connection of the new generation is closed, too.
        pool.push(used.connection, 7, pool.generation.load(Ordering::Acquire));
        assert_eq!(idle(&pool), 0);
        assert!(matches!(pool.acquire().await.map(drop), Err(sqlx::Error::PoolClosed)));
    }
}
