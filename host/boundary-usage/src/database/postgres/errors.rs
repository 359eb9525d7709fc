//! What PostgreSQL's errors mean for the caller.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::database::driver_errors::{cause, refused, unavailable};
use crate::error::Error;

/// The error of a statement: nothing is applied. Classes are those of the manual's appendix of error codes.
pub(super) fn classify(action: &'static str, error: sqlx::Error) -> Error {
    let Some(reply) = reply(&error) else {
        return match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => refused(action, cause(error)),
            _ => unavailable(action, error),
        };
    };
    let code = reply.code();
    match code {
        // A lock not granted in time; a deadlock; a serialization failure.
        "55P03" | "40P01" | "40001" => {
            let hint = "another transaction was in the way; it is tried again";
            Error::Conflict { message: format!("{action} failed: {}: {hint}", reply.message()) }
        }
        "42501" => {
            let hint = "grant the role boundary_usage_replica or boundary_usage_collector, whichever it needs";
            refused(action, format!("{}; {hint}", reply.message()))
        }
        // A login or a database that does not exist, or a login that is not let in.
        _ if code.starts_with("28") || code == "3D000" => refused(action, reply.message()),
        // A statement's time limit; a server that only reads, as a standby does until it takes over; a session that the
        // server ended because it was idle in its transaction, or its transaction took too long.
        "57014" | "25006" | "25P03" | "25P04" => unavailable(action, error),
        // Data, constraints, transaction states, syntax and names: our statements or a schema that was tampered with.
        _ if ["22", "23", "25", "42"].iter().any(|class| code.starts_with(class)) => {
            refused(action, format!("{} ({code})", reply.message()))
        }
        _ => unavailable(action, error),
    }
}

/// The same error, which says at which address the server is.
pub(super) fn at(address: &str, error: Error) -> Error {
    match error {
        Error::Unavailable { action, source } => {
            Error::Unavailable { action, source: format!("{address}: {source}").into() }
        }
        Error::Refused { message } => Error::Refused { message: format!("{address}: {message}") },
        other => other,
    }
}

/// The error of a commit. Only an ordinary error reply says for certain that nothing was applied: a session that ends
/// or is cancelled, and a pooler that lost the server, may say so after the commit was done.
pub(super) fn classify_commit(error: sqlx::Error) -> Error {
    let is_definite = reply(&error).is_some_and(|reply| {
        let code = reply.code();
        matches!(reply.severity(), PgSeverity::Error)
            && !["08", "57", "40003"].iter().any(|kind| code.starts_with(kind))
    });
    if is_definite { classify("committing", error) } else { Error::CommitUnknown { source: cause(error) } }
}

/// A cell that cannot be read.
pub(super) fn decoded<T>(result: Result<T, sqlx::Error>) -> Result<T, Error> {
    result.map_err(|error| classify("reading a row", error))
}

/// Whether the wait for a lock took too long.
pub(super) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    reply(error).is_some_and(|reply| reply.code() == "55P03")
}

/// Whether the role lacks a privilege.
pub(super) fn is_privilege(error: &sqlx::Error) -> bool {
    reply(error).is_some_and(|reply| reply.code() == "42501")
}

fn reply(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}
