//! What is known at this moment: of the replica that runs here, and of the database.
//!
//! The replica is asked at every request: that costs nothing. The database is read at most once a second, however many
//! ask, and within a limit: a page that is open in many browsers must not become its load.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boundary_usage::{Ages, Database, DatabaseStatus, Tracker, TrackerStatus};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tokio::time::Instant;

use crate::audit_socket::{SocketReport, SocketReports};
use crate::connecting::Connecting;

/// For how long a reading of the database is shown.
const FRESH: Duration = Duration::from_secs(1);

/// How long the database may take to answer.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// How long the database may take for a scrape of the metrics, which has a time limit of its own.
const AGES_LIMIT: Duration = Duration::from_secs(2);

/// What there is to look at once the replica runs.
#[derive(Clone)]
pub struct Replica {
    /// Its tracker.
    pub tracker: Tracker,
    /// What comes in.
    pub sockets: SocketReports,
    /// Where it goes.
    pub database: Database,
}

/// The look at a serving process, from its start to its end.
pub struct View {
    connecting: Connecting,
    phase: Mutex<Phase>,
    /// Held while reading: those who ask meanwhile get the same reading.
    reading: tokio::sync::Mutex<Option<(Instant, DatabaseReading)>>,
    ages: tokio::sync::Mutex<Option<(Instant, Ages)>>,
}

#[derive(Clone)]
enum Phase {
    Starting,
    /// It tracks, and the database has not been reached yet.
    Waiting(Replica),
    Running(Replica),
    Stopping(Replica),
}

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Starting,
    Running,
    Stopping,
}

/// What is known without asking the database.
#[derive(Debug, Serialize)]
pub(super) struct LocalStatus {
    pub(super) version: &'static str,
    pub(super) at: DateTime<Utc>,
    pub(super) state: State,
    /// Why the database has not been reached yet, while it is waited for.
    #[serde(skip)]
    pub(super) connection_failure: Option<String>,
    /// `None` while it starts.
    pub(super) tracker: Option<TrackerStatus>,
    /// `None` while it starts.
    pub(super) sockets: Option<SocketTotals>,
    /// Why no client can connect to a socket, if there is such a socket.
    pub(super) socket_fault: Option<String>,
}

/// All that is known.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    #[serde(flatten)]
    pub(super) local: LocalStatus,
    pub(super) ready: bool,
    /// Why not.
    pub(super) not_ready: Option<String>,
    pub(super) database: DatabaseReading,
}

/// What the database answered.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct DatabaseReading {
    /// When it last answered; `None` if it never did.
    pub(super) at: Option<DateTime<Utc>>,
    /// Why it did not answer this time; what it answered before is still in `status`.
    pub(super) error: Option<String>,
    pub(super) status: Option<DatabaseStatus>,
}

/// What came in over all sockets since the start. Neither their workspaces nor the owners are told.
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
    /// Of a process that starts.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            connecting: Connecting::default(),
            phase: Mutex::new(Phase::Starting),
            reading: tokio::sync::Mutex::default(),
            ages: tokio::sync::Mutex::default(),
        })
    }

    /// The first connection to the database.
    pub fn connecting(&self) -> &Connecting {
        &self.connecting
    }

    /// The replica tracks, and the database has not been reached yet.
    pub fn waiting(&self, replica: Replica) {
        *self.phase() = Phase::Waiting(replica);
    }

    /// The database was reached and the component runs.
    pub fn running(&self, replica: Replica) {
        *self.phase() = Phase::Running(replica);
    }

    /// It has been told to stop.
    pub fn stopping(&self) {
        let mut phase = self.phase();
        if let Phase::Waiting(replica) | Phase::Running(replica) = &*phase {
            *phase = Phase::Stopping(replica.clone());
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known without asking the database.
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

    /// All that is known.
    pub(super) async fn status(&self) -> Status {
        let database = self.read().await;
        let local = self.local();
        let not_ready = local.not_ready();
        Status { ready: not_ready.is_none(), not_ready, local, database }
    }

    /// The ages of what waits in the database. While it cannot be read, they grow from the last reading: then nothing is
    /// collected and nothing is delivered, as far as this replica knows.
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
                DatabaseReading { error: Some(format!("the database did not answer within {READ_LIMIT:?}")), ..reading }
            }
        };
        *last = Some((Instant::now(), reading.clone()));
        reading
    }
}

impl LocalStatus {
    /// Why the replica is not ready, if it is not. A database that goes away later is no reason: tracking goes on, and
    /// all replicas would be taken out of service at once for what all of them have in common.
    pub(super) fn not_ready(&self) -> Option<String> {
        match (self.state, &self.tracker) {
            (State::Stopping, _) => Some("it stops".into()),
            (State::Running, Some(tracker)) if tracker.stopped => {
                Some("the tracker has ended by a panic, which its log shows; restart the process".into())
            }
            (State::Running, Some(tracker)) => match tracker.restart_wait_ms {
                Some(wait) => {
                    let failures = tracker.consecutive_restarts;
                    Some(format!("the component broke {failures} times in a row and is replaced after {wait} ms"))
                }
                None => self.socket_fault.clone(),
            },
            _ => match &self.connection_failure {
                Some(failure) => Some(format!("database: {failure}")),
                None => Some("database: it has not been reached yet, or the component does not run yet".into()),
            },
        }
    }
}

impl SocketTotals {
    fn of(reports: &[SocketReport]) -> Self {
        let sum = |number: fn(&SocketReport) -> u64| reports.iter().map(number).fold(0, u64::saturating_add);
        Self {
            sockets: reports.len() as u64,
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
