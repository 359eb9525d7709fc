//! The faults that the page shows, each with its meaning.

use super::format::counted;
use super::view::{SocketTotals, State, Status};

/// A fault.
pub(super) struct Fault {
    /// The severity, which is a CSS class of the page.
    pub(super) tone: &'static str,
    pub(super) what: String,
    pub(super) why: String,
}

/// Returns all current faults, then the faults since the start.
pub(super) fn of(status: &Status) -> Vec<Fault> {
    let bad = |what: &str, why: &str| Fault { tone: "bad", what: what.into(), why: why.into() };
    let mut faults = Vec::new();
    if let Some(tracker) = &status.local.tracker {
        let why = tracker.last_restart.as_deref().unwrap_or_default();
        if let (Some(_), Some(reason)) = (tracker.restart_wait_ms, &status.not_ready) {
            faults.push(bad(&format!("Nothing is flushed: {reason}."), why));
        } else if tracker.restarts > 0 {
            let what = format!(
                "The component crashed {} since the start. No activity was lost.",
                counted(tracker.restarts, "time", "times")
            );
            faults.push(Fault { tone: "waiting", what, why: why.into() });
        }
        if let Some(error) = &tracker.last_error {
            faults.push(bad("The last flush failed. The next flush carries its activity.", error));
        }
        if let Some(error) = tracker.checkpoint.as_ref().and_then(|checkpoint| checkpoint.last_error.as_ref()) {
            faults.push(bad("The checkpoint cannot be written. A crash would lose unflushed activity.", error));
        }
    }
    if let Some(fault) = &status.local.socket_fault {
        faults.push(bad("Clients cannot connect to an audit socket.", fault));
    }
    if let Some(error) = &status.database.error {
        let what = match status.database.at {
            Some(at) => {
                format!("The database cannot be read. The numbers below are from {}.", super::format::timestamp(at))
            }
            None if status.local.state == State::Starting => "Not ready: the database has not been reached yet.".into(),
            None => "The database cannot be read.".into(),
        };
        faults.push(bad(&what, error));
    }
    let damaged = status.database.status.iter().flat_map(|database| &database.damaged);
    faults.extend(damaged.map(|damage| bad("The period cannot be closed, because a row is damaged.", damage)));
    faults.extend(status.local.sockets.iter().flat_map(of_sockets));
    faults
}

/// Returns a fault for each kind of traffic that the sockets did not count.
fn of_sockets(sockets: &SocketTotals) -> Vec<Fault> {
    let why_dropped = "dropped by clients, because their queue was full or they had no connection";
    let counts = [
        (sockets.dropped_logs(), "log", "logs", why_dropped),
        (sockets.skipped_logs, "log", "logs", "not counted, because their resource was missing or unknown"),
        (sockets.refused_batches, "batch", "batches", "not counted, because they contained too many logs"),
        (sockets.undecodable_frames, "frame", "frames", "not counted, because their message could not be decoded"),
        (sockets.malformed_frames, "connection", "connections", "closed, because of a malformed frame"),
    ];
    let happened = counts.into_iter().filter(|(number, ..)| *number > 0);
    let fault = |(number, one, many, why): (u64, &str, &str, &str)| {
        let what = format!("{} since the start", counted(number, one, many));
        Fault { tone: "waiting", what, why: why.into() }
    };
    happened.map(fault).collect()
}
