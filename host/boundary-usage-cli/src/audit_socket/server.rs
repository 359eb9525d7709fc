//! The server of all audit sockets.
//!
//! A stop loses nothing that a client has sent. First the sockets are closed for new clients. Then the clients in the
//! accept queue are accepted. Then the client's side of each connection is closed for writing, and the connection is
//! read to its end. The system's buffers are small, so a stop is quick unless the tracker accepts nothing. Batches that
//! the tracker has not accepted before the time limit are counted and logged.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use boundary_usage::Tracker;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;
use uuid::Uuid;

use super::acceptor::Acceptor;
use super::activation::PassedSockets;
use super::connection::Stop;
use super::group::SocketGroup;
use super::listener::SocketFile;
use super::report::{Endpoint, SocketReport};
use super::reports::SocketReports;
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
    tracker: Tracker,
    sockets: Vec<ServedSocket>,
    /// The acceptors of sockets that a reload has removed.
    leaving: Vec<ServedSocket>,
    reports: SocketReports,
    connections: TaskTracker,
    all_slots: Arc<Slots>,
    stop: Stop,
    limits: DrainLimits,
    /// A spare descriptor, which a stop needs to accept the clients in the queue.
    spare: Option<File>,
}

struct ServedSocket {
    socket: Socket,
    endpoint: Arc<Endpoint>,
    acceptor: JoinHandle<()>,
    /// Makes the acceptor and the connections of this socket end.
    drain: CancellationToken,
}

/// The sockets that a reload has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SocketChanges {
    /// The number of new sockets.
    pub added: usize,
    /// The number of sockets with other settings, which were closed and opened again.
    pub changed: usize,
    /// The number of sockets that are not served any more.
    pub removed: usize,
    /// The reasons why sockets with other settings could not be opened again. They are not served any more.
    pub failures: Vec<String>,
}

impl AuditServer {
    /// Serves the sockets.
    pub fn start(sockets: BoundSockets, tracker: &Tracker, limits: DrainLimits) -> Self {
        let mut server = Self {
            tracker: tracker.clone(),
            sockets: Vec::new(),
            leaving: Vec::new(),
            reports: SocketReports::default(),
            connections: TaskTracker::new(),
            all_slots: Arc::new(Slots::new(descriptors::audit_clients(sockets.0.len()))),
            stop: Stop::default(),
            limits,
            spare: File::open("/dev/null").ok(),
        };
        server.serve(sockets.0);
        server
    }

    fn serve(&mut self, sockets: Vec<(Socket, SocketFile)>) {
        let all = self.sockets.len() + sockets.len();
        let share = descriptors::audit_clients(all) / all.max(1);
        let own_slots = share.clamp(FEWEST_CLIENTS_PER_SOCKET, MOST_CLIENTS_PER_SOCKET);
        for (socket, file) in sockets {
            let endpoint = Arc::new(Endpoint::new(&socket));
            let stop = Stop { drain: self.stop.drain.child_token(), give_up: self.stop.give_up.clone() };
            let drain = stop.drain.clone();
            let acceptor = Acceptor {
                endpoint: endpoint.clone(),
                group: socket.group,
                tracker: self.tracker.clone(),
                connections: self.connections.clone(),
                stop,
                own_slots: Slots::new(own_slots),
                all_slots: self.all_slots.clone(),
            };
            self.reports.add(endpoint.clone());
            let acceptor = tokio::spawn(acceptor.run(file));
            self.sockets.push(ServedSocket { socket, endpoint, acceptor, drain });
        }
    }

    /// Serves exactly these sockets from now on. Those whose settings are the same continue undisturbed.
    ///
    /// The clients of removed sockets end as in a stop, so nothing that they have sent is lost. A socket with other
    /// settings is closed before it is opened again, and clients find its file all the time.
    ///
    /// # Errors
    ///
    /// Returns an error if a new socket cannot be bound. Nothing has changed then.
    pub async fn reload(&mut self, sockets: &[Socket]) -> Result<SocketChanges> {
        self.reports.compact();
        self.leaving.retain(|socket| !socket.acceptor.is_finished());
        let served = |path: &Path| self.sockets.iter().find(|served| served.socket.path == path);
        let added: Vec<_> = sockets.iter().filter(|socket| served(&socket.path).is_none()).collect();
        let is_changed = |socket: &&Socket| served(&socket.path).is_some_and(|served| served.socket != **socket);
        let changed: Vec<_> = sockets.iter().filter(is_changed).cloned().collect();
        let mut bound = Vec::new();
        for socket in added {
            bound.push((socket.clone(), SocketFile::bind(&socket.path, socket.group).await?));
        }
        let mut changes = SocketChanges { added: bound.len(), changed: changed.len(), ..SocketChanges::default() };
        let all = std::mem::take(&mut self.sockets).into_iter();
        let (unchanged, others): (Vec<_>, Vec<_>) = all.partition(|served| sockets.contains(&served.socket));
        self.sockets = unchanged;
        changes.removed = others.len() - changed.len();
        for mut served in others {
            served.drain.cancel();
            self.reports.remove(&served.endpoint);
            if changed.iter().any(|socket| socket.path == served.socket.path) {
                // The file can be replaced once no process listens on it.
                served.ended().await;
            } else {
                self.leaving.push(served);
            }
        }
        for socket in changed {
            match SocketFile::bind(&socket.path, socket.group).await {
                Ok(file) => bound.push((socket, file)),
                Err(error) => changes.failures.push(format!("{error:#}")),
            }
        }
        self.serve(bound);
        Ok(changes)
    }

    /// Returns a handle to the reports of all sockets.
    pub fn reports(&self) -> SocketReports {
        self.reports.clone()
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
        for socket in self.sockets.iter_mut().chain(&mut self.leaving) {
            socket.ended().await;
        }
        self.connections.close();
        self.connections.wait().await;
    }
}

impl ServedSocket {
    /// Waits until the acceptor has ended.
    async fn ended(&mut self) {
        if !self.acceptor.is_finished()
            && let Err(error) = (&mut self.acceptor).await
        {
            warn!(socket = %self.endpoint.path.display(), %error, "the task of an audit socket failed");
        }
    }
}

impl Drop for AuditServer {
    fn drop(&mut self) {
        self.stop.drain.cancel();
        self.stop.give_up.cancel();
        for socket in self.sockets.iter().chain(&self.leaving) {
            socket.acceptor.abort();
        }
    }
}
