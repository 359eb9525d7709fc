//! Conversions of SQLite's errors.

use std::path::Path;

use crate::database::driver_errors::{cause, refused, unavailable};
use crate::error::Error;

// Primary result codes: the low byte of SQLite's extended result codes.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READ_ONLY: i32 = 8;
const INTERRUPTED: i32 = 9;
const IO: i32 = 10;
const FULL: i32 = 13;
const CANNOT_OPEN: i32 = 14;

/// Converts the error of a failed statement, which has changed nothing.
pub(super) fn classify(action: &'static str, path: &Path, error: sqlx::Error) -> Error {
    let path = path.display();
    match code(&error) {
        Some(BUSY | LOCKED) => {
            let what = format!("{action} failed: another transaction has held `{path}` for more than 5 s");
            let hint = "the next attempt follows; if this persists, find the process with `fuser`";
            Error::Conflict { message: format!("{what}; {hint}") }
        }
        Some(CANNOT_OPEN) => {
            let hint = "this user must be able to read the file, and to write usage also the file and its directory; \
                        check also that the disk is not read-only";
            Error::Unavailable { action, source: format!("`{path}`: {}; {hint}", cause(error)).into() }
        }
        Some(INTERRUPTED | IO | FULL) => {
            Error::Unavailable { action, source: format!("`{path}`: {}", cause(error)).into() }
        }
        Some(READ_ONLY) => {
            let hint = "grant this user the right to write the file and its directory";
            refused(action, format!("`{path}`: {}; {hint}", cause(error)))
        }
        // The file is damaged or not a database, or a constraint is violated.
        Some(_) => refused(action, format!("`{path}`: {}", cause(error))),
        None => match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => refused(action, cause(error)),
            _ => unavailable(action, error),
        },
    }
}

/// Converts the error of a commit.
///
/// A failed write may still have reached the log, where the next process would find it after a crash. The outcome is
/// also unknown if the driver crashes.
pub(super) fn classify_commit(path: &Path, error: sqlx::Error) -> Error {
    match code(&error) {
        Some(IO) | None => Error::CommitUnknown { source: cause(error) },
        Some(_) => classify("committing", path, error),
    }
}

/// Returns the error of a file that was read without locks while another process changed it.
pub(super) fn changed(path: &Path) -> Error {
    let what = format!("`{}` changed while it was read", path.display());
    Error::Conflict { message: format!("{what}; read it again") }
}

/// Returns whether another process has locked the file.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(BUSY | LOCKED))
}

fn code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// An error of SQLite with this extended result code.
    #[derive(Debug, thiserror::Error)]
    #[error("code {0}")]
    struct Code(i32);

    impl DatabaseError for Code {
        fn message(&self) -> &str {
            "a message of SQLite"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.to_string().into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn error(code: i32) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Code(code)))
    }

    fn kind(error: Error) -> &'static str {
        match error {
            Error::Conflict { .. } => "conflict",
            Error::Unavailable { .. } => "unavailable",
            Error::Refused { message } if message.contains("the right to write") => "read-only",
            Error::Refused { .. } => "refused",
            Error::CommitUnknown { .. } => "unknown",
            _ => "other",
        }
    }

    #[test]
    fn result_codes_determine_the_errors_of_statements_and_commits() {
        let path = Path::new("usage.db");
        for (code, of_statement, of_a_commit) in [
            (BUSY, "conflict", "conflict"),
            (LOCKED, "conflict", "conflict"),
            (BUSY | (2 << 8), "conflict", "conflict"),
            (READ_ONLY, "read-only", "read-only"),
            (INTERRUPTED, "unavailable", "unavailable"),
            (IO, "unavailable", "unknown"),
            (IO | (3 << 8), "unavailable", "unknown"),
            (FULL, "unavailable", "unavailable"),
            (CANNOT_OPEN, "unavailable", "unavailable"),
            (11, "refused", "refused"),
        ] {
            assert_eq!(kind(classify("writing", path, error(code))), of_statement, "{code}");
            assert_eq!(kind(classify_commit(path, error(code))), of_a_commit, "{code}");
            assert_eq!(is_busy(&error(code)), of_statement == "conflict", "{code}");
        }
        assert!(classify("opening", path, error(CANNOT_OPEN)).to_string().contains("opening"));
    }

    #[test]
    fn a_missing_column_is_refused_and_a_crashed_driver_is_unavailable() {
        let path = Path::new("usage.db");
        assert_eq!(kind(classify("reading", path, sqlx::Error::ColumnNotFound("x".into()))), "refused");
        assert_eq!(kind(classify("reading", path, sqlx::Error::WorkerCrashed)), "unavailable");
        assert_eq!(kind(classify_commit(path, sqlx::Error::WorkerCrashed)), "unknown");
    }
}
