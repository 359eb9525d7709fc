//! The counts of one socket, and the log lines about it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boundary_usage::{TrackError, Tracker};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use super::server::Socket;
use crate::log_limit::LogLimit;

/// The number of connections without a frame that suggests a stuck client.
///
/// Only connections within [`STUCK_WINDOW`] count.
const STUCK_CONNECTIONS: u64 = 10;
const STUCK_WINDOW: Duration = Duration::from_secs(600);

/// The counts of one socket since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SocketReport {
    /// The path of the socket file.
    pub path: PathBuf,
    /// The socket's workspace.
    pub workspace: Uuid,
    /// The workspace's owner.
    pub owner: Uuid,
    /// Connections accepted.
    pub connections: u64,
    /// Connections that ended without a frame.
    pub connections_without_frame: u64,
    /// Batches tracked.
    pub batches: u64,
    /// Allowed requests.
    pub allowed: u64,
    /// Denied requests.
    pub denied: u64,
    /// Logs not counted, because their resource was missing or unknown.
    pub skipped_logs: u64,
    /// Batches not counted, because they contained too many logs.
    pub refused_batches: u64,
    /// Frames not counted, because their message could not be decoded.
    pub undecodable_frames: u64,
    /// Connections closed because of a malformed frame.
    pub malformed_frames: u64,
    /// Batches received but not accepted by the tracker during the stop.
    pub left_batches: u64,
    /// The requests in these batches.
    pub left_requests: u64,
    /// Logs that clients reported as dropped because their queue was full.
    pub dropped_channel_full: u64,
    /// Logs that clients reported as dropped because their batch was full.
    pub dropped_batch_full: u64,
    /// The reason why no new client can connect, if there is one.
    pub fault: Option<String>,
    /// Whether this is the sum of the sockets that reloads have removed. It has no path and no ids.
    pub is_removed: bool,
}

impl SocketReport {
    /// Returns the number of logs that clients reported as dropped.
    pub fn dropped_logs(&self) -> u64 {
        self.dropped_channel_full.saturating_add(self.dropped_batch_full)
    }

    /// Adds the counts of another report.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, number) in [
            (&mut self.connections, other.connections),
            (&mut self.connections_without_frame, other.connections_without_frame),
            (&mut self.batches, other.batches),
            (&mut self.allowed, other.allowed),
            (&mut self.denied, other.denied),
            (&mut self.skipped_logs, other.skipped_logs),
            (&mut self.refused_batches, other.refused_batches),
            (&mut self.undecodable_frames, other.undecodable_frames),
            (&mut self.malformed_frames, other.malformed_frames),
            (&mut self.left_batches, other.left_batches),
            (&mut self.left_requests, other.left_requests),
            (&mut self.dropped_channel_full, other.dropped_channel_full),
            (&mut self.dropped_batch_full, other.dropped_batch_full),
        ] {
            *sum = sum.saturating_add(number);
        }
    }
}

/// A kind of log line whose rate is limited.
#[derive(Clone, Copy)]
pub(super) enum Notice {
    Malformed,
    Undecodable,
    Skipped,
    Refused,
    Dropped,
    NotAccepted,
    Unavailable,
    Left,
    WithoutFrame,
}

impl Notice {
    const ALL: [Self; 9] = [
        Self::Malformed,
        Self::Undecodable,
        Self::Skipped,
        Self::Refused,
        Self::Dropped,
        Self::NotAccepted,
        Self::Unavailable,
        Self::Left,
        Self::WithoutFrame,
    ];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Malformed => "a malformed frame ended the connection",
            Self::Undecodable => "a frame whose message cannot be decoded is not counted",
            Self::Skipped => "logs whose resource is missing or unknown are not counted",
            Self::Refused => "a batch with too many logs is not counted",
            Self::Dropped => "the client dropped logs",
            Self::NotAccepted => "cannot accept a client",
            Self::Unavailable => "no new client can connect to the audit socket",
            Self::Left => "a received batch is not counted, because the tracker did not accept it",
            Self::WithoutFrame => {
                "many connections ended without a frame: a client may be stuck, or its runs are too short to report \
                 anything; see \"What the client never reports\" in docs/operating.md"
            }
        }
    }
}

/// The state that the connections of one socket share.
#[derive(Debug)]
pub(super) struct Endpoint {
    report: Mutex<SocketReport>,
    notices: [LogLimit; Notice::ALL.len()],
    without_frame: Mutex<Option<(Instant, u64)>>,
    pub(super) path: PathBuf,
    pub(super) workspace: Uuid,
    owner: Uuid,
    ids_ignored: bool,
}

impl Endpoint {
    pub(super) fn new(socket: &Socket) -> Self {
        let Socket { path, workspace, owner, ids_ignored, .. } = socket.clone();
        let report = SocketReport { path: path.clone(), workspace, owner, ..SocketReport::default() };
        Self {
            report: Mutex::new(report),
            notices: Default::default(),
            without_frame: Mutex::default(),
            path,
            workspace,
            owner,
            ids_ignored,
        }
    }

    /// Records a batch of this socket's workspace. Never waits.
    pub(super) fn try_track(&self, tracker: &Tracker, allowed: u64, denied: u64) -> Result<(), TrackError> {
        if self.ids_ignored {
            tracker.try_track_requests(allowed, denied)
        } else {
            tracker.try_track(self.workspace, self.owner, allowed, denied)
        }
    }

    pub(super) fn report(&self) -> SocketReport {
        self.locked().clone()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut SocketReport)) {
        change(&mut self.locked());
    }

    fn locked(&self) -> MutexGuard<'_, SocketReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records why no new client can connect, or `None` if clients can connect.
    ///
    /// Returns whether the reason changed.
    pub(super) fn set_fault(&self, fault: Option<String>) -> bool {
        let mut report = self.locked();
        let changes = report.fault != fault;
        report.fault = fault;
        changes
    }

    /// Counts an event.
    ///
    /// Returns whether the caller may log the event. If the caller may not log it, a later line reports the number of
    /// events.
    pub(super) fn permits(&self, notice: Notice) -> bool {
        self.notices[notice as usize].permits()
    }

    /// Logs the number of unlogged events of each kind, at most once per interval.
    pub(super) fn log_repeated(&self) {
        self.log_counts(LogLimit::repeated);
    }

    /// Logs the number of unlogged events of each kind, before the server ends.
    pub(super) fn log_rest(&self) {
        self.log_counts(LogLimit::rest);
    }

    fn log_counts(&self, take: fn(&LogLimit) -> Option<u64>) {
        for notice in Notice::ALL {
            if let Some(repeated) = take(&self.notices[notice as usize]) {
                warn!(socket = %self.path.display(), repeated, "{}", notice.text());
            }
        }
    }

    /// Counts a connection that ended without a frame.
    ///
    /// A single one comes from a client that ran only briefly, but many deserve a warning.
    pub(super) fn ended_without_frame(&self, peer: i32) {
        self.count(|report| report.connections_without_frame += 1);
        debug!(socket = %self.path.display(), peer, "the connection ended without a frame");
        let mut window = self.without_frame.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, connections) = match *window {
            Some((start, connections)) if start.elapsed() < STUCK_WINDOW => (start, connections + 1),
            _ => (Instant::now(), 1),
        };
        *window = Some((start, connections));
        drop(window);
        if connections >= STUCK_CONNECTIONS && self.permits(Notice::WithoutFrame) {
            let text = Notice::WithoutFrame.text();
            warn!(socket = %self.path.display(), peer, connections, within = ?STUCK_WINDOW, "{text}");
        }
    }
}
