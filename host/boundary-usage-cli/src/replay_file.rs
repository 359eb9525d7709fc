//! The files that `replay` reads: JSON Lines in UTF-8, one object on each line.
//!
//! ```text
//! {"workspace":"0193a1b2-…","owner":"0193a1b2-…","allowed":1,"denied":0}
//! ```

use std::io::{self, BufRead};

use boundary_usage::Activity;
use serde::Deserialize;
use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::printable::printable;

/// The length limit of a line. An activity needs about 150 bytes.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// A line of a recording.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The line number, counted from 1. Blank lines count.
    pub number: u64,
    /// The number of bytes in the file, including the end of the line.
    pub bytes: u64,
    /// The activity, or `None` if the line is blank.
    pub content: Option<Result<Activity, BadLine>>,
}

/// The reason why a line is not an activity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// The line is too long, and is not kept in memory.
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// The line begins with a JSON value that is not an object.
    #[error("expected a JSON object, found {0}; write one object per line")]
    NotAnObject(&'static str),
    /// The object does not end on this line.
    #[error("the object does not end on this line; write one object per line")]
    Unfinished,
    /// A count has more than 64 bits.
    #[error("`{field}` is {count}; the limit is {}", u64::MAX)]
    TooGreat {
        /// The name of the count.
        field: &'static str,
        /// The value of the count.
        count: u128,
    },
    /// The line is not JSON, or a member is missing, unknown or invalid.
    #[error("{0}")]
    NotAnActivity(String),
    /// An id is the nil UUID.
    #[error("the {0} is the nil UUID, which is not a valid id")]
    NilId(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    workspace: Uuid,
    owner: Uuid,
    allowed: u64,
    denied: u64,
}

/// A record whose counts may have more than 64 bits.
#[derive(Deserialize)]
struct WideRecord {
    #[serde(rename = "workspace")]
    _workspace: IgnoredAny,
    #[serde(rename = "owner")]
    _owner: IgnoredAny,
    allowed: u128,
    denied: u128,
}

/// The number of bytes at the start of a file that determine its format.
pub const FORMAT_BYTES: usize = 8;

/// The error of a file that is not text in UTF-8.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{format}, not JSON Lines in UTF-8; convert it first: {command}")]
pub struct ForeignFormat {
    /// A description of the format.
    format: &'static str,
    /// The command that converts the file.
    command: &'static str,
}

/// Formats that begin with fixed bytes.
///
/// UTF-32 comes first, because its byte order mark begins with that of UTF-16.
const FORMATS: [(&[u8], &str, &str); 10] = [
    (b"\x1f\x8b", "it is compressed by gzip", "gzip -dc FILE | boundary-usage replay -"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd", "zstd -dc FILE | boundary-usage replay -"),
    (b"\xfd7zXZ", "it is compressed by xz", "xz -dc FILE | boundary-usage replay -"),
    (b"BZh", "it is compressed by bzip2", "bzip2 -dc FILE | boundary-usage replay -"),
    (b"\x04\x22\x4d\x18", "it is compressed by lz4", "lz4 -dc FILE | boundary-usage replay -"),
    (b"PK\x03\x04", "it is a zip archive", "unzip -p FILE | boundary-usage replay -"),
    (b"\xff\xfe\0\0", "it is in UTF-32", UTF_32),
    (b"\0\0\xfe\xff", "it is in UTF-32", UTF_32),
    (b"\xff\xfe", "it is in UTF-16", UTF_16),
    (b"\xfe\xff", "it is in UTF-16", UTF_16),
];
const UTF_32: &str = "iconv -f UTF-32 -t UTF-8 FILE | boundary-usage replay -";
const UTF_16: &str = "iconv -f UTF-16 -t UTF-8 FILE | boundary-usage replay -";

/// The byte order mark of UTF-8.
///
/// This mark may be in the middle of a file, because `cat` copies it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Checks the first [`FORMAT_BYTES`] of a file, or all bytes of a shorter file.
///
/// # Errors
///
/// Returns an error if the file must be converted first.
pub fn check_format(start: &[u8]) -> Result<(), ForeignFormat> {
    let known = FORMATS.iter().find(|(magic, ..)| start.starts_with(magic));
    // In UTF-16 and UTF-32, an ASCII character has zero bytes beside it. JSON in UTF-8 has no zero bytes.
    let by_zeros = || match start {
        [0, 0, 0, 1..=255, ..] => {
            Some(("it is in UTF-32", "iconv -f UTF-32BE -t UTF-8 FILE | boundary-usage replay -"))
        }
        [1..=255, 0, 0, 0, ..] => {
            Some(("it is in UTF-32", "iconv -f UTF-32LE -t UTF-8 FILE | boundary-usage replay -"))
        }
        [0, 1..=255, ..] => Some(("it is in UTF-16", "iconv -f UTF-16BE -t UTF-8 FILE | boundary-usage replay -")),
        [1..=255, 0, ..] => Some(("it is in UTF-16", "iconv -f UTF-16LE -t UTF-8 FILE | boundary-usage replay -")),
        _ => None,
    };
    match known.map(|(_, format, command)| (*format, *command)).or_else(by_zeros) {
        Some((format, command)) => Err(ForeignFormat { format, command }),
        None => Ok(()),
    }
}

/// An iterator over the lines of a recording.
///
/// The iterator keeps at most one line in memory, and of a longer line only the first [`MAX_LINE_BYTES`].
pub struct Recording<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Recording<R> {
    /// Creates an iterator over the rest of the reader.
    pub fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), number: 0 }
    }

    /// Reads the next line into `self.line`, cut at one byte over the limit.
    ///
    /// Returns the line's length in the file, which is 0 at the end of the file.
    fn read_line(&mut self) -> io::Result<u64> {
        self.line.clear();
        let mut length = 0;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = available.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(available.len(), |end| end + 1);
            let content = &available[..end.unwrap_or(taken)];
            let room = MAX_LINE_BYTES + 1 - self.line.len();
            self.line.extend_from_slice(&content[..content.len().min(room)]);
            self.reader.consume(taken);
            length += taken as u64;
            if end.is_some() || taken == 0 {
                return Ok(length);
            }
        }
    }
}

impl<R: BufRead> Iterator for Recording<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<io::Result<Line>> {
        match self.read_line() {
            Ok(0) => None,
            Ok(bytes) => {
                self.number += 1;
                Some(Ok(Line { number: self.number, bytes, content: parse(&self.line) }))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

fn parse(line: &[u8]) -> Option<Result<Activity, BadLine>> {
    if line.len() > MAX_LINE_BYTES {
        return Some(Err(BadLine::TooLong));
    }
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    let first = *line.trim_ascii_start().first()?;
    // Serde would also accept an array of the four values.
    if first != b'{' {
        return Some(Err(BadLine::NotAnObject(value_that_begins_with(first))));
    }
    Some(match serde_json::from_slice::<Record>(line) {
        Ok(record) if record.workspace.is_nil() => Err(BadLine::NilId("workspace")),
        Ok(record) if record.owner.is_nil() => Err(BadLine::NilId("owner")),
        Ok(Record { workspace, owner, allowed, denied }) => Ok(Activity { workspace, owner, allowed, denied }),
        Err(error) => Err(explain(line, &error)),
    })
}

fn value_that_begins_with(byte: u8) -> &'static str {
    match byte {
        b'[' => "an array",
        b'"' => "a string",
        b'-' | b'0'..=b'9' => "a number",
        b'}' | b']' => "the end of a value that began on an earlier line",
        b't' | b'f' | b'n' => "a word",
        _ => "no JSON",
    }
}

/// Explains why a line that begins like an object is not a record.
fn explain(line: &[u8], error: &serde_json::Error) -> BadLine {
    if error.is_eof() {
        return BadLine::Unfinished;
    }
    match serde_json::from_slice::<WideRecord>(line) {
        Ok(WideRecord { allowed, denied, .. }) => {
            let counts = [("allowed", allowed), ("denied", denied)];
            if let Some((field, count)) = counts.into_iter().find(|(_, count)| *count > u128::from(u64::MAX)) {
                return BadLine::TooGreat { field, count };
            }
        }
        Err(wide) if quotes_long_number(&error.to_string()) => {
            return BadLine::NotAnActivity(without_line(&wide.to_string()));
        }
        Err(_) => {}
    }
    // The parser's message quotes keys and values, which are untrusted.
    BadLine::NotAnActivity(printable(without_line(&error.to_string())))
}

/// Returns whether the parser's message quotes a number of more than 64 bits.
///
/// The parser shows such a number as a floating point number.
fn quotes_long_number(message: &str) -> bool {
    let number = message.split('`').nth(1).and_then(|number| number.parse::<f64>().ok());
    number.is_some_and(|number| number >= u64::MAX as f64)
}

/// Removes the line number from a parser's message.
///
/// The number is always 1, because the parser reads one line at a time.
fn without_line(message: &str) -> String {
    message.replace(" at line 1 column ", " at column ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = concat!(
        r#"{"workspace":"11111111-1111-4111-8111-111111111111","#,
        r#""owner":"22222222-2222-4222-8222-222222222222","allowed":3,"denied":1}"#
    );

    fn read(text: &str) -> Vec<Line> {
        // With a buffer of 7 bytes, lines span many reads.
        let reader = io::BufReader::with_capacity(7, text.as_bytes());
        Recording::new(reader).map(Result::unwrap).collect()
    }

    fn fault(line: &str) -> String {
        match read(line).remove(0).content {
            Some(Err(fault)) => fault.to_string(),
            content => panic!("{line} was accepted as {content:?}"),
        }
    }

    #[test]
    fn blank_lines_are_numbered_but_are_not_activities() {
        let lines = read(&format!("{GOOD}\n\n  \r\n{GOOD}\r\n{GOOD}"));
        let good: Vec<_> =
            lines.iter().filter(|line| matches!(line.content, Some(Ok(_)))).map(|line| line.number).collect();
        assert_eq!(good, [1, 4, 5]);
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn an_activity_has_its_ids_and_counts() {
        let Some(Ok(activity)) = read(GOOD).remove(0).content else { panic!("must be good") };
        assert_eq!(activity.workspace.to_string(), "11111111-1111-4111-8111-111111111111");
        assert_eq!(activity.owner.to_string(), "22222222-2222-4222-8222-222222222222");
        assert_eq!((activity.allowed, activity.denied), (3, 1));
    }

    #[test]
    fn the_lengths_of_the_lines_sum_up_to_the_length_of_the_file() {
        let text = format!("{GOOD}\n\r\nnonsense\n{GOOD}");
        assert_eq!(read(&text).iter().map(|line| line.bytes).sum::<u64>(), text.len() as u64);
    }

    #[test]
    fn the_fault_of_an_invalid_line_is_reported() {
        assert!(fault(&GOOD.replace(':', ";")).contains("at column"));
        assert!(fault(&GOOD.replace('3', "-3")).contains("-3"));
        assert!(fault(&GOOD.replace('3', "0.5")).contains("0.5"));
        let too_great = "`allowed` is 18446744073709551616; the limit is 18446744073709551615";
        assert_eq!(fault(&GOOD.replace('3', "18446744073709551616")), too_great);
        assert!(fault(&GOOD.replace('3', &"9".repeat(60))).contains("number out of range at column"));
        assert!(fault(&GOOD.replace("denied", "blocked")).contains("blocked"));
        assert!(fault(&GOOD.replace(r#","denied":1"#, "")).contains("denied"));
        assert!(fault(&GOOD.replace("11111111-", "")).contains("UUID"));
        assert!(fault(&format!("{GOOD}{GOOD}")).contains("trailing"));
        let nil = "00000000-0000-0000-0000-000000000000";
        assert!(fault(&GOOD.replace("11111111-1111-4111-8111-111111111111", nil)).contains("workspace is the nil"));
        assert!(fault(&GOOD.replace("22222222-2222-4222-8222-222222222222", nil)).contains("owner is the nil"));
    }

    #[test]
    fn a_line_must_be_one_object() {
        let array = r#"["11111111-1111-4111-8111-111111111111","22222222-2222-4222-8222-222222222222",3,1]"#;
        for (line, found) in [
            (array, "an array"),
            ("[", "an array"),
            (" \"workspace\": 1,", "a string"),
            ("7", "a number"),
            ("null", "a word"),
            ("}", "the end of a value"),
            ("nonsense", "a word"),
            ("# comment", "no JSON"),
        ] {
            let fault = fault(line);
            assert!(fault.starts_with(&format!("expected a JSON object, found {found}")), "{line}: {fault}");
            assert!(fault.ends_with("; write one object per line"), "{line}: {fault}");
        }
        for unfinished in ["{", &GOOD[..GOOD.len() - 1], r#"{"workspace""#] {
            assert_eq!(read(unfinished).remove(0).content, Some(Err(BadLine::Unfinished)), "{unfinished}");
        }
    }

    #[test]
    fn quoted_keys_are_escaped_and_shortened() {
        let hostile = format!("\\u001b[2J\\n\u{202e}{}", "k".repeat(60_000));
        let fault = fault(&GOOD.replace("denied", &hostile));
        assert!(fault.contains(r"\u{1b}[2J\n\u{202e}kk") && fault.chars().count() < 400, "{fault}");
    }

    #[test]
    fn a_byte_order_mark_at_the_start_of_a_line_is_skipped() {
        let lines = read(&format!("\u{feff}{GOOD}\n\u{feff}\n\u{feff}{GOOD}"));
        let contents: Vec<_> = lines.iter().map(|line| matches!(line.content, Some(Ok(_)))).collect();
        assert_eq!(contents, [true, false, true]);
        assert_eq!(lines[1].content, None);
    }

    #[test]
    fn foreign_formats_are_recognized_by_their_first_bytes() {
        for (start, format) in [
            (&b"\x1f\x8b\x08\0\0\0\0\0"[..], "gzip"),
            (b"\x28\xb5\x2f\xfd\x04\0", "zstd"),
            (b"\xfd7zXZ\0", "xz"),
            (b"BZh91AY", "bzip2"),
            (b"\x04\x22\x4d\x18d@", "lz4"),
            (b"PK\x03\x04\x14\0", "zip"),
            (b"\xff\xfe{\0\"\0", "UTF-16"),
            (b"\xfe\xff\0{", "UTF-16"),
            (b"{\0\"\0", "UTF-16LE"),
            (b"\0{\0\"", "UTF-16BE"),
            (b"\xff\xfe\0\0{\0\0\0", "UTF-32"),
            (b"\0\0\xfe\xff\0\0\0{", "UTF-32"),
            (b"{\0\0\0\"\0\0\0", "UTF-32LE"),
            (b"\0\0\0{", "UTF-32BE"),
        ] {
            let fault = check_format(start).unwrap_err().to_string();
            assert!(fault.contains(format) && fault.contains("boundary-usage replay -"), "{format}: {fault}");
        }
        for start in [&b""[..], b"\n", b"{", b"{\"worksp", b"\xef\xbb\xbf{", b"nonsense"] {
            assert_eq!(check_format(start), Ok(()), "{start:?}");
        }
    }

    #[test]
    fn a_line_over_the_limit_is_invalid_and_not_kept_in_memory() {
        let long = " ".repeat(MAX_LINE_BYTES + 1);
        let mut recording = Recording::new(io::Cursor::new(format!("{long}{long}\n{GOOD}\n")));
        let first = recording.next().unwrap().unwrap();
        assert_eq!(first.content, Some(Err(BadLine::TooLong)));
        assert!(recording.line.capacity() <= 2 * MAX_LINE_BYTES + 2);
        assert!(matches!(recording.next().unwrap().unwrap(), Line { number: 2, content: Some(Ok(_)), .. }));
    }

    #[test]
    fn a_line_at_the_limit_is_accepted() {
        let padded = format!("{GOOD}{}", " ".repeat(MAX_LINE_BYTES - GOOD.len()));
        assert!(matches!(read(&padded)[0].content, Some(Ok(_))));
    }
}
