//! Logs on stderr, and with the feature `opentelemetry` also traces.

use std::env;
use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::output;
use crate::printable;
#[cfg(feature = "opentelemetry")]
use crate::telemetry::Traces;

/// The logging of the process.
pub struct Logging {
    #[cfg(feature = "opentelemetry")]
    traces: Option<Traces>,
}

impl Logging {
    /// Starts logging.
    ///
    /// A verbosity of 0 logs warnings, 1 events, 2 details and 3 everything. Traces are sent from the given runtime.
    ///
    /// # Errors
    ///
    /// Returns an error if the environment names an invalid endpoint for traces.
    pub fn start(verbosity: u8, runtime: &Handle) -> Result<Self> {
        let stderr = tracing_subscriber::fmt::layer()
            .with_writer(|| Records)
            // Otherwise the layer reports a failed write on stderr, and panics if that write fails too.
            .log_internal_errors(false)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .with_filter(filter(verbosity));
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

    /// Sends the remaining traces.
    pub fn end(self) {
        #[cfg(feature = "opentelemetry")]
        self.traces.iter().for_each(Traces::end);
    }
}

/// Writes each record to stderr as one line without control characters.
struct Records;

impl Write for Records {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        // A record that cannot be written is lost, because the program's work must not depend on its log.
        let _ = io::stderr().write_all(&printable::log_record(record));
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the filter of RUST_LOG, or the default filter if it is not valid.
fn filter(verbosity: u8) -> Targets {
    let variable = env::var_os("RUST_LOG").filter(|filter| !filter.is_empty());
    let Some(filter) = variable else { return default_filter(verbosity) };
    let parsed = filter.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
    parsed.and_then(|filter| filter.parse::<Targets>().map_err(|error| error.to_string())).unwrap_or_else(|error| {
        output::print_error(&format!("ignoring RUST_LOG: not a valid log filter ({error})"));
        default_filter(verbosity)
    })
}

/// Returns the filter of a verbosity, which does not apply to libraries.
fn default_filter(verbosity: u8) -> Targets {
    let level = match verbosity {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let ours = ["boundary_usage", "boundary_usage_cli"].map(|target| (target, level));
    Targets::new().with_default(LevelFilter::WARN).with_targets(ours)
}
