//! Log messages and panics, for the caller's function.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::{self, Write};
use std::panic;
use std::sync::{Once, PoisonError, RwLock};

use tracing::{Level, Metadata};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

/// The level of a log message.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something needs attention: counts may get lost.
    BoundaryUsageLogError = 1,
    /// An operation failed, and the tracker repeats it.
    BoundaryUsageLogWarning = 2,
    /// An event of normal operation.
    BoundaryUsageLogInfo = 3,
}

type Function = unsafe extern "C" fn(level: c_int, message: *const c_char, context: *mut c_void);

struct Sink {
    function: Option<Function>,
    context: *mut c_void,
}

// SAFETY: The caller of `boundary_usage_set_log` promises that any thread may use the context.
unsafe impl Send for Sink {}
// SAFETY: As above. The lock below is held for reading during each call.
unsafe impl Sync for Sink {}

static SINK: RwLock<Sink> = RwLock::new(Sink { function: None, context: std::ptr::null_mut() });

/// Sets the caller's function. Waits until no thread uses the previous one.
pub(crate) fn set(function: Option<Function>, context: *mut c_void) {
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = Sink { function, context };
}

/// Begins to pass messages of the library and its panics to the caller's function.
///
/// Panics would otherwise be written to the process's stderr.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        panic::set_hook(Box::new(|panic| pass(LogLevel::BoundaryUsageLogError, &format!("internal error: {panic}"))));
        // A span would allocate memory that the subscriber never releases.
        let targets = Targets::new().with_default(Level::WARN).with_target("boundary_usage", Level::INFO);
        let layer = tracing_subscriber::fmt::layer()
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false)
            .log_internal_errors(false)
            .with_writer(Writers)
            .with_filter(targets.and(filter_fn(|metadata| metadata.is_event())));
        // This copy of the library sets no other subscriber.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    });
}

/// Passes one line to the caller's function.
fn pass(level: LogLevel, line: &str) {
    let printable: String =
        line.trim_end().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let Ok(line) = CString::new(printable) else { return };
    let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(function) = sink.function {
        // SAFETY: The caller of `boundary_usage_set_log` promises that the function accepts the context.
        unsafe { function(level as c_int, line.as_ptr(), sink.context) };
    }
}

/// The place of the formatter's output.
struct Writers;

/// Collects one message, and passes it when dropped.
struct Line {
    level: LogLevel,
    text: Vec<u8>,
}

impl MakeWriter<'_> for Writers {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { level: LogLevel::BoundaryUsageLogInfo, text: Vec::new() }
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> Line {
        let level = match *metadata.level() {
            Level::ERROR => LogLevel::BoundaryUsageLogError,
            Level::WARN => LogLevel::BoundaryUsageLogWarning,
            _ => LogLevel::BoundaryUsageLogInfo,
        };
        Line { level, text: Vec::new() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        pass(self.level, &String::from_utf8_lossy(&self.text));
    }
}
