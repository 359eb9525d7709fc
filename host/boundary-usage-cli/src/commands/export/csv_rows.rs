//! Writes rows as CSV (RFC 4180). The last column is the fingerprint of the hashing key.

use std::io::{self, Write};

use csv::{ErrorKind, Writer};

use super::table::{Row, Table, Value};
use super::{Column, RowWriter};

/// A writer of CSV.
pub(super) struct CsvRows {
    csv: Writer<Box<dyn Write + Send>>,
    key_fingerprint: String,
}

impl CsvRows {
    /// Writes the header.
    pub(super) fn new(table: &Table, output: Box<dyn Write + Send>) -> io::Result<Self> {
        let mut csv = Writer::from_writer(output);
        let names = table.columns.iter().map(|Column { name, .. }| *name).chain(["key_fingerprint"]);
        csv.write_record(names).map_err(cause)?;
        Ok(Self { csv, key_fingerprint: table.key_fingerprint.clone() })
    }
}

impl RowWriter for CsvRows {
    fn write(&mut self, row: Row) -> io::Result<()> {
        let cells = row.iter().map(Value::text).chain([self.key_fingerprint.clone()]);
        self.csv.write_record(cells).map_err(cause)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.csv.flush()
    }
}

/// Returns the I/O error inside a CSV error, because the caller checks its kind.
fn cause(error: csv::Error) -> io::Error {
    match error.into_kind() {
        ErrorKind::Io(error) => error,
        other => io::Error::other(format!("cannot format a row: {other:?}")),
    }
}
