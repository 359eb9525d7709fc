//! One client's connection: frames in, activity out.
//!
//! Nothing that a client sends can harm another: a malformed frame ends this connection alone, and a full intake makes
//! this connection wait, which the client feels as a socket that takes no more.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boundary_usage::{TrackError, Tracker};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::codec::{Frame, FrameCodec, FrameError};
use super::message::{MAX_LOGS_PER_BATCH, Received, receive};

/// What came in over one socket since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SocketReport {
    /// The socket file.
    pub path: PathBuf,
    /// The workspace that it serves.
    pub workspace: Uuid,
    /// The workspace's owner.
    pub owner: Uuid,
    /// Connections accepted.
    pub connections: u64,
    /// Batches tracked.
    pub batches: u64,
    /// Requests let through.
    pub allowed: u64,
    /// Requests blocked.
    pub denied: u64,
    /// Logs not counted, because their resource was missing or unknown.
    pub skipped_logs: u64,
    /// Batches not counted, because they held too many logs.
    pub refused_batches: u64,
    /// Connections closed because of a malformed frame.
    pub malformed_frames: u64,
    /// Logs that clients said they had to drop for want of room in their queue.
    pub dropped_channel_full: u64,
    /// Logs that clients said they had to drop for want of a connection.
    pub dropped_batch_full: u64,
}

/// What the connections of one socket share.
#[derive(Debug)]
pub(super) struct Endpoint {
    report: Mutex<SocketReport>,
    pub(super) path: PathBuf,
    workspace: Uuid,
    owner: Uuid,
}

impl Endpoint {
    pub(super) fn new(path: PathBuf, workspace: Uuid, owner: Uuid) -> Self {
        let report = SocketReport { path: path.clone(), workspace, owner, ..SocketReport::default() };
        Self { report: Mutex::new(report), path, workspace, owner }
    }

    pub(super) fn report(&self) -> SocketReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, change: impl FnOnce(&mut SocketReport)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Tells connections when to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Read what has been sent already, then end.
    pub(super) drain: CancellationToken,
    /// End now.
    pub(super) give_up: CancellationToken,
    /// How long nothing must come for a draining connection to count as read.
    pub(super) quiet: Duration,
}

/// A connection, from its accept to its end.
pub(super) struct Connection {
    endpoint: Arc<Endpoint>,
    frames: FramedRead<UnixStream, FrameCodec>,
    tracker: Tracker,
    stop: Stop,
    /// The client's process id, for the log.
    peer: i32,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, endpoint: Arc<Endpoint>, tracker: Tracker, stop: Stop) -> Self {
        let peer = stream.peer_cred().ok().and_then(|credentials| credentials.pid()).unwrap_or_default();
        endpoint.count(|report| report.connections += 1);
        Self { endpoint, frames: FramedRead::new(stream, FrameCodec), tracker, stop, peer }
    }

    /// Tracks what the client sends until it hangs up, sends a malformed frame, or the server stops.
    pub(super) async fn run(mut self) {
        debug!(socket = %self.endpoint.path.display(), peer = self.peer, "connected");
        while let Some(frame) = self.next().await {
            let received =
                match frame.map_err(Malformed::Frame).and_then(|frame| receive(&frame).map_err(Malformed::from)) {
                    Ok(received) => received,
                    Err(malformed) => return self.hang_up(&malformed),
                };
            if let Err(error) = self.count(received).await {
                warn!(socket = %self.endpoint.path.display(), peer = self.peer, %error, "activity not accepted; hanging up");
                return;
            }
        }
        debug!(socket = %self.endpoint.path.display(), peer = self.peer, "disconnected");
    }

    async fn next(&mut self) -> Option<Result<Frame, FrameError>> {
        if !self.stop.drain.is_cancelled() {
            tokio::select! {
                biased;
                frame = self.frames.next() => return frame,
                () = self.stop.drain.cancelled() => {}
            }
        }
        // What the client sent before now is in the kernel's buffer, and is read without a wait: silence is the end of it.
        let drained = tokio::time::timeout(self.stop.quiet, self.frames.next());
        self.stop.give_up.run_until_cancelled(drained).await?.ok()?
    }

    async fn count(&self, received: Received) -> Result<(), TrackError> {
        let (socket, peer) = (self.endpoint.path.display(), self.peer);
        match received {
            Received::Batch { allowed, denied, skipped } => {
                if skipped > 0 {
                    warn!(%socket, peer, skipped, "logs whose resource is missing or unknown are not counted");
                }
                if allowed > 0 || denied > 0 {
                    self.track(allowed, denied).await?;
                    self.endpoint.count(|report| report.batches += 1);
                }
                self.endpoint.count(|report| {
                    report.allowed += allowed;
                    report.denied += denied;
                    report.skipped_logs += skipped;
                });
            }
            Received::Refused { logs } => {
                warn!(%socket, peer, logs, limit = MAX_LOGS_PER_BATCH, "a batch with too many logs is not counted");
                self.endpoint.count(|report| report.refused_batches += 1);
            }
            Received::Dropped { channel_full, batch_full } => {
                info!(%socket, peer, channel_full, batch_full, "the client had to drop logs");
                self.endpoint.count(|report| {
                    report.dropped_channel_full = report.dropped_channel_full.saturating_add(channel_full);
                    report.dropped_batch_full = report.dropped_batch_full.saturating_add(batch_full);
                });
            }
            Received::Unknown => debug!(%socket, peer, "a message of an unknown kind is passed over"),
        }
        Ok(())
    }

    /// Hands the batch to the tracker; waits, and with it the client, while the intake is full.
    async fn track(&self, allowed: u64, denied: u64) -> Result<(), TrackError> {
        let (workspace, owner) = (self.endpoint.workspace, self.endpoint.owner);
        match self.tracker.try_track(workspace, owner, allowed, denied) {
            Err(TrackError::Full { .. }) => {
                let tracker = self.tracker.clone();
                let waiting = tokio::task::spawn_blocking(move || tracker.track(workspace, owner, allowed, denied));
                waiting.await.unwrap_or(Err(TrackError::Stopped))
            }
            done => done,
        }
    }

    fn hang_up(&self, malformed: &Malformed) {
        let (socket, workspace) = (self.endpoint.path.display(), self.endpoint.workspace);
        match malformed {
            // The client went away in the middle; it sends the batch again when it is back.
            Malformed::Frame(FrameError::Io(error)) => debug!(%socket, peer = self.peer, %error, "connection lost"),
            malformed => {
                warn!(%socket, %workspace, peer = self.peer, "malformed frame: {malformed}; hanging up");
                self.endpoint.count(|report| report.malformed_frames += 1);
            }
        }
    }
}

/// Why a connection cannot be read on.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    #[error("{0}")]
    Frame(FrameError),
    #[error("its data is not the protobuf message that its tag promises: {0}")]
    Message(#[from] prost::DecodeError),
}
