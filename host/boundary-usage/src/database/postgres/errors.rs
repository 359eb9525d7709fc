//! Conversions of PostgreSQL's errors.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::database::driver_errors::{cause, refused, unavailable};
use crate::error::Error;

/// Converts the error of a failed statement, which has changed nothing.
///
/// The codes and their classes are those of the appendix "PostgreSQL Error Codes" in the manual.
pub(super) fn classify(action: &'static str, error: sqlx::Error) -> Error {
    let Some(reply) = reply(&error) else {
        return match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => refused(action, cause(error)),
            _ => unavailable(action, error),
        };
    };
    let code = reply.code();
    match code {
        // A lock timeout, a deadlock, or a serialization failure.
        "55P03" | "40P01" | "40001" => {
            let hint = "another transaction conflicts; the next attempt follows";
            Error::Conflict { message: format!("{action} failed: {}: {hint}", reply.message()) }
        }
        "42501" => {
            let hint = "grant the role boundary_usage_replica, boundary_usage_collector or boundary_usage_pruner, \
                        depending on the command";
            refused(action, format!("{}; {hint}", reply.message()))
        }
        // The role or the database does not exist, or the authentication failed.
        _ if code.starts_with("28") || code == "3D000" => refused(action, reply.message()),
        // A server in recovery refuses to begin a transaction that writes. The code has other meanings, too, but not
        // for this function of the server, which checks settings.
        "0A000" if reply.routine() == Some("call_bool_check_hook") => {
            let hint = "the server is a read-only standby; connect to the primary, or promote this server";
            Error::Unavailable { action, source: format!("{}: {hint}", reply.message()).into() }
        }
        // The statement exceeded its time limit, the transaction is read-only, or the server ended the session because
        // the transaction was idle or took too long.
        "57014" | "25006" | "25P03" | "25P04" => unavailable(action, error),
        // These classes are about data, constraints, transaction states, syntax and names. Such an error means that the
        // schema was changed or that a statement is wrong.
        _ if ["22", "23", "25", "42"].iter().any(|class| code.starts_with(class)) => {
            refused(action, format!("{} ({code})", reply.message()))
        }
        _ => unavailable(action, error),
    }
}

/// Adds the server's address to an error.
pub(super) fn at(address: &str, error: Error) -> Error {
    match error {
        Error::Unavailable { action, source } => {
            Error::Unavailable { action, source: format!("{address}: {source}").into() }
        }
        Error::Refused { message } => Error::Refused { message: format!("{address}: {message}") },
        other => other,
    }
}

/// Converts the error of a commit.
///
/// Only an ordinary error reply proves that nothing was applied. The server may have committed before it ended or
/// cancelled the session, or before a pooler lost its connection to the server.
pub(super) fn classify_commit(error: sqlx::Error) -> Error {
    let is_definite = reply(&error).is_some_and(|reply| {
        let code = reply.code();
        matches!(reply.severity(), PgSeverity::Error)
            && !["08", "57", "40003"].iter().any(|kind| code.starts_with(kind))
    });
    if is_definite { classify("committing", error) } else { Error::CommitUnknown { source: cause(error) } }
}

/// Converts the error of a cell that cannot be read.
pub(super) fn decoded<T>(result: Result<T, sqlx::Error>) -> Result<T, Error> {
    result.map_err(|error| classify("reading a row", error))
}

/// Returns whether a lock timed out.
pub(super) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    reply(error).is_some_and(|reply| reply.code() == "55P03")
}

/// Returns whether the role lacks a privilege.
pub(super) fn is_privilege(error: &sqlx::Error) -> bool {
    reply(error).is_some_and(|reply| reply.code() == "42501")
}

fn reply(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}
