//! The audit server: its sockets, their connections, and how they end.
//!
//! To stop is to lose nothing that a client has sent: first the socket files go, so that nobody else connects; then the
//! clients that wait in the backlog are accepted; then every connection is read until it is quiet. All that within a
//! limit, for a client that never stops sending must not keep the server from its last flush.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use boundary_usage::Tracker;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::warn;
use uuid::Uuid;

use super::connection::{Connection, Endpoint, SocketReport, Stop};
use super::group::SocketGroup;
use super::listener::SocketFile;

/// How many clients one socket serves at a time; more wait in the backlog. One workspace has a handful.
const CONNECTIONS_PER_SOCKET: usize = 64;

/// After a failed accept, most likely for want of file descriptors: time for some to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long abandoned connections may take to notice.
const ABANDON: Duration = Duration::from_secs(1);

/// A socket and whom it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Where the socket file is to be.
    pub path: PathBuf,
    /// The workspace whose clients connect there.
    pub workspace: Uuid,
    /// The user who owns it.
    pub owner: Uuid,
    /// The group whose members may connect; without one, only our own user.
    pub group: Option<SocketGroup>,
}

/// How long a stopping server reads on.
#[derive(Clone, Copy, Debug)]
pub struct DrainLimits {
    /// A connection on which nothing comes for so long has been read.
    pub quiet: Duration,
    /// After so long all connections are closed, read or not.
    pub longest: Duration,
}

impl Default for DrainLimits {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(200), longest: Duration::from_secs(5) }
    }
}

/// Serves audit sockets. To drop it removes the socket files and leaves unread what clients have sent.
pub struct AuditServer {
    acceptors: Vec<Acceptor>,
    connections: TaskTracker,
    stop: Stop,
    limits: DrainLimits,
}

/// What comes in, for those who look on while the server runs, and after its end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SocketReports(Arc<[Arc<Endpoint>]>);

impl SocketReports {
    /// What came in so far, socket by socket.
    pub fn now(&self) -> Vec<SocketReport> {
        self.0.iter().map(|endpoint| endpoint.report()).collect()
    }
}

struct Acceptor {
    endpoint: Arc<Endpoint>,
    task: JoinHandle<()>,
}

impl AuditServer {
    /// Binds every socket, then serves them; when one cannot be bound, none is served and no file is left.
    ///
    /// # Errors
    ///
    /// See [`SocketFile::bind`].
    pub async fn start(sockets: &[Socket], tracker: &Tracker, limits: DrainLimits) -> Result<Self> {
        let mut files = Vec::new();
        for socket in sockets {
            files.push(SocketFile::bind(&socket.path, socket.group).await?);
        }
        let connections = TaskTracker::new();
        let stop = Stop { quiet: limits.quiet, ..Stop::default() };
        let acceptors = files.into_iter().zip(sockets).map(|(file, socket)| {
            let endpoint = Arc::new(Endpoint::new(socket.path.clone(), socket.workspace, socket.owner));
            let (tracker, connections, stop) = (tracker.clone(), connections.clone(), stop.clone());
            let accepting = Accepting { endpoint: endpoint.clone(), tracker, connections, stop };
            Acceptor { endpoint, task: tokio::spawn(accepting.run(file)) }
        });
        Ok(Self { acceptors: acceptors.collect(), connections, stop, limits })
    }

    /// For those who look on.
    pub fn reports(&self) -> SocketReports {
        SocketReports(self.acceptors.iter().map(|acceptor| acceptor.endpoint.clone()).collect())
    }

    /// Stops accepting, tracks what connected clients have already sent, and answers what came in.
    pub async fn stop(mut self) -> Vec<SocketReport> {
        self.stop.drain.cancel();
        for acceptor in &mut self.acceptors {
            if let Err(error) = (&mut acceptor.task).await {
                warn!(socket = %acceptor.endpoint.path.display(), %error, "the socket ended badly");
            }
        }
        self.connections.close();
        if tokio::time::timeout(self.limits.longest, self.connections.wait()).await.is_err() {
            let connections = self.connections.len();
            warn!(connections, after = ?self.limits.longest, "clients do not stop sending; closing their connections");
            self.stop.give_up.cancel();
            // Bounded too: a connection may wait for a tracker that takes nothing any more.
            let _ = tokio::time::timeout(ABANDON, self.connections.wait()).await;
        }
        self.reports().now()
    }
}

impl Drop for AuditServer {
    fn drop(&mut self) {
        self.stop.drain.cancel();
        self.stop.give_up.cancel();
        for acceptor in &self.acceptors {
            acceptor.task.abort();
        }
    }
}

/// What the task of one socket needs.
struct Accepting {
    endpoint: Arc<Endpoint>,
    tracker: Tracker,
    connections: TaskTracker,
    stop: Stop,
}

impl Accepting {
    async fn run(self, file: SocketFile) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_PER_SOCKET));
        let drain = self.stop.drain.clone();
        let socket = self.endpoint.path.display();
        loop {
            if slots.available_permits() == 0 {
                warn!(%socket, limit = CONNECTIONS_PER_SOCKET, "too many clients at a time; the next ones wait");
            }
            let Some(slot) = drain.run_until_cancelled(slots.clone().acquire_owned()).await else { break };
            match drain.run_until_cancelled(file.accept()).await {
                Some(Ok(stream)) => self.serve(stream, slot),
                Some(Err(error)) => {
                    warn!(%socket, "cannot accept a client: {error:#}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                None => break,
            }
        }
        match file.close() {
            Ok(waiting) => waiting.into_iter().for_each(|stream| self.serve(stream, ())),
            Err(error) => warn!(%socket, "clients that waited to be accepted are lost: {error:#}"),
        }
    }

    /// Serves one client; `slot` is held until it is gone.
    fn serve(&self, stream: UnixStream, slot: impl Send + 'static) {
        let connection = Connection::new(stream, self.endpoint.clone(), self.tracker.clone(), self.stop.clone());
        self.connections.spawn(async move {
            connection.run().await;
            drop(slot);
        });
    }
}
