//! What a command answers, on stdout: tables and sentences for people, one line of JSON for programs.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::{Cell, CellAlignment, Row, Table, presets};
use serde::Serialize;

/// For whom the output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// For programs: one JSON object on one line.
    Json,
}

impl Format {
    /// Prints an answer in this format.
    ///
    /// # Errors
    ///
    /// When stdout cannot be written to.
    pub fn print(self, answer: &impl Serialize, human: impl FnOnce() -> String) -> Result<()> {
        match self {
            Self::Human => print(&human()),
            Self::Json => print(&serde_json::to_string(answer).context("cannot write the answer as JSON")?),
        }
    }
}

/// Prints a line.
fn print(text: &str) -> Result<()> {
    print_bytes(format!("{text}\n").as_bytes())
}

/// Prints a file's content as it is. A reader that has gone away, as in `… | head -1`, is no failure.
///
/// # Errors
///
/// When stdout cannot be written to.
pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

/// A table; the columns from the second on are set to the right when `numbers` is.
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
        Cell::new(text.to_string()).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
    });
    Row::from(cells.collect::<Vec<_>>())
}

/// A moment, to the second.
pub fn moment(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_sets_numbers_to_the_right() {
        let shown = table(["", "sent"], [["users".into(), "3".into()]], true);
        assert!(shown.contains("│ users ┆    3 │"), "{shown}");
    }

    #[test]
    fn a_moment_is_shown_to_the_second() {
        assert_eq!(moment(DateTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
    }
}
