//! The program's own errors, whose messages may have several lines.
//!
//! Text from outside that is part of such a message must be [printable](crate::printable).

/// An error that the user of the program can correct, with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Another failure of a command, with exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);
