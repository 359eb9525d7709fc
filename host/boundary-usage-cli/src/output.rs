//! The output of a command: its result on stdout, and errors on stderr.
//!
//! All output is free of control characters: see [`crate::printable`].

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::error::ContextValue;
use comfy_table::{Cell, CellAlignment, Row, Table, presets};
use serde::Serialize;

use crate::failure::{Failure, UsageError};
use crate::printable;

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text for people.
    #[default]
    Human,
    /// One JSON object on one line, for programs.
    Json,
    /// CSV for spreadsheets, of `report` and `export`.
    Csv,
    /// Apache Parquet for analytics engines, of `export` only.
    Parquet,
}

impl Format {
    /// Prints the result of a command that changed nothing.
    ///
    /// A closed pipe, as in `… | head -1`, is no failure.
    ///
    /// # Errors
    ///
    /// Returns an error if stdout cannot be written.
    pub fn print(self, result: &impl Serialize, human: impl FnOnce() -> String) -> Result<()> {
        print_bytes(self.render(result, human)?.as_bytes())
    }

    /// Prints the result of a change.
    ///
    /// If that fails, the error contains `done`, which describes the change. Otherwise the caller would believe that
    /// nothing was changed.
    ///
    /// # Errors
    ///
    /// Returns an error if stdout cannot be written, even if it is a closed pipe.
    pub fn print_change(
        self,
        result: &impl Serialize,
        human: impl FnOnce() -> String,
        done: impl FnOnce() -> String,
    ) -> Result<()> {
        let text = self.render(result, human)?;
        write_to_stdout(text.as_bytes()).with_context(|| format!("cannot write to stdout, but {}", done()))
    }

    fn render(self, result: &impl Serialize, human: impl FnOnce() -> String) -> Result<String> {
        let text = match self {
            // Commands that support CSV or Parquet write it themselves, and the other commands refuse these formats.
            Self::Human | Self::Csv | Self::Parquet => printable::lines(&human()),
            Self::Json => printable::json(&serde_json::to_string(result).context("cannot write the result as JSON")?),
        };
        Ok(text + "\n")
    }
}

/// Prints bytes unchanged. A closed pipe, as in `… | head -1`, is no failure.
///
/// # Errors
///
/// Returns an error if stdout cannot be written.
pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    match write_to_stdout(bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

fn write_to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush())
}

/// Prints a message to stderr. If stderr cannot be written, the message is lost.
pub fn print_error(message: &str) {
    // A single write keeps the messages of several processes apart.
    let _ = io::stderr().write_all(format!("{}\n", printable::lines(message)).as_bytes());
}

/// Formats an error and its causes as one message.
///
/// Only the program's own errors keep their newlines.
pub fn explain(error: &anyhow::Error) -> String {
    let causes = error.chain().map(|cause| {
        let text = cause.to_string();
        let is_our_own = cause.is::<UsageError>() || cause.is::<Failure>();
        if is_our_own { printable::lines(&text) } else { printable::line(&text) }
    });
    causes.collect::<Vec<_>>().join(": ")
}

/// Prints help and version on stdout, and errors of the parser on stderr.
pub fn print_parsed(mut error: clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let printed = error.print().and_then(|()| io::stdout().flush());
        return match printed {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                print_error(&format!("error: cannot write to stdout: {error}"));
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        };
    }
    let quoted = error.context().filter_map(|(kind, value)| match value {
        ContextValue::String(text) => Some((kind, ContextValue::String(printable::printable(text)))),
        _ => None,
    });
    for (kind, text) in quoted.collect::<Vec<_>>() {
        error.insert(kind, text);
    }
    let plain = error.to_string();
    if printable::lines(&plain) == plain {
        // This call prints colours if stderr is a terminal.
        let _ = error.print();
    } else {
        print_error(plain.trim_end());
    }
    ExitCode::from(2)
}

/// Formats a table.
///
/// If `numbers` is true, all columns except the first are aligned to the right.
pub fn table<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
    numbers: bool,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED.with_rounded_corners());
    table.set_header(row(header, numbers));
    for cells in rows {
        table.add_row(row(cells, numbers));
    }
    table.to_string()
}

fn row<T: ToString>(cells: impl IntoIterator<Item = T>, numbers: bool) -> Row {
    let cells = cells.into_iter().enumerate().map(|(column, text)| {
        let right = numbers && column > 0;
        Cell::new(printable::printable(text.to_string())).set_alignment(if right {
            CellAlignment::Right
        } else {
            CellAlignment::Left
        })
    });
    Row::from(cells.collect::<Vec<_>>())
}

/// Formats a time to the second.
pub fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_table_are_aligned_to_the_right() {
        let shown = table(["", "sent"], [["users".into(), "3".into()]], true);
        assert!(shown.contains("│ users ┆    3 │"), "{shown}");
    }

    #[test]
    fn a_table_cell_is_one_line_without_control_characters() {
        let shown = table(["", ""], [["a\nb".into(), "\x1b[31m\u{202e}".into()]], false);
        assert!(shown.contains(r"a\nb") && shown.contains(r"\u{1b}[31m\u{202e}"), "{shown}");
    }

    #[test]
    fn only_the_programs_own_errors_keep_their_newlines() {
        let cause = io::Error::other("ERROR: first\nDETAIL: \x1b[2Jsecond");
        let error = anyhow::Error::new(cause).context("cannot read a\nb");
        assert_eq!(explain(&error), r"cannot read a\nb: ERROR: first\nDETAIL: \u{1b}[2Jsecond");
        assert_eq!(explain(&Failure("stopped\nat line 3".into()).into()), "stopped\nat line 3");
        assert_eq!(explain(&UsageError("faults:\n  - \x1b".into()).into()), "faults:\n  - \\u{1b}");
    }

    #[test]
    fn a_timestamp_has_whole_seconds() {
        assert_eq!(timestamp(DateTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
    }
}
