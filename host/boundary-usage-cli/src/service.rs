//! One serving replica: audit sockets in front of a tracker. `serve` runs one, `demo` runs two.

use anyhow::{Context, Result};
use boundary_usage::{CheckpointStatus, Database, Error, Options, Plugin, Tracker, TrackerStatus};
use serde::Serialize;
use uuid::Uuid;

use crate::audit_socket::{AuditServer, BoundSockets, DrainLimits, SocketReport, SocketReports};

/// A running replica.
pub struct Service {
    tracker: Tracker,
    server: AuditServer,
}

/// What a replica did, from its start to its stop.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceReport {
    /// The tracker's side.
    #[serde(flatten)]
    pub tracker: TrackerStatus,
    /// The sockets' side.
    pub sockets: Vec<SocketReport>,
}

impl Service {
    /// Starts a tracker, with its flush loop, and serves the sockets that feed it.
    ///
    /// # Errors
    ///
    /// If the component cannot be started. The socket files stay.
    pub async fn start(
        plugin: &Plugin,
        database: Database,
        replica: Uuid,
        sockets: BoundSockets,
        options: Options,
    ) -> Result<Self> {
        let tracker = plugin.start(replica, database, options).await.context("cannot start the tracker")?;
        let server = AuditServer::start(sockets, &tracker, DrainLimits::default());
        Ok(Self { tracker, server })
    }

    /// The tracker behind the sockets.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// What comes in over the sockets, for those who look on.
    pub fn socket_reports(&self) -> SocketReports {
        self.server.reports()
    }

    /// Stops accepting, tracks what clients have already sent, and flushes for the last time.
    ///
    /// # Errors
    ///
    /// When the last flush failed: what came in since the flush before it is in the checkpoint, or lost without one.
    pub async fn stop(self) -> Result<ServiceReport> {
        let sockets = self.server.stop().await;
        let flushed = self.tracker.shutdown().await;
        let tracker = self.tracker.status();
        flushed.map_err(|error| {
            let what = if may_be_applied(&error) { "has an unknown outcome" } else { "failed" };
            let context = format!("the last flush {what}; {}", left_behind(&tracker, &error));
            anyhow::Error::new(error).context(context)
        })?;
        Ok(ServiceReport { tracker, sockets })
    }
}

/// Whether the database may have carried out a flush that ended with this error.
fn may_be_applied(error: &Error) -> bool {
    matches!(error, Error::CommitUnknown { .. } | Error::TimedOut { .. })
}

/// What becomes of the activity that the last flush did not bring into the database, or not for certain.
fn left_behind(tracker: &TrackerStatus, error: &Error) -> String {
    match &tracker.checkpoint {
        Some(CheckpointStatus { path, last_error: None, .. }) => format!(
            "activity since the flush before it is kept in the checkpoint {path}, and goes out after the next start with \
             the same replica and state directory"
        ),
        Some(CheckpointStatus { path, last_error: Some(error), .. }) => format!(
            "the checkpoint {path} cannot be written either ({error}); activity since the last one that could is lost"
        ),
        None if may_be_applied(error) => format!(
            "activity since the flush before it is in the database or lost: `boundary-usage status` shows when replica {} \
             flushed last",
            tracker.replica
        ),
        None => "activity since the flush before it is lost".into(),
    }
}
