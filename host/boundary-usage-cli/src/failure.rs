//! The program's own errors. Their messages may have several lines.
//!
//! Text from outside that is part of such a message must be [printable](crate::printable).

/// An error that the caller of the program can correct. Its exit code is 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Another failure of a command. Its exit code is 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);
