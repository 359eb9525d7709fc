//! A C library around the host of the sandboxed usage tracker, for proxies that are not written in Rust.
//!
//! `include/boundary_usage.h` is generated from this file. Its introduction is `introduction.h`.
//!
//! | module | duty |
//! | --- | --- |
//! | `options` | the options of a tracker, as texts |
//! | `tracker` | runs a tracker on a thread of its own |
//! | `slots` | gives each process a state directory of its own |
//! | `status` | the status codes, and the last error of each thread |
//! | `log` | passes log messages and panics to the caller's function |
//! | `process` | leaves signals alone, and detects forks |

// This is the border to C: it converts raw pointers to references.
#![allow(unsafe_code)]
// The comments are also those of the header, and contain annotations for its generator.
#![allow(rustdoc::broken_intra_doc_links)]

mod log;
mod options;
mod process;
mod slots;
mod status;
mod tracker;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use uuid::Uuid;

pub use self::log::LogLevel;
pub use self::options::Options;
pub use self::status::Status;
use self::status::{Failure, guard};
pub use self::tracker::Tracker;

/// Returns the version of the library, such as "0.1.0". The string is static.
#[unsafe(no_mangle)]
pub extern "C" fn boundary_usage_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Creates options without values.
///
/// The caller releases them with `boundary_usage_options_free`. Returns NULL only after an internal error.
#[unsafe(no_mangle)]
pub extern "C" fn boundary_usage_options_new() -> *mut Options {
    guard(|| Ok(Box::into_raw(Box::default()))).unwrap_or(ptr::null_mut())
}

/// Sets an option. The names and values are those of the flags of `boundary-usage serve`.
///
/// | name | value | default |
/// | --- | --- | --- |
/// | database | `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE` | required |
/// | replica | UUID of this process | the one in `state-dir`, or else random |
/// | state-dir | directory of the checkpoint, which the next start restores after a crash | no checkpoint |
/// | state-slots | `on`: processes share `state-dir`, and each takes a slot in it | `off` |
/// | checkpoint-interval | time between checkpoints, such as `1s` | `1s` |
/// | flush-interval | time between flushes, such as `60s` | `60s` |
/// | flush-timeout | time limit of a flush | `30s` |
/// | shutdown-timeout | time limit of the last flush | `10s` |
/// | component | path of a component file | the component inside the library |
///
/// `boundary_usage_start` opens the database and the directory. So it reports most faults of their values. The function
/// copies both strings, which are UTF-8. Several threads must not use the same options simultaneously. It does not
/// block.
///
/// Returns BOUNDARY_USAGE_INVALID_ARGUMENT if the name is unknown or the value is invalid.
///
/// # Safety
///
/// `options` is a pointer from `boundary_usage_options_new`. Both texts end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_options_set(
    options: *mut Options,
    name: *const c_char,
    value: *const c_char,
) -> Status {
    guard(|| {
        // SAFETY: The caller passes NULL or a pointer from `boundary_usage_options_new`.
        let options = unsafe { options.as_mut() }.ok_or_else(|| null("options"))?;
        // SAFETY: The caller passes NULL or a string that ends with NUL.
        let (name, value) = unsafe { (text("name", name)?, text("value", value)?) };
        options.set(name, value)
    })
    .into()
}

/// Releases options. NULL is allowed.
///
/// # Safety
///
/// `options` is NULL or a pointer from `boundary_usage_options_new` that the caller uses no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_options_free(options: *mut Options) {
    if !options.is_null() {
        // SAFETY: `boundary_usage_options_new` has created it with `Box::into_raw`.
        let options = unsafe { Box::from_raw(options) };
        let _ = guard(|| {
            drop(options);
            Ok(())
        });
    }
}

/// Starts a tracker and stores it in `*tracker`, or stores NULL after an error.
///
/// Copies the options. The caller releases the tracker with `boundary_usage_free`. Blocks while it compiles the
/// component and connects to the database, usually for less than a second.
///
/// If PostgreSQL is down, the start succeeds if an earlier start on this `state-dir` was connected to the same
/// database. The tracker then records into its checkpoint and connects later. Otherwise the start returns
/// BOUNDARY_USAGE_UNAVAILABLE after 2 s at most, and the caller can try again.
///
/// # Safety
///
/// `options` is a pointer from `boundary_usage_options_new`. `*tracker` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_start(options: *const Options, tracker: *mut *mut Tracker) -> Status {
    guard(|| {
        // SAFETY: The caller passes NULL or a place for a pointer.
        let place = unsafe { tracker.as_mut() }.ok_or_else(|| null("tracker"))?;
        *place = ptr::null_mut();
        // SAFETY: The caller passes NULL or a pointer from `boundary_usage_options_new`.
        let options = unsafe { options.as_ref() }.ok_or_else(|| null("options"))?;
        *place = Box::into_raw(Box::new(Tracker::start(options)?));
        Ok(())
    })
    .into()
}

/// Records the activity of one batch of requests: marks both ids as active and adds both counts.
///
/// An id is the 16 bytes of a UUID in the order of its text (RFC 9562). Counts of 0 still record the ids. Any number of
/// threads may call this. It never waits for the database. It blocks only while the intake is full, which means that
/// activity arrives faster than the component takes it.
///
/// Returns BOUNDARY_USAGE_INVALID_ARGUMENT for a nil id, BOUNDARY_USAGE_STOPPED after a shutdown, and
/// BOUNDARY_USAGE_FORKED in a child process.
///
/// cbindgen:ptrs-as-arrays=[[workspace;16],[owner;16]]
///
/// # Safety
///
/// `tracker` is a pointer from `boundary_usage_start`. Both ids have 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_track(
    tracker: *mut Tracker,
    workspace: *const u8,
    owner: *const u8,
    allowed: u64,
    denied: u64,
) -> Status {
    // SAFETY: The caller passes NULL, or a tracker and ids that are valid during the call.
    unsafe {
        with_ids(tracker, workspace, owner, |tracker, workspace, owner| {
            tracker.track(workspace, owner, allowed, denied)
        })
    }
}

/// Records activity like `boundary_usage_track`, but never blocks.
///
/// Returns BOUNDARY_USAGE_FULL if the intake is full. The activity is then not recorded.
///
/// cbindgen:ptrs-as-arrays=[[workspace;16],[owner;16]]
///
/// # Safety
///
/// `tracker` is a pointer from `boundary_usage_start`. Both ids have 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_try_track(
    tracker: *mut Tracker,
    workspace: *const u8,
    owner: *const u8,
    allowed: u64,
    denied: u64,
) -> Status {
    // SAFETY: The caller passes NULL, or a tracker and ids that are valid during the call.
    unsafe {
        with_ids(tracker, workspace, owner, |tracker, workspace, owner| {
            tracker.try_track(workspace, owner, allowed, denied)
        })
    }
}

/// Writes all activity that was recorded before this call to the database.
///
/// The tracker also flushes at every `flush-interval`. Any thread may call this. Blocks until the flush has ended, at
/// most about twice `flush-timeout`. After any error, the next flush carries the activity.
///
/// # Safety
///
/// `tracker` is a pointer from `boundary_usage_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_flush(tracker: *mut Tracker) -> Status {
    guard(|| {
        // SAFETY: The caller passes NULL or a tracker that is valid during the call.
        unsafe { running(tracker)? }.flush()
    })
    .into()
}

/// Returns the tracker's counters and the state of its checkpoint as a JSON object.
///
/// The caller releases the string with `boundary_usage_string_free`. Any thread may call this. It does not block.
/// Returns NULL after an error.
///
/// # Safety
///
/// `tracker` is a pointer from `boundary_usage_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_status_json(tracker: *const Tracker) -> *mut c_char {
    guard(|| {
        // SAFETY: The caller passes NULL or a tracker that is valid during the call.
        let json = unsafe { running(tracker)? }.status_json()?;
        Ok(CString::new(json).map_err(Failure::internal)?.into_raw())
    })
    .unwrap_or(ptr::null_mut())
}

/// Releases a string of this library. NULL is allowed.
///
/// # Safety
///
/// `string` is NULL or a result of `boundary_usage_status_json` that the caller uses no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_string_free(string: *mut c_char) {
    if !string.is_null() {
        // SAFETY: `boundary_usage_status_json` has created it with `CString::into_raw`.
        drop(unsafe { CString::from_raw(string) });
    }
}

/// Refuses later activity, flushes for the last time and stops the tracker.
///
/// One thread calls it, once. Blocks until the last flush has succeeded or `shutdown-timeout` has passed, and the last
/// checkpoint has the same limit again. The caller still releases the tracker with `boundary_usage_free`.
///
/// After an error, the database lacks the activity since the last successful flush. With a `state-dir`, the next start
/// restores it.
///
/// # Safety
///
/// `tracker` is a pointer from `boundary_usage_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_shutdown(tracker: *mut Tracker) -> Status {
    guard(|| {
        // SAFETY: The caller passes NULL or a tracker that is valid during the call.
        unsafe { running(tracker)? }.shutdown()
    })
    .into()
}

/// Releases a tracker. NULL is allowed.
///
/// Shuts it down first if that has not happened, and then blocks like `boundary_usage_shutdown`. Ends all its threads
/// and closes its descriptors. No other thread may use the tracker during this call or after it. In a child process it
/// returns immediately and releases nothing, because the tracker's threads are in the parent.
///
/// # Safety
///
/// `tracker` is NULL or a pointer from `boundary_usage_start` that the caller uses no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_free(tracker: *mut Tracker) {
    if !tracker.is_null() {
        // SAFETY: `boundary_usage_start` has created it with `Box::into_raw`.
        let tracker = unsafe { Box::from_raw(tracker) };
        let _ = guard(|| {
            tracker.free();
            Ok(())
        });
    }
}

/// Returns the message of the last failed call of this thread, or an empty string.
///
/// Successful calls do not change it. The pointer is valid until the thread ends, and the thread's next failed call
/// changes the text. A text of more than 2,047 bytes is cut.
#[unsafe(no_mangle)]
pub extern "C" fn boundary_usage_last_error() -> *const c_char {
    status::last_error()
}

/// Sets the function that receives log messages, for all trackers of the process. NULL discards them, as at the start.
///
/// `level` is a `boundary_usage_log_level`. `message` is one line of UTF-8 and valid during the call. The threads of
/// this library call the function, several of them possibly simultaneously. It must not call this library. When
/// `boundary_usage_set_log` returns, no thread uses the previous function and context any more. It blocks until then.
///
/// # Safety
///
/// `sink` accepts `context` from any thread until another function is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn boundary_usage_set_log(
    sink: Option<unsafe extern "C" fn(level: c_int, message: *const c_char, context: *mut c_void)>,
    context: *mut c_void,
) {
    let _ = guard(|| {
        log::set(sink, context);
        Ok(())
    });
}

/// Calls a function of a running tracker with two ids.
///
/// # Safety
///
/// `tracker` is NULL or points to a tracker, and each id is NULL or points to 16 bytes, during the call.
unsafe fn with_ids(
    tracker: *const Tracker,
    workspace: *const u8,
    owner: *const u8,
    call: impl FnOnce(&Tracker, Uuid, Uuid) -> Result<(), Failure>,
) -> Status {
    guard(|| {
        // SAFETY: The caller's promise.
        let (tracker, workspace, owner) =
            unsafe { (running(tracker)?, id("workspace", workspace)?, id("owner", owner)?) };
        call(tracker, workspace, owner)
    })
    .into()
}

fn null(argument: &'static str) -> Failure {
    Failure::argument(format!("{argument} is NULL"))
}

/// Returns the tracker, unless the pointer is NULL or the tracker belongs to the parent process.
///
/// # Safety
///
/// `tracker` is NULL or points to a tracker for the lifetime `'a`.
unsafe fn running<'a>(tracker: *const Tracker) -> Result<&'a Tracker, Failure> {
    // SAFETY: The caller's promise.
    let tracker = unsafe { tracker.as_ref() }.ok_or_else(|| null("tracker"))?;
    if tracker.is_of_this_process() { Ok(tracker) } else { Err(Failure::forked()) }
}

/// Returns the UUID at a pointer.
///
/// # Safety
///
/// `bytes` is NULL or points to 16 bytes.
unsafe fn id(argument: &'static str, bytes: *const u8) -> Result<Uuid, Failure> {
    // SAFETY: The caller's promise. Arrays of bytes have no alignment.
    let bytes = unsafe { bytes.cast::<[u8; 16]>().as_ref() }.ok_or_else(|| null(argument))?;
    Ok(Uuid::from_bytes(*bytes))
}

/// Returns the text at a pointer.
///
/// # Safety
///
/// `text` is NULL or points to a string that ends with NUL and lives for `'a`.
unsafe fn text<'a>(argument: &'static str, text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(null(argument));
    }
    // SAFETY: The caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::argument(format!("{argument} is not UTF-8")))
}
