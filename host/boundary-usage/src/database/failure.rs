//! From the errors of the database driver to ours, as far as both kinds of database agree.

use std::fmt::Display;

use crate::error::{Cause, Error};

/// What lies behind a driver's error, without the words that the driver puts around it.
pub(super) fn cause(error: sqlx::Error) -> Cause {
    match error {
        // Its own display adds a line of the server's source code, or a number.
        sqlx::Error::Database(reply) => reply.message().to_owned().into(),
        sqlx::Error::Io(error) => Box::new(error),
        sqlx::Error::PoolTimedOut => {
            "all connections were in use; the database, or another transaction, is slow".into()
        }
        sqlx::Error::PoolClosed => "the database was closed".into(),
        other => other.to_string().into(),
    }
}

/// The database cannot be reached, or gave up.
pub(super) fn unavailable(action: &'static str, error: sqlx::Error) -> Error {
    Error::Unavailable { action, source: cause(error) }
}

/// The database answered, and will answer the same the next time.
pub(super) fn refused(action: &'static str, reason: impl Display) -> Error {
    Error::Refused { message: format!("{action} failed: {reason}") }
}

/// The transaction is used again after a statement failed or was abandoned.
pub(super) fn unfinished() -> Error {
    let message = "an earlier statement of this transaction failed or was abandoned; it is rolled back";
    Error::Refused { message: message.to_owned() }
}
