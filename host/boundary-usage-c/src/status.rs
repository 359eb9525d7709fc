//! The status codes, and the last error of each thread.

use std::cell::UnsafeCell;
use std::ffi::c_char;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use boundary_usage::{Error, TrackError};

/// The result of a call. The message is in `boundary_usage_last_error`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The call succeeded.
    BoundaryUsageOk = 0,
    /// An argument is NULL or invalid, or an option is.
    BoundaryUsageInvalidArgument = 1,
    /// The intake is full. Only `boundary_usage_try_track` returns this.
    BoundaryUsageFull = 2,
    /// The tracker has been shut down.
    BoundaryUsageStopped = 3,
    /// The database is unavailable. Nothing was applied, and a later call can succeed.
    BoundaryUsageUnavailable = 4,
    /// Lost a race for a lock. Nothing was applied, and a later call can succeed.
    BoundaryUsageConflict = 5,
    /// A time limit has passed. The next flush determines whether this one was applied.
    BoundaryUsageTimedOut = 6,
    /// A commit had no reply. The next flush determines whether it was applied.
    BoundaryUsageCommitUnknown = 7,
    /// The database refuses the operation, for example because the login fails.
    BoundaryUsageRefused = 8,
    /// The component cannot be loaded, crashed, or violated its contract.
    BoundaryUsageComponent = 9,
    /// The state directory cannot be used, or another process uses it for the same replica.
    BoundaryUsageState = 10,
    /// The tracker belongs to the parent of this process.
    BoundaryUsageForked = 11,
    /// A fault of this library. Please report it.
    BoundaryUsageInternal = 12,
}

/// A failed call.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self { status: Status::BoundaryUsageInvalidArgument, message: message.into() }
    }

    pub(crate) fn forked() -> Self {
        let message = "the tracker belongs to the parent process; start another one after a fork";
        Self { status: Status::BoundaryUsageForked, message: message.to_owned() }
    }

    pub(crate) fn internal(error: impl Display) -> Self {
        Self { status: Status::BoundaryUsageInternal, message: format!("internal error: {error}") }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Unavailable { .. } => Status::BoundaryUsageUnavailable,
            Error::Conflict { .. } => Status::BoundaryUsageConflict,
            Error::CommitUnknown { .. } => Status::BoundaryUsageCommitUnknown,
            Error::Refused { .. } => Status::BoundaryUsageRefused,
            Error::Component { .. } => Status::BoundaryUsageComponent,
            Error::Configuration { .. } => Status::BoundaryUsageInvalidArgument,
            Error::State { .. } => Status::BoundaryUsageState,
            Error::Stopped => Status::BoundaryUsageStopped,
            Error::TimedOut { .. } => Status::BoundaryUsageTimedOut,
            _ => Status::BoundaryUsageInternal,
        };
        Self { status, message: format!("{:#}", anyhow::Error::from(error)) }
    }
}

impl From<TrackError> for Failure {
    fn from(error: TrackError) -> Self {
        let status = match &error {
            TrackError::NilId { .. } => Status::BoundaryUsageInvalidArgument,
            TrackError::Full { .. } => Status::BoundaryUsageFull,
            TrackError::Stopped => Status::BoundaryUsageStopped,
            _ => Status::BoundaryUsageInternal,
        };
        Self { status, message: error.to_string() }
    }
}

impl From<Result<(), Status>> for Status {
    fn from(result: Result<(), Status>) -> Self {
        result.err().unwrap_or(Self::BoundaryUsageOk)
    }
}

/// The length limit of a message with its NUL, in bytes.
const MESSAGE_BYTES: usize = 2_048;

thread_local! {
    /// The last message. It never moves, so a caller may keep the pointer.
    static LAST_ERROR: UnsafeCell<[u8; MESSAGE_BYTES]> = const { UnsafeCell::new([0; MESSAGE_BYTES]) };
}

/// Runs the body of a function of the interface.
///
/// Stores the message of a failure for the calling thread. A panic is a failure too, because it must not reach C.
pub(crate) fn guard<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Status> {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::internal("a panic, which the log describes"),
    };
    // A thread that is ending has no last error any more.
    let _ = LAST_ERROR.try_with(|last| store(&failure.message, last));
    Err(failure.status)
}

/// Stores a message that ends with NUL. Cuts a longer one at a character.
fn store(message: &str, last: &UnsafeCell<[u8; MESSAGE_BYTES]>) {
    let message = message.replace('\0', " ");
    let length = message.floor_char_boundary(MESSAGE_BYTES - 1);
    // SAFETY: Only this thread has access, and it holds no other reference. The caller reads between two calls.
    let last = unsafe { &mut *last.get() };
    last[..length].copy_from_slice(&message.as_bytes()[..length]);
    last[length] = 0;
}

/// Returns the message of the thread's last failure.
pub(crate) fn last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.get().cast_const().cast()).unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn message() -> String {
        // SAFETY: The pointer is valid until the next failure of this thread.
        unsafe { CStr::from_ptr(last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_is_an_internal_error() {
        let status = guard(|| -> Result<(), Failure> { panic!("for the test") });
        assert_eq!(Status::from(status), Status::BoundaryUsageInternal);
        assert!(message().starts_with("internal error"));
    }

    #[test]
    fn the_last_error_belongs_to_its_thread_and_outlives_successes() {
        let _ = guard(|| Err::<(), _>(Failure::argument("one\0two")));
        assert_eq!(Status::from(guard(|| Ok(()))), Status::BoundaryUsageOk);
        assert_eq!(message(), "one two");
        std::thread::spawn(|| assert_eq!(message(), "")).join().unwrap();
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let long = "é".repeat(MESSAGE_BYTES);
        let _ = guard(|| Err::<(), _>(Failure::argument(&*long)));
        assert_eq!(message(), "é".repeat((MESSAGE_BYTES - 1) / 2));
    }
}
