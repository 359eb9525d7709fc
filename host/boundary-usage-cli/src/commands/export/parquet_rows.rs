//! Writes rows as Apache Parquet. The last column is the fingerprint of the hashing key.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use chrono::NaiveDate;
use parquet::basic::Encoding;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::table::{Kind, Row, Table, Value};
use super::{Column, RowWriter};

/// The limits of a row group, whose rows are in memory until the group is written. The sketches of a day have up to 262
/// kB.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
const GROUP_ROWS: usize = 10_000;

/// The name of the last column.
const KEY_FINGERPRINT: &str = "key_fingerprint";

type Output = Box<dyn Write + Send>;

/// A writer of Parquet.
pub(super) struct ParquetRows {
    file: SerializedFileWriter<Output>,
    columns: &'static [Column],
    key_fingerprint: ByteArray,
    /// The rows of the next row group.
    rows: Vec<Row>,
    bytes: usize,
}

impl ParquetRows {
    /// Writes the header.
    pub(super) fn new(table: &Table, output: Output) -> io::Result<Self> {
        let schema = Arc::new(parse_message_type(&schema(table)).map_err(cause)?);
        let mut properties = WriterProperties::builder().set_created_by(created_by());
        for Column { name, .. } in table.columns.iter().filter(|column| column.kind == Kind::Bytes) {
            // Dictionaries and statistics are useless here, because sketches do not repeat and their order has no
            // meaning.
            let path = ColumnPath::from(*name);
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
            properties = properties.set_column_encoding(path.clone(), Encoding::PLAIN);
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
        let file = SerializedFileWriter::new(output, schema, Arc::new(properties.build())).map_err(cause)?;
        let key_fingerprint = table.key_fingerprint.as_str().into();
        Ok(Self { file, columns: table.columns, key_fingerprint, rows: Vec::new(), bytes: 0 })
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for (index, column) in self.columns.iter().enumerate() {
            write_column(&mut group, column.kind, rows.iter().map(|row| &row[index]))?;
        }
        write_values::<ByteArrayType>(&mut group, &vec![self.key_fingerprint.clone(); rows.len()], None)?;
        group.close()?;
        Ok(())
    }
}

impl RowWriter for ParquetRows {
    fn write(&mut self, row: Row) -> io::Result<()> {
        self.bytes +=
            row.iter().map(|value| if let Value::Bytes(bytes) = value { bytes.len() } else { 8 }).sum::<usize>();
        self.rows.push(row);
        if self.rows.len() >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.write_group().map_err(cause)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.write_group().map_err(cause)?;
        self.file.finish().map_err(cause)?;
        self.file.inner_mut().flush()
    }
}

fn created_by() -> String {
    format!("boundary-usage version {}", env!("CARGO_PKG_VERSION"))
}

/// Returns the schema in Parquet's text form.
fn schema(table: &Table) -> String {
    let mut schema = "message boundary_usage {\n".to_owned();
    for Column { name, kind } in table.columns {
        let (repetition, physical, logical) = match kind {
            Kind::Count | Kind::Id => ("REQUIRED", "INT64", ""),
            Kind::Flag => ("REQUIRED", "BOOLEAN", ""),
            Kind::Date => ("REQUIRED", "INT32", " (DATE)"),
            Kind::Time => ("REQUIRED", "INT64", " (TIMESTAMP(MICROS,true))"),
            Kind::OptionalTime => ("OPTIONAL", "INT64", " (TIMESTAMP(MICROS,true))"),
            Kind::Bytes => ("REQUIRED", "BYTE_ARRAY", ""),
        };
        writeln!(schema, "{repetition} {physical} {name}{logical};").expect("writing to a string succeeds");
    }
    schema + &format!("REQUIRED BYTE_ARRAY {KEY_FINGERPRINT} (STRING);\n}}")
}

fn write_column<'a>(
    group: &mut SerializedRowGroupWriter<'_, Output>,
    kind: Kind,
    values: impl Iterator<Item = &'a Value>,
) -> Result<(), ParquetError> {
    match kind {
        Kind::Count | Kind::Id | Kind::Time => {
            write_values::<Int64Type>(group, &values.filter_map(integer).collect::<Vec<_>>(), None)
        }
        Kind::OptionalTime => {
            let values: Vec<_> = values.map(integer).collect();
            let levels: Vec<_> = values.iter().map(|value| i16::from(value.is_some())).collect();
            write_values::<Int64Type>(group, &values.into_iter().flatten().collect::<Vec<_>>(), Some(&levels))
        }
        Kind::Flag => {
            let flags = values.map(|value| matches!(value, Value::Flag(true)));
            write_values::<BoolType>(group, &flags.collect::<Vec<_>>(), None)
        }
        Kind::Date => write_values::<Int32Type>(group, &values.filter_map(date).collect::<Vec<_>>(), None),
        Kind::Bytes => write_values::<ByteArrayType>(group, &values.filter_map(bytes).collect::<Vec<_>>(), None),
    }
}

/// Writes the next column of a row group. `levels` has 0 for each absent value of an optional column.
fn write_values<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Output>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column =
        group.next_column()?.ok_or_else(|| ParquetError::General("the schema has too few columns".into()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Count(count) => Some(i64::try_from(*count).unwrap_or(i64::MAX)),
        Value::Id(id) => Some(*id),
        Value::Time(time) => Some(time.timestamp_micros()),
        _ => None,
    }
}

/// Returns the days since 1970.
fn date(value: &Value) -> Option<i32> {
    let Value::Date(date) = value else { return None };
    Some(date.signed_duration_since(NaiveDate::default()).num_days() as i32)
}

fn bytes(value: &Value) -> Option<ByteArray> {
    let Value::Bytes(bytes) = value else { return None };
    Some(bytes.clone().into())
}

/// Returns the I/O error inside a Parquet error, if there is one. The caller checks the kind of that error.
fn cause(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        other => io::Error::other(other),
    }
}
