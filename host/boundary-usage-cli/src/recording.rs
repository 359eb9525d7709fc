//! Recorded activity: JSON Lines, one activity a line, as `replay` reads them.
//!
//! ```json
//! {"workspace":"0193a1b2-0000-7000-8000-000000000001","owner":"0193a1b2-0000-7000-8000-0000000000aa","allowed":1,"denied":0}
//! ```

use std::io::{self, BufRead};

use boundary_usage::Activity;
use serde::Deserialize;
use uuid::Uuid;

/// The longest line that is read. An activity needs some 150 bytes.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// A line of a recording.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1, blank lines included.
    pub number: u64,
    /// Its bytes in the file, the end of the line included.
    pub bytes: u64,
    /// What it says; `None` for a blank line.
    pub content: Option<Result<Activity, BadLine>>,
}

/// Why a line is not an activity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// It was not kept in memory either.
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// Not JSON, or not this JSON.
    #[error("{0}")]
    NotAnActivity(String),
    /// An id that names nobody.
    #[error("the {0} is the nil UUID, which names nobody")]
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

/// Reads a recording line by line, with no more than one line in memory, and no line over the limit.
pub struct Recording<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Recording<R> {
    /// Reads from here.
    pub fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), number: 0 }
    }

    /// Fills `self.line` with the next line, cut at one byte over the limit. Answers its length in the file; 0 at the end.
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
    if line.trim_ascii().is_empty() {
        return None;
    }
    Some(match serde_json::from_slice::<Record>(line) {
        Ok(record) if record.workspace.is_nil() => Err(BadLine::NilId("workspace")),
        Ok(record) if record.owner.is_nil() => Err(BadLine::NilId("owner")),
        Ok(Record { workspace, owner, allowed, denied }) => Ok(Activity { workspace, owner, allowed, denied }),
        Err(error) => Err(BadLine::NotAnActivity(without_line(&error.to_string()))),
    })
}

/// The parser sees one line at a time and calls each the first; the right number is reported beside it.
fn without_line(message: &str) -> String {
    message.replace(" at line 1 column ", " at column ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"workspace":"11111111-1111-4111-8111-111111111111","owner":"22222222-2222-4222-8222-222222222222","allowed":3,"denied":1}"#;

    fn read(text: &str) -> Vec<Line> {
        // A buffer of 7 bytes: lines span many reads.
        let reader = io::BufReader::with_capacity(7, text.as_bytes());
        Recording::new(reader).map(Result::unwrap).collect()
    }

    fn fault(line: &str) -> String {
        match read(line).remove(0).content {
            Some(Err(fault)) => fault.to_string(),
            content => panic!("{line} was taken for {content:?}"),
        }
    }

    #[test]
    fn lines_are_numbered_and_blank_ones_count_as_lines_only() {
        let lines = read(&format!("{GOOD}\n\n  \r\n{GOOD}\r\n{GOOD}"));
        let good: Vec<_> =
            lines.iter().filter(|line| matches!(line.content, Some(Ok(_)))).map(|line| line.number).collect();
        assert_eq!(good, [1, 4, 5]);
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn an_activity_is_read_with_its_ids_and_counts() {
        let Some(Ok(activity)) = read(GOOD).remove(0).content else { panic!("must be good") };
        assert_eq!(activity.workspace.to_string(), "11111111-1111-4111-8111-111111111111");
        assert_eq!(activity.owner.to_string(), "22222222-2222-4222-8222-222222222222");
        assert_eq!((activity.allowed, activity.denied), (3, 1));
    }

    #[test]
    fn the_lengths_of_the_lines_add_up_to_the_file() {
        let text = format!("{GOOD}\n\r\nnonsense\n{GOOD}");
        assert_eq!(read(&text).iter().map(|line| line.bytes).sum::<u64>(), text.len() as u64);
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        assert!(fault("nonsense").contains("at column"));
        assert!(fault(&GOOD.replace('3', "-3")).contains("-3"));
        assert!(fault(&GOOD.replace('3', "0.5")).contains("0.5"));
        assert!(fault(&GOOD.replace('3', "18446744073709551616")).contains("invalid type"));
        assert!(fault(&GOOD.replace("denied", "blocked")).contains("blocked"));
        assert!(fault(&GOOD.replace(r#","denied":1"#, "")).contains("denied"));
        assert!(fault(&GOOD.replace("11111111-", "")).contains("UUID"));
        assert!(fault(&format!("{GOOD}{GOOD}")).contains("trailing"));
        let nil = "00000000-0000-0000-0000-000000000000";
        assert!(fault(&GOOD.replace("11111111-1111-4111-8111-111111111111", nil)).contains("workspace is the nil"));
        assert!(fault(&GOOD.replace("22222222-2222-4222-8222-222222222222", nil)).contains("owner is the nil"));
    }

    #[test]
    fn a_line_over_the_limit_is_bad_and_not_kept_and_the_next_one_is_read() {
        let long = " ".repeat(MAX_LINE_BYTES + 1);
        let mut recording = Recording::new(io::Cursor::new(format!("{long}{long}\n{GOOD}\n")));
        let first = recording.next().unwrap().unwrap();
        assert_eq!(first.content, Some(Err(BadLine::TooLong)));
        assert!(recording.line.capacity() <= 2 * MAX_LINE_BYTES + 2);
        assert!(matches!(recording.next().unwrap().unwrap(), Line { number: 2, content: Some(Ok(_)), .. }));
    }

    #[test]
    fn a_line_at_the_limit_is_read() {
        let padded = format!("{GOOD}{}", " ".repeat(MAX_LINE_BYTES - GOOD.len()));
        assert!(matches!(read(&padded)[0].content, Some(Ok(_))));
    }
}
