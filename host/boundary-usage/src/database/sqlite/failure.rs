//! What SQLite's errors mean for the caller.

use std::path::Path;

use crate::database::failure::{cause, refused, unavailable};
use crate::error::Error;

// Primary result codes, the low byte of what SQLite answers.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READ_ONLY: i32 = 8;
const INTERRUPTED: i32 = 9;
const IO: i32 = 10;
const FULL: i32 = 13;
const CANNOT_OPEN: i32 = 14;

/// The error of a statement: nothing is applied.
pub(super) fn of(action: &'static str, path: &Path, error: sqlx::Error) -> Error {
    let path = path.display();
    match code(&error) {
        Some(BUSY | LOCKED) => {
            let what = format!("{action} failed: another transaction has held `{path}` for more than 5 s");
            let hint = "it is tried again; if that does not pass, see who holds the file (`fuser` tells)";
            Error::Conflict { message: format!("{what}; {hint}") }
        }
        Some(CANNOT_OPEN) => {
            let hint = "see that this user may read the file, and to write usage also write it and its directory, and that \
                        the disk is not read-only";
            Error::Unavailable { action, source: format!("`{path}`: {}; {hint}", cause(error)).into() }
        }
        Some(INTERRUPTED | IO | FULL) => {
            Error::Unavailable { action, source: format!("`{path}`: {}", cause(error)).into() }
        }
        Some(READ_ONLY) => {
            let hint = "give this user the right to write the file and its directory";
            refused(action, format!("`{path}`: {}; {hint}", cause(error)))
        }
        // Damage, a constraint, a file that is not a database or cannot be written.
        Some(_) => refused(action, format!("`{path}`: {}", cause(error))),
        None => match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => refused(action, cause(error)),
            _ => unavailable(action, error),
        },
    }
}

/// The error of a commit. A write that failed may have reached the log all the same, for the next process that opens
/// the file after a crash to find; and a driver that broke down tells nothing.
pub(super) fn of_commit(path: &Path, error: sqlx::Error) -> Error {
    match code(&error) {
        Some(IO) | None => Error::CommitUnknown { source: cause(error) },
        Some(_) => of("committing", path, error),
    }
}

/// Whether someone else has the file.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(BUSY | LOCKED))
}

fn code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}
