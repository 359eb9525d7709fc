//! One serving replica: audit sockets in front of a tracker.
//!
//! `serve` runs one replica, and `demo` runs two.

use anyhow::{Context, Result};
use boundary_usage::{CheckpointStatus, Database, Error, Options, Plugin, Tracker, TrackerStatus};
use serde::Serialize;
use uuid::Uuid;

use crate::audit_socket::{AuditServer, BoundSockets, DrainLimits, Socket, SocketChanges, SocketReport, SocketReports};
use crate::drop_recorder::DropRecorder;

/// A running replica.
pub struct Service {
    tracker: Tracker,
    server: AuditServer,
    drops: DropRecorder,
}

/// The report of a replica, from its start to its stop.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceReport {
    /// The tracker's status.
    #[serde(flatten)]
    pub tracker: TrackerStatus,
    /// The sockets' reports.
    pub sockets: Vec<SocketReport>,
}

impl Service {
    /// Starts a tracker, and serves the sockets.
    ///
    /// # Errors
    ///
    /// Returns an error if the tracker cannot be started. The socket files stay.
    pub async fn start(
        plugin: &Plugin,
        database: Database,
        replica: Uuid,
        sockets: BoundSockets,
        options: Options,
    ) -> Result<Self> {
        let flush_interval = options.flush_interval;
        let tracker = plugin.start(replica, database.clone(), options).await.context("cannot start the tracker")?;
        let server = AuditServer::start(sockets, &tracker, DrainLimits::default());
        let drops = DropRecorder::start(database, replica, server.reports(), flush_interval);
        Ok(Self { tracker, server, drops })
    }

    /// Returns the tracker behind the sockets.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Returns a handle to the reports of the sockets.
    pub fn socket_reports(&self) -> SocketReports {
        self.server.reports()
    }

    /// Serves exactly these sockets from now on. See [`AuditServer::reload`].
    ///
    /// # Errors
    ///
    /// Returns an error if a new socket cannot be bound. Nothing has changed then.
    pub async fn reload(&mut self, sockets: &[Socket]) -> Result<SocketChanges> {
        self.server.reload(sockets).await
    }

    /// Stops accepting clients, tracks what they have sent, flushes, and records the logs that clients dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the last flush failed. The activity of that flush is in the checkpoint, or lost if there is
    /// no checkpoint.
    pub async fn stop(self) -> Result<ServiceReport> {
        let sockets = self.server.stop().await;
        let flushed = self.tracker.shutdown().await;
        self.drops.stop().await;
        let tracker = self.tracker.status();
        flushed.map_err(|error| {
            let what = if may_be_applied(&error) { "has an unknown outcome" } else { "failed" };
            let context = format!("the last flush {what}; {}", unflushed(&tracker, &error));
            anyhow::Error::new(error).context(context)
        })?;
        Ok(ServiceReport { tracker, sockets })
    }
}

/// Returns whether a flush with this error may have been applied.
fn may_be_applied(error: &Error) -> bool {
    matches!(error, Error::CommitUnknown { .. } | Error::TimedOut { .. })
}

/// Describes where the activity of the failed last flush is.
fn unflushed(tracker: &TrackerStatus, error: &Error) -> String {
    match &tracker.checkpoint {
        Some(CheckpointStatus { path, last_error: None, .. }) => format!(
            "its activity is kept in the checkpoint {path}; the next start with the same replica and state directory \
             flushes it"
        ),
        Some(CheckpointStatus { path, last_error: Some(error), .. }) => format!(
            "the checkpoint {path} cannot be written either ({error}); activity since the last complete checkpoint is \
             lost"
        ),
        None if may_be_applied(error) => format!(
            "its activity is in the database or lost; `boundary-usage status` shows when replica {} flushed last",
            tracker.replica
        ),
        None => "its activity is lost".into(),
    }
}
