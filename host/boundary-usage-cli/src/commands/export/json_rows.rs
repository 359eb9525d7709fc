//! Writes the rows one after the other, as parts of one JSON object on one line.

use std::io::{self, BufWriter, Write};

use super::table::{Row, Table, Value};
use super::{Column, RowWriter};

/// A writer of JSON.
pub(super) struct JsonRows {
    output: BufWriter<Box<dyn Write + Send>>,
    columns: &'static [Column],
    has_rows: bool,
}

impl JsonRows {
    /// Writes the beginning of the object.
    pub(super) fn new(table: &Table, output: Box<dyn Write + Send>) -> io::Result<Self> {
        let mut output = BufWriter::new(output);
        let key_fingerprint = serde_json::to_string(&table.key_fingerprint)?;
        write!(output, r#"{{"key_fingerprint":{key_fingerprint},"{}":["#, table.name)?;
        Ok(Self { output, columns: table.columns, has_rows: false })
    }
}

impl RowWriter for JsonRows {
    fn write(&mut self, row: Row) -> io::Result<()> {
        let mut separator = if std::mem::replace(&mut self.has_rows, true) { ",{" } else { "{" };
        for (Column { name, .. }, value) in self.columns.iter().zip(&row) {
            write!(self.output, r#"{separator}"{name}":{}"#, json(value))?;
            separator = ",";
        }
        self.output.write_all(b"}")
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.output.write_all(b"]}\n")?;
        self.output.flush()
    }
}

/// Returns a value as JSON. Dates, times and base64 need no escape.
fn json(value: &Value) -> String {
    match value {
        Value::Count(_) | Value::Id(_) | Value::Flag(_) => value.text(),
        Value::Date(_) | Value::Time(_) | Value::Bytes(_) => format!(r#""{}""#, value.text()),
        Value::Absent => "null".to_owned(),
    }
}
