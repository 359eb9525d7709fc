//! The errors of the library, grouped by what the caller can do about them.
//!
//! A message names the failed operation and the value. The cause is in [`source`](std::error::Error::source) only, so a
//! printed chain states each fact once. No message contains a password.

use std::time::Duration;

/// The cause of an error.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failed operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database is unreachable or gave up waiting. Nothing was applied. Try again later.
    #[error("the database is unavailable: {action} failed")]
    Unavailable {
        /// The operation that failed.
        action: &'static str,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// Lost a race: a lock timed out, or a newer flush was already applied. Nothing was applied. Try again.
    #[error("{message}")]
    Conflict {
        /// The lock or the flush that was in the way.
        message: String,
    },
    /// A commit had no reply, so it may have been applied. The tracker's next flush resolves the doubt.
    #[error("the outcome of the commit is unknown")]
    CommitUnknown {
        /// The reason why there was no reply.
        #[source]
        source: Cause,
    },
    /// The operation is not allowed or makes no sense. Nothing was applied. Do not try again.
    #[error("refused: {message}")]
    Refused {
        /// The refused operation, and the reason.
        message: String,
    },
    /// The component cannot be loaded, crashed, or violated its contract.
    #[error("{message}")]
    Component {
        /// The fault, and what to do.
        message: String,
        /// The error of the component runtime.
        #[source]
        source: Option<Cause>,
    },
    /// An option, a URL or an id is invalid.
    #[error("{message}")]
    Configuration {
        /// The name, the value, and what is expected.
        message: String,
    },
    /// The state directory cannot be used, or another process uses it for the same replica.
    #[error("{message}")]
    State {
        /// The directory or file, and what to do.
        message: String,
        /// The error of the operating system.
        #[source]
        source: Option<Cause>,
    },
    /// The tracker has been shut down.
    #[error("the tracker is stopped")]
    Stopped,
    /// An operation exceeded its time limit.
    #[error("{action} took longer than {}", humantime(limit))]
    TimedOut {
        /// The operation.
        action: &'static str,
        /// The limit.
        limit: Duration,
    },
}

impl Error {
    /// Returns whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Conflict { .. } | Self::CommitUnknown { .. } | Self::TimedOut { .. }
        )
    }
}

/// The reason why `track` did not accept an activity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// The workspace or the owner was the nil UUID.
    #[error("the {field} is the nil UUID; every workspace and every owner has an id of its own")]
    NilId {
        /// The name of the field: `workspace` or `owner`.
        field: &'static str,
    },
    /// The intake is full, because activity arrives faster than the component takes it. Only `try_track` returns this
    /// error.
    #[error("the intake is full: {capacity} activities wait for the component")]
    Full {
        /// The capacity of the intake.
        capacity: usize,
    },
    /// The tracker has been shut down.
    #[error("the tracker is stopped")]
    Stopped,
}

/// Formats an error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn humantime(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
