//! Rows as one JSON object on one line, written row by row.

use std::io::{self, BufWriter, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};

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
        if std::mem::replace(&mut self.has_rows, true) {
            self.output.write_all(b",")?;
        }
        self.output.write_all(&serde_json::to_vec(&Object { columns: self.columns, row: &row })?)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.output.write_all(b"]}\n")?;
        self.output.flush()
    }
}

/// A row as a JSON object with its members in the order of the columns.
struct Object<'a> {
    columns: &'a [Column],
    row: &'a [Value],
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.columns.len()))?;
        for (Column { name, .. }, value) in self.columns.iter().zip(self.row) {
            match value {
                Value::Count(count) => object.serialize_entry(name, count)?,
                Value::Id(id) => object.serialize_entry(name, id)?,
                Value::Flag(flag) => object.serialize_entry(name, flag)?,
                Value::Absent => object.serialize_entry(name, &())?,
                Value::Date(_) | Value::Time(_) | Value::Bytes(_) => object.serialize_entry(name, &value.text())?,
            }
        }
        object.end()
    }
}
