//! The current status of this replica and of the database.
//!
//! Each request reads the replica's status, which is cheap. The database is read at most once a second and within a
//! time limit, so that many open pages do not overload it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boundary_usage::{Ages, Connecting, Database, DatabaseStatus, Tracker, TrackerStatus, WindowLength};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tokio::time::Instant;

use super::history_reading::{HistoryReadings, Reading};
use crate::audit_socket::{SocketReport, SocketReports};

/// The time for which a reading of the database is reused.
const FRESH: Duration = Duration::from_secs(1);

/// Time limit for reading the database.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Time limit for reading the database for metrics.
///
/// A scrape has a time limit of its own.
const AGES_LIMIT: Duration = Duration::from_secs(2);

/// The parts of a running replica.
#[derive(Clone)]
pub struct Replica {
    /// The tracker.
    pub tracker: Tracker,
    /// The reports of the audit sockets.
    pub sockets: SocketReports,
    /// The database.
    pub database: Database,
}

/// The status of a serving process, from its start to its end.
pub struct View {
    connecting: Arc<Connecting>,
    phase: Mutex<Phase>,
    /// Locked while reading, so that simultaneous requests share one reading.
    reading: tokio::sync::Mutex<Option<(Instant, DatabaseReading)>>,
    ages: tokio::sync::Mutex<Option<(Instant, Ages)>>,
    history: HistoryReadings,
}

#[derive(Clone)]
enum Phase {
    Starting,
    /// Tracking, but not yet connected to the database.
    Waiting(Replica),
    Running(Replica),
    Stopping(Replica),
}

/// The state of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Starting,
    Running,
    Stopping,
}

/// The status of this replica, which needs no database.
#[derive(Debug, Serialize)]
pub(super) struct LocalStatus {
    pub(super) version: &'static str,
    pub(super) at: DateTime<Utc>,
    pub(super) state: State,
    /// The error of the last attempt to connect, until the database is reached.
    #[serde(skip)]
    pub(super) connection_failure: Option<String>,
    /// `None` during the start.
    pub(super) tracker: Option<TrackerStatus>,
    /// `None` during the start.
    pub(super) sockets: Option<SocketTotals>,
    /// The reason why no client can connect to one of the sockets, if any.
    pub(super) socket_fault: Option<String>,
}

/// The status of this replica and of the database.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    #[serde(flatten)]
    pub(super) local: LocalStatus,
    pub(super) ready: bool,
    /// The reason why the replica is not ready.
    pub(super) not_ready: Option<String>,
    pub(super) database: DatabaseReading,
}

/// The last reading of the database.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct DatabaseReading {
    /// The time of the last successful reading.
    pub(super) at: Option<DateTime<Utc>>,
    /// The error of the newest attempt.
    ///
    /// If it is set, `status` is from the last successful reading.
    pub(super) error: Option<String>,
    pub(super) status: Option<DatabaseStatus>,
}

/// The sums over all sockets since the start.
///
/// The sums contain no ids of workspaces and owners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct SocketTotals {
    pub(super) sockets: u64,
    /// Sockets to which no new client can connect.
    pub(super) unavailable: u64,
    pub(super) connections: u64,
    pub(super) connections_without_frame: u64,
    pub(super) batches: u64,
    pub(super) allowed: u64,
    pub(super) denied: u64,
    pub(super) skipped_logs: u64,
    pub(super) refused_batches: u64,
    pub(super) undecodable_frames: u64,
    pub(super) malformed_frames: u64,
    pub(super) left_batches: u64,
    pub(super) left_requests: u64,
    pub(super) dropped_channel_full: u64,
    pub(super) dropped_batch_full: u64,
}

impl View {
    /// Creates the status of a starting process.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            connecting: Arc::default(),
            phase: Mutex::new(Phase::Starting),
            reading: tokio::sync::Mutex::default(),
            ages: tokio::sync::Mutex::default(),
            history: HistoryReadings::default(),
        })
    }

    /// Returns the progress of the first connection to the database.
    pub fn connecting(&self) -> &Arc<Connecting> {
        &self.connecting
    }

    /// Records that the replica tracks, but that the database has not been reached yet.
    pub fn waiting(&self, replica: Replica) {
        *self.phase() = Phase::Waiting(replica);
    }

    /// Records that the database was reached and the component runs.
    pub fn running(&self, replica: Replica) {
        *self.phase() = Phase::Running(replica);
    }

    /// Records that the process is stopping.
    pub fn stopping(&self) {
        let mut phase = self.phase();
        if let Phase::Waiting(replica) | Phase::Running(replica) = &*phase {
            *phase = Phase::Stopping(replica.clone());
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the status of this replica, without reading the database.
    pub(super) fn local(&self) -> LocalStatus {
        let phase = self.phase().clone();
        let (state, replica) = match &phase {
            Phase::Starting => (State::Starting, None),
            Phase::Waiting(replica) => (State::Starting, Some(replica)),
            Phase::Running(replica) => (State::Running, Some(replica)),
            Phase::Stopping(replica) => (State::Stopping, Some(replica)),
        };
        let sockets = replica.map(|replica| replica.sockets.now());
        let faults = sockets.iter().flatten().filter_map(|report| report.fault.clone());
        LocalStatus {
            version: env!("CARGO_PKG_VERSION"),
            at: Utc::now(),
            state,
            connection_failure: self.connecting.failure(),
            tracker: replica.map(|replica| replica.tracker.status()),
            socket_fault: faults.into_iter().next(),
            sockets: sockets.as_deref().map(SocketTotals::of),
        }
    }

    /// Returns the status of this replica and of the database.
    pub(super) async fn status(&self) -> Status {
        let database = self.read().await;
        let local = self.local();
        let not_ready = local.not_ready();
        Status { ready: not_ready.is_none(), not_ready, local, database }
    }

    /// Returns the ages of the open period and of the oldest undelivered summary.
    ///
    /// While the database cannot be read, the ages grow from the last reading, because this replica then sees neither
    /// collections nor deliveries.
    pub(super) async fn ages(&self) -> Option<Ages> {
        let database = self.database()?;
        let mut last = self.ages.lock().await;
        if last.is_none_or(|(read, _)| read.elapsed() >= FRESH)
            && let Ok(Ok(ages)) = tokio::time::timeout(AGES_LIMIT, database.ages()).await
        {
            *last = Some((Instant::now(), ages));
        }
        last.map(|(read, Ages { open_period, oldest_undelivered })| {
            let since = TimeDelta::from_std(read.elapsed()).unwrap_or(TimeDelta::MAX);
            let now = |age: TimeDelta| age.checked_add(&since).unwrap_or(TimeDelta::MAX);
            Ages { open_period: now(open_period), oldest_undelivered: oldest_undelivered.map(now) }
        })
    }

    /// Returns the history in windows of this length, or the reason why it cannot be read.
    pub(super) async fn history(&self, length: WindowLength) -> Result<Reading, String> {
        match self.database() {
            Some(database) => self.history.read(&database, length).await,
            None => Err(self.connecting.failure().unwrap_or_else(|| "the database has not been reached yet".into())),
        }
    }

    fn database(&self) -> Option<Database> {
        match &*self.phase() {
            Phase::Starting | Phase::Waiting(_) => None,
            Phase::Running(replica) | Phase::Stopping(replica) => Some(replica.database.clone()),
        }
    }

    async fn read(&self) -> DatabaseReading {
        let Some(database) = self.database() else {
            return DatabaseReading { error: self.connecting.failure(), ..DatabaseReading::default() };
        };
        let mut last = self.reading.lock().await;
        let reading = match last.take() {
            Some((read, reading)) if read.elapsed() < FRESH => {
                *last = Some((read, reading.clone()));
                return reading;
            }
            Some((_, reading)) => reading,
            None => DatabaseReading::default(),
        };
        let reading = match tokio::time::timeout(READ_LIMIT, database.status()).await {
            Ok(Ok(status)) => DatabaseReading { at: Some(Utc::now()), error: None, status: Some(status) },
            Ok(Err(error)) => DatabaseReading { error: Some(format!("{:#}", anyhow::Error::from(error))), ..reading },
            Err(_) => {
                DatabaseReading { error: Some(format!("the database did not reply within {READ_LIMIT:?}")), ..reading }
            }
        };
        *last = Some((Instant::now(), reading.clone()));
        reading
    }
}

impl LocalStatus {
    /// Returns the reason why the replica is not ready, or `None` if it is ready.
    ///
    /// A database that becomes unreachable after the start is not a reason, because the replica continues to track.
    /// Otherwise a load balancer would remove all replicas simultaneously.
    pub(super) fn not_ready(&self) -> Option<String> {
        match (self.state, &self.tracker) {
            (State::Stopping, _) => Some("the process is stopping".into()),
            (State::Running, Some(tracker)) if tracker.stopped => {
                Some("the tracker panicked, as the log shows; restart the process".into())
            }
            (State::Running, Some(tracker)) => match tracker.restart_wait_ms {
                Some(wait) => {
                    let failures = tracker.consecutive_restarts;
                    Some(format!("the component failed {failures} consecutive times, and is replaced after {wait} ms"))
                }
                None => self.socket_fault.clone(),
            },
            _ => match &self.connection_failure {
                Some(failure) => Some(format!("database: {failure}")),
                None => Some("database: it has not been reached yet, or the component is still starting".into()),
            },
        }
    }
}

impl SocketTotals {
    /// Returns the number of logs that clients reported as dropped.
    pub(super) fn dropped_logs(&self) -> u64 {
        self.dropped_channel_full.saturating_add(self.dropped_batch_full)
    }

    fn of(reports: &[SocketReport]) -> Self {
        let sum = |number: fn(&SocketReport) -> u64| reports.iter().map(number).fold(0, u64::saturating_add);
        Self {
            sockets: sum(|report| u64::from(!report.is_removed)),
            unavailable: sum(|report| u64::from(report.fault.is_some())),
            connections: sum(|report| report.connections),
            connections_without_frame: sum(|report| report.connections_without_frame),
            batches: sum(|report| report.batches),
            allowed: sum(|report| report.allowed),
            denied: sum(|report| report.denied),
            skipped_logs: sum(|report| report.skipped_logs),
            refused_batches: sum(|report| report.refused_batches),
            undecodable_frames: sum(|report| report.undecodable_frames),
            malformed_frames: sum(|report| report.malformed_frames),
            left_batches: sum(|report| report.left_batches),
            left_requests: sum(|report| report.left_requests),
            dropped_channel_full: sum(|report| report.dropped_channel_full),
            dropped_batch_full: sum(|report| report.dropped_batch_full),
        }
    }
}
