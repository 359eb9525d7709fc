//! Logs, to stderr: stdout is for answers. With the feature `opentelemetry`, traces too, to wherever the environment says.

use std::env;
use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use tokio::runtime::Handle;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::cli::Command;
use crate::output;
use crate::printable;
#[cfg(feature = "opentelemetry")]
use crate::telemetry::Traces;

/// The logging of a process.
pub struct Logging {
    #[cfg(feature = "opentelemetry")]
    traces: Option<Traces>,
}

impl Logging {
    /// Starts logging. `serve` says what happens even without `-v`: it runs for long, and its log is all it says. What is
    /// sent elsewhere is sent on that runtime.
    ///
    /// # Errors
    ///
    /// When the environment names a place for traces that cannot be used.
    pub fn start(command: &Command, verbosity: u8, runtime: &Handle) -> Result<Self> {
        let stderr = tracing_subscriber::fmt::layer()
            .with_writer(|| Records)
            // The layer would report a write that failed on stderr, and panic there.
            .log_internal_errors(false)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .with_filter(filter(command, verbosity));
        let subscriber = tracing_subscriber::registry().with(stderr);
        #[cfg(feature = "opentelemetry")]
        {
            let traces = Traces::from_environment(runtime)?;
            subscriber.with(traces.as_ref().map(Traces::layer)).init();
            Ok(Self { traces })
        }
        #[cfg(not(feature = "opentelemetry"))]
        {
            let _ = runtime;
            subscriber.init();
            Ok(Self {})
        }
    }

    /// Sends what is still to be sent.
    pub fn end(self) {
        #[cfg(feature = "opentelemetry")]
        self.traces.iter().for_each(Traces::end);
    }
}

/// Writes records to stderr. Each comes as a whole, and leaves as one line without foreign control characters.
struct Records;

impl Write for Records {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        // A log that cannot be written is lost: the program's work does not depend on it.
        let _ = io::stderr().write_all(&printable::log_record(record));
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The filter of RUST_LOG, or the default one if that variable is unset, empty or not a filter.
fn filter(command: &Command, verbosity: u8) -> EnvFilter {
    let level = match verbosity + u8::from(matches!(command, Command::Serve(_))) {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    // Libraries stay at warnings: what they say is for those who set RUST_LOG.
    let ours = format!("warn,boundary_usage={level},boundary_usage_cli={level}");
    let variable = env::var_os(EnvFilter::DEFAULT_ENV).filter(|filter| !filter.is_empty());
    let Some(filter) = variable else { return EnvFilter::new(ours) };
    let parsed = filter.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
    parsed.and_then(|filter| EnvFilter::try_new(filter).map_err(|error| error.to_string())).unwrap_or_else(|error| {
        output::print_error(&format!("RUST_LOG is not a filter for logs ({error}); it is ignored"));
        EnvFilter::new(ours)
    })
}
