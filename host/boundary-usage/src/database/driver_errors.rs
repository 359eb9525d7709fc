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
        other => without_place(&other.to_string()).into(),
    }
}

/// Removes the place in the driver's source code, such as ` (sqlx_postgres::connection::tls:95)`, from a message.
fn without_place(message: &str) -> &str {
    message.split_once(" (sqlx_").map_or(message, |(message, _)| message)
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
pub(super) fn poisoned() -> Error {
    let message = "an earlier statement of this transaction failed or was abandoned; it is rolled back";
    Error::Refused { message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_driver_name_no_place_in_its_source() {
        let message = "unexpected response from SSLRequest: 0x00 (sqlx_postgres::connection::tls:95)";
        assert_eq!(without_place(message), "unexpected response from SSLRequest: 0x00");
        assert_eq!(without_place("no place (at all)"), "no place (at all)");
    }
}
