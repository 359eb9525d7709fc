//! Records the logs that clients reported as dropped in the database, so that the summary of the period names them.
//!
//! The collector of a period can be another replica. A failed recording is repeated with the next one. A recording with
//! an unknown outcome is not repeated, because its logs must never count twice. A crash of the process loses the
//! reports since the last recording. So the recorded number is a lower bound.

use std::time::Duration;

use boundary_usage::{Database, Error, FailedAttempts};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use uuid::Uuid;

use crate::audit_socket::SocketReports;

/// Time limit for the last recording when the process stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A handle to the task that records dropped logs. Dropping it ends the task.
pub(crate) struct DropRecorder {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl DropRecorder {
    /// Starts to record new reports of the sockets, once per interval.
    pub(crate) fn start(database: Database, replica: Uuid, reports: SocketReports, interval: Duration) -> Self {
        let stop = CancellationToken::new();
        let recording = Recording { database, replica, reports, recorded: 0, attempts: FailedAttempts::default() };
        Self { task: AbortOnDropHandle::new(tokio::spawn(recording.run(interval, stop.clone()))), stop }
    }

    /// Records the last reports, and stops. Waits until the time limit.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_LIMIT, self.task).await.is_err() {
            warn!(limit = ?STOP_LIMIT, "the last recording of dropped logs took too long; it may be missing");
        }
    }
}

struct Recording {
    database: Database,
    replica: Uuid,
    reports: SocketReports,
    /// The number of dropped logs that need no recording any more.
    recorded: u64,
    attempts: FailedAttempts,
}

impl Recording {
    async fn run(mut self, interval: Duration, stop: CancellationToken) {
        let mut is_stopping = false;
        while !is_stopping {
            is_stopping = stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_none();
            self.record().await;
        }
        let logs = self.unrecorded();
        if logs > 0 {
            warn!(replica = %self.replica, logs, "the last recording of dropped logs failed; no summary names them");
        }
    }

    /// Returns the number of logs that clients have reported since the last recording.
    fn unrecorded(&self) -> u64 {
        self.reports.dropped_logs().saturating_sub(self.recorded)
    }

    /// Records the logs that clients have reported since the last recording.
    async fn record(&mut self) {
        let (logs, replica) = (self.unrecorded(), self.replica);
        if logs == 0 {
            return;
        }
        match self.database.record_client_drops(replica, logs).await {
            Ok(()) => {
                self.recorded += logs;
                if let Some(failed_attempts) = self.attempts.succeeded() {
                    info!(%replica, failed_attempts, "dropped logs are recorded again");
                }
            }
            Err(error @ Error::CommitUnknown { .. }) => {
                self.recorded += logs;
                let error: &dyn std::error::Error = &error;
                let text = "it is unknown whether dropped logs were recorded; they are not recorded again";
                warn!(%replica, logs, error, "{text}");
            }
            Err(error) => {
                if let Some(attempt) = self.attempts.failed() {
                    let error: &dyn std::error::Error = &error;
                    let text = "cannot record dropped logs; the next recording carries them";
                    warn!(%replica, attempt, logs, error, "{text}");
                }
            }
        }
    }
}
