//! The server of all audit sockets.
//!
//! A stop loses nothing that a client has sent. First the sockets are closed for new clients. Then the clients in the
//! accept queue are accepted. Then the client's side of each connection is closed for writing, and the connection is
//! read to its end. The system's buffers are small, so a stop is quick unless the tracker accepts nothing. Batches that
//! the tracker has not accepted before the time limit are counted and logged.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use boundary_usage::Tracker;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::warn;
use uuid::Uuid;

use super::acceptor::Acceptor;
use super::activation::PassedSockets;
use super::connection::Stop;
use super::group::SocketGroup;
use super::listener::SocketFile;
use super::report::{Endpoint, SocketReport};
use crate::descriptors;
use crate::slots::Slots;

/// The limit of clients of one socket. A workspace has only a few clients.
const MOST_CLIENTS_PER_SOCKET: usize = 1_024;

/// The number of clients that each socket may serve even if its share is smaller.
///
/// The shares may overlap, because few sockets use theirs completely.
const FEWEST_CLIENTS_PER_SOCKET: usize = 64;

/// Time for the connections to count the batches that they could not track.
const COUNTING: Duration = Duration::from_secs(1);

/// The settings of an audit socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The path of the socket file.
    pub path: PathBuf,
    /// The workspace of the socket's clients.
    pub workspace: Uuid,
    /// The user who owns the workspace.
    pub owner: Uuid,
    /// Whether requests count without the workspace and the owner.
    pub ids_ignored: bool,
    /// The group whose members may connect, besides this user.
    pub group: Option<SocketGroup>,
}

/// The time limit of a stop.
#[derive(Clone, Copy, Debug)]
pub struct DrainLimits {
    /// The time after which unaccepted batches are counted as left behind.
    pub longest: Duration,
}

impl Default for DrainLimits {
    fn default() -> Self {
        Self { longest: Duration::from_secs(5) }
    }
}

/// Sockets to which clients can connect, but which are not served yet.
///
/// The system's bounded buffers hold the data that clients send.
pub struct BoundSockets(Vec<(Socket, SocketFile)>);

impl BoundSockets {
    /// Binds every socket that no supervisor passed.
    ///
    /// # Errors
    ///
    /// See [`SocketFile::bind`]. Also returns an error if a supervisor passed a socket that is not configured.
    pub async fn bind(sockets: &[Socket]) -> Result<Self> {
        let mut passed = PassedSockets::from_environment()?;
        let mut bound = Vec::new();
        for socket in sockets {
            bound.push((socket.clone(), SocketFile::open(&socket.path, socket.group, &mut passed).await?));
        }
        passed.check_taken()?;
        Ok(Self(bound))
    }
}

/// A server of audit sockets.
///
/// Dropping the server discards data that clients have sent and the server has not read.
pub struct AuditServer {
    sockets: Vec<ServedSocket>,
    connections: TaskTracker,
    stop: Stop,
    limits: DrainLimits,
    /// A spare descriptor, which a stop needs to accept the clients in the queue.
    spare: Option<File>,
}

/// A handle to the reports of all sockets, valid even after the server's end.
///
/// The handle is cheap to clone.
#[derive(Clone, Debug)]
pub struct SocketReports(Arc<[Arc<Endpoint>]>);

impl SocketReports {
    /// Returns the current report of each socket.
    pub fn now(&self) -> Vec<SocketReport> {
        self.0.iter().map(|endpoint| endpoint.report()).collect()
    }
}

struct ServedSocket {
    endpoint: Arc<Endpoint>,
    acceptor: JoinHandle<()>,
}

impl AuditServer {
    /// Serves the sockets.
    pub fn start(sockets: BoundSockets, tracker: &Tracker, limits: DrainLimits) -> Self {
        let sockets = sockets.0;
        let (connections, stop) = (TaskTracker::new(), Stop::default());
        let clients = descriptors::audit_clients(sockets.len());
        let all_slots = Arc::new(Slots::new(clients));
        let of_each = (clients / sockets.len().max(1)).clamp(FEWEST_CLIENTS_PER_SOCKET, MOST_CLIENTS_PER_SOCKET);
        let served = sockets.into_iter().map(|(socket, file)| {
            let endpoint = Arc::new(Endpoint::new(&socket));
            let acceptor = Acceptor {
                endpoint: endpoint.clone(),
                group: socket.group,
                tracker: tracker.clone(),
                connections: connections.clone(),
                stop: stop.clone(),
                own_slots: Slots::new(of_each),
                all_slots: all_slots.clone(),
            };
            ServedSocket { endpoint, acceptor: tokio::spawn(acceptor.run(file)) }
        });
        Self { sockets: served.collect(), connections, stop, limits, spare: File::open("/dev/null").ok() }
    }

    /// Returns a handle to the reports of all sockets.
    pub fn reports(&self) -> SocketReports {
        SocketReports(self.sockets.iter().map(|socket| socket.endpoint.clone()).collect())
    }

    /// Stops accepting clients, and tracks what they have already sent.
    pub async fn stop(mut self) -> Vec<SocketReport> {
        self.spare = None;
        self.stop.drain.cancel();
        let limit = tokio::time::Instant::now() + self.limits.longest;
        if tokio::time::timeout_at(limit, self.drained()).await.is_err() {
            let connections = self.connections.len();
            let after = self.limits.longest;
            warn!(connections, ?after, "the tracker accepts batches too slowly; the rest is not counted");
            self.stop.give_up.cancel();
            if tokio::time::timeout(COUNTING, self.drained()).await.is_err() {
                warn!(connections = self.connections.len(), "connections did not end; their batches are not counted");
            }
        }
        self.sockets.iter().for_each(|socket| socket.endpoint.log_rest());
        let reports = self.reports().now();
        let sum = |number: fn(&SocketReport) -> u64| reports.iter().map(number).sum::<u64>();
        let (batches, requests) = (sum(|report| report.left_batches), sum(|report| report.left_requests));
        if batches > 0 {
            warn!(batches, requests, "received batches could not be tracked; their requests are not counted");
        }
        reports
    }

    /// Waits until all sockets are closed and all connections are read to their end.
    async fn drained(&mut self) {
        for ServedSocket { endpoint, acceptor } in &mut self.sockets {
            if !acceptor.is_finished()
                && let Err(error) = acceptor.await
            {
                warn!(socket = %endpoint.path.display(), %error, "the task of an audit socket failed");
            }
        }
        self.connections.close();
        self.connections.wait().await;
    }
}

impl Drop for AuditServer {
    fn drop(&mut self) {
        self.stop.drain.cancel();
        self.stop.give_up.cancel();
        for socket in &self.sockets {
            socket.acceptor.abort();
        }
    }
}
