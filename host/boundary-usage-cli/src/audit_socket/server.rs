//! The audit server: its sockets, their connections, and how they end.
//!
//! To stop is to lose nothing that a client has sent: first no further client can connect; then the clients that wait in
//! the backlog are accepted; then each connection is ended for writing and read to its end. What was written is bounded,
//! so that takes a moment, unless the tracker accepts nothing. What it has not accepted until the limit is counted, and
//! logged as not tracked.

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

/// The most clients that one socket serves at a time. One workspace has a handful.
const MOST_CLIENTS_PER_SOCKET: usize = 1_024;

/// So many clients each socket may serve, even if that is more than its share: few sockets use theirs.
const FEWEST_CLIENTS_PER_SOCKET: usize = 64;

/// Time for the connections to count what they could not track.
const COUNTING: Duration = Duration::from_secs(1);

/// A socket, and the workspace that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Where the socket file is to be.
    pub path: PathBuf,
    /// The workspace whose clients connect there.
    pub workspace: Uuid,
    /// The user who owns it.
    pub owner: Uuid,
    /// Whether requests count without the workspace and the owner.
    pub ids_ignored: bool,
    /// The group whose members may connect; without one, only our own user.
    pub group: Option<SocketGroup>,
}

/// How long a stopping server waits for the tracker.
#[derive(Clone, Copy, Debug)]
pub struct DrainLimits {
    /// After this time, what the tracker has not accepted is counted as left.
    pub longest: Duration,
}

impl Default for DrainLimits {
    fn default() -> Self {
        Self { longest: Duration::from_secs(5) }
    }
}

/// Sockets to which clients can connect, and which are not served yet: what clients send waits in the bounded buffers of
/// the system.
pub struct BoundSockets(Vec<(Socket, SocketFile)>);

impl BoundSockets {
    /// Binds every socket that no supervisor passed.
    ///
    /// # Errors
    ///
    /// See [`SocketFile::bind`]; also if a supervisor passed a socket that is not among these.
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

/// Serves audit sockets. Dropping it leaves unread what clients have sent.
pub struct AuditServer {
    sockets: Vec<ServedSocket>,
    connections: TaskTracker,
    stop: Stop,
    limits: DrainLimits,
    /// A descriptor that a stop can free: without one, no waiting client can be accepted.
    spare: Option<File>,
}

/// What came in, also while the server runs and after its end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SocketReports(Arc<[Arc<Endpoint>]>);

impl SocketReports {
    /// What came in so far, socket by socket.
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

    /// What comes in, also after the server's end.
    pub fn reports(&self) -> SocketReports {
        SocketReports(self.sockets.iter().map(|socket| socket.endpoint.clone()).collect())
    }

    /// Stops accepting, tracks what clients have already sent, and returns what came in.
    pub async fn stop(mut self) -> Vec<SocketReport> {
        self.spare = None;
        self.stop.drain.cancel();
        let limit = tokio::time::Instant::now() + self.limits.longest;
        if tokio::time::timeout_at(limit, self.drained()).await.is_err() {
            let connections = self.connections.len();
            warn!(connections, after = ?self.limits.longest, "the tracker accepts too little; leaving what waits for it");
            self.stop.give_up.cancel();
            if tokio::time::timeout(COUNTING, self.drained()).await.is_err() {
                warn!(connections = self.connections.len(), "connections did not end; what they hold is not counted");
            }
        }
        self.sockets.iter().for_each(|socket| socket.endpoint.log_rest());
        let reports = self.reports().now();
        let sum = |number: fn(&SocketReport) -> u64| reports.iter().map(number).sum::<u64>();
        let (batches, requests) = (sum(|report| report.left_batches), sum(|report| report.left_requests));
        if batches > 0 {
            warn!(batches, requests, "batches were received and could not be tracked; their requests are not counted");
        }
        reports
    }

    /// Waits until no client can connect, and all that connected have been read to their end.
    async fn drained(&mut self) {
        for ServedSocket { endpoint, acceptor } in &mut self.sockets {
            if !acceptor.is_finished()
                && let Err(error) = acceptor.await
            {
                warn!(socket = %endpoint.path.display(), %error, "the socket did not end in order");
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
