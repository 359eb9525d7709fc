//! What can fail, sorted by what the caller can do about it.
//!
//! Messages say what failed and with what; the cause is in [`source`](std::error::Error::source) and nowhere else, so that
//! a printed chain says everything once. No message holds a password.

use std::time::Duration;

/// Any cause.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An operation that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database cannot be reached or gave up waiting; nothing was applied. Trying again later helps.
    #[error("the database is unavailable: {action} failed")]
    Unavailable {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Cause,
    },
    /// Someone else had the upper hand; nothing was applied. Trying again helps.
    #[error("{message}")]
    Conflict {
        /// Who or what was in the way.
        message: String,
    },
    /// A commit was sent and brought no reply. The tracker keeps the data, and its next flush finds out whether it counted.
    #[error("the outcome of the commit is unknown")]
    CommitUnknown {
        /// How the reply was lost.
        #[source]
        source: Cause,
    },
    /// Not allowed, or not understood; nothing was applied. Trying again does not help.
    #[error("refused: {message}")]
    Refused {
        /// What, and why.
        message: String,
    },
    /// The component cannot be loaded, or broke its contract.
    #[error("{message}")]
    Component {
        /// What is wrong with it, and what to do.
        message: String,
        /// What the component runtime says.
        #[source]
        source: Option<Cause>,
    },
    /// An option, a URL or an id that makes no sense.
    #[error("{message}")]
    Configuration {
        /// Which, its value, and what is expected.
        message: String,
    },
    /// The state directory cannot be used, or another process uses it for the same replica.
    #[error("{message}")]
    State {
        /// Which directory or file, and what to do.
        message: String,
        /// What the system says.
        #[source]
        source: Option<Cause>,
    },
    /// The tracker has been shut down.
    #[error("the tracker is stopped")]
    Stopped,
    /// A time limit ran out.
    #[error("{action} took longer than {}", humantime(limit))]
    TimedOut {
        /// What was waited for.
        action: &'static str,
        /// The limit.
        limit: Duration,
    },
}

impl Error {
    /// Whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Conflict { .. } | Self::CommitUnknown { .. } | Self::TimedOut { .. }
        )
    }
}

/// Activity that was not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// A workspace or an owner was the nil UUID, which names nobody.
    #[error("the {field} is the nil UUID; every workspace and every owner has an id of its own")]
    NilId {
        /// Which of the two.
        field: &'static str,
    },
    /// The intake is full: activity comes faster than the component takes it. Only from `try_track`.
    #[error("the intake is full: {capacity} activities wait for the component")]
    Full {
        /// How many it holds.
        capacity: usize,
    },
    /// The tracker has been shut down.
    #[error("the tracker is stopped")]
    Stopped,
}

/// An error and its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn humantime(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
