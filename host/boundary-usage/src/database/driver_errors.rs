//! Conversions of driver errors that both kinds of database share.

use std::fmt::Display;

use crate::error::{Cause, Error};

/// Returns the cause of a driver's error, without the driver's own prefix.
pub(super) fn cause(error: sqlx::Error) -> Cause {
    match error {
        // The reply's `Display` would add a line number of the server's source code, or an error code.
        sqlx::Error::Database(reply) => reply.message().to_owned().into(),
        sqlx::Error::Io(error) => Box::new(error),
        sqlx::Error::PoolTimedOut => {
            "all connections are in use, because the database or another transaction is slow".into()
        }
        sqlx::Error::PoolClosed => "the database was closed".into(),
        other => without_place(&other.to_string()).into(),
    }
}

/// Removes the place in the driver's source code, such as ` (sqlx_postgres::connection::tls:95)`, from a message.
fn without_place(message: &str) -> &str {
    message.split_once(" (sqlx_").map_or(message, |(message, _)| message)
}

/// Returns the error of a database that is unreachable or gave up waiting.
pub(super) fn unavailable(action: &'static str, error: sqlx::Error) -> Error {
    Error::Unavailable { action, source: cause(error) }
}

/// Returns the error of a failure that would recur at the next attempt.
pub(super) fn refused(action: &'static str, reason: impl Display) -> Error {
    Error::Refused { message: format!("{action} failed: {reason}") }
}

/// Returns the error of a transaction that is used after a statement failed or was abandoned.
pub(super) fn poisoned() -> Error {
    let message = "an earlier statement of this transaction failed or was abandoned; it is rolled back";
    Error::Refused { message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_messages_lose_the_position_in_its_source_code() {
        let message = "unexpected response from SSLRequest: 0x00 (sqlx_postgres::connection::tls:95)";
        assert_eq!(without_place(message), "unexpected response from SSLRequest: 0x00");
        assert_eq!(without_place("no place (at all)"), "no place (at all)");
    }
}
