//! Decodes the content of a frame exactly as the Coder agent does.
//!
//! The agent decodes with Go's protobuf library. This decoder accepts and rejects the same bytes, which the usual
//! decoders of Rust do not: a field with a wrong wire type is an unknown field, and unknown fields are skipped.
//!
//! | message                                                | result                   |
//! | ------------------------------------------------------ | ------------------------ |
//! | with unknown fields, or fields of a wrong wire type    | decoded without them     |
//! | with a string that is not UTF-8                        | error                    |
//! | truncated, or with a field number of 0 or over 2^29-1  | error                    |
//! | with groups that do not nest, or deeper than 10,000    | error                    |
//!
//! [`receive`] then applies the rules of the agent's receiver:
//!
//! | batch of logs                                    | counted                     |
//! | ------------------------------------------------ | --------------------------- |
//! | without logs                                     | nothing                     |
//! | with more than 1,000 logs                        | nothing                     |
//! | with logs whose resource is missing or unknown   | the other logs              |

use super::codec::{Frame, Tag};
use super::wire::{DecodeError, Fields, Value};

/// The limit of logs in one batch.
pub const MAX_LOGS_PER_BATCH: usize = 1_000;

/// The content of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A batch of logs, which must be tracked unless `allowed` and `denied` are both 0.
    Batch {
        /// The number of allowed requests.
        allowed: u64,
        /// The number of denied requests.
        denied: u64,
        /// The number of logs with a missing or unknown resource, which do not count.
        skipped: u64,
    },
    /// A batch with too many logs, none of which counts.
    Refused {
        /// The number of logs.
        logs: usize,
    },
    /// The logs that the client dropped since its last report of dropped logs.
    Dropped {
        /// Logs dropped because the client's queue was full.
        channel_full: u64,
        /// Logs dropped because the client's batch was full while it had no connection.
        batch_full: u64,
    },
    /// An envelope without a known message, which newer clients may send.
    Unknown,
}

/// Decodes a frame and applies the receiver's rules to it.
///
/// # Errors
///
/// Returns an error if the data is not the protobuf message that the tag announces.
pub fn receive(frame: &Frame) -> Result<Received, DecodeError> {
    match frame.tag {
        Tag::Logs => {
            let mut batch = Batch::default();
            batch.read(&frame.data)?;
            Ok(batch.validate())
        }
        Tag::Message => envelope(&frame.data),
    }
}

/// Decodes an envelope.
///
/// If an envelope has messages of several kinds, the last kind counts. Messages of one kind are merged.
fn envelope(data: &[u8]) -> Result<Received, DecodeError> {
    enum Message {
        Logs(Batch),
        Status(Status),
    }
    let mut message = None;
    for field in Fields(data) {
        message = match (field?, message) {
            ((1, Value::Bytes(data)), message) => {
                let mut batch = if let Some(Message::Logs(batch)) = message { batch } else { Batch::default() };
                batch.read(data)?;
                Some(Message::Logs(batch))
            }
            ((2, Value::Bytes(data)), message) => {
                let mut status = if let Some(Message::Status(status)) = message { status } else { Status::default() };
                status.read(data)?;
                Some(Message::Status(status))
            }
            (_, message) => message,
        };
    }
    Ok(match message {
        Some(Message::Logs(batch)) => batch.validate(),
        Some(Message::Status(Status { channel_full, batch_full })) => Received::Dropped {
            channel_full: channel_full.max(0).unsigned_abs(),
            batch_full: batch_full.max(0).unsigned_abs(),
        },
        None => Received::Unknown,
    })
}

/// The counts of a batch of logs, the message `ReportBoundaryLogsRequest`.
#[derive(Default)]
struct Batch {
    logs: usize,
    allowed: u64,
    denied: u64,
    skipped: u64,
}

impl Batch {
    fn read(&mut self, data: &[u8]) -> Result<(), DecodeError> {
        for field in Fields(data) {
            match field? {
                (1, Value::Bytes(log)) => self.count(log)?,
                (2 | 3, Value::Bytes(text)) => utf8(text)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Counts a `BoundaryLog`.
    fn count(&mut self, log: &[u8]) -> Result<(), DecodeError> {
        let (mut allowed, mut has_resource) = (false, false);
        for field in Fields(log) {
            match field? {
                (1, Value::Number(number)) => allowed = number != 0,
                // A timestamp has only numbers, so its fields need no further check.
                (2, Value::Bytes(time)) => Fields(time).try_for_each(|field| field.map(drop))?,
                (3, Value::Bytes(request)) => {
                    has_resource = true;
                    for field in Fields(request) {
                        if let (1..=3, Value::Bytes(text)) = field? {
                            utf8(text)?;
                        }
                    }
                }
                _ => {}
            }
        }
        self.logs += 1;
        match (has_resource, allowed) {
            (false, _) => self.skipped += 1,
            (true, true) => self.allowed += 1,
            (true, false) => self.denied += 1,
        }
        Ok(())
    }

    fn validate(&self) -> Received {
        if self.logs > MAX_LOGS_PER_BATCH {
            return Received::Refused { logs: self.logs };
        }
        Received::Batch { allowed: self.allowed, denied: self.denied, skipped: self.skipped }
    }
}

/// The counts of dropped logs, the message `BoundaryStatus`.
#[derive(Default)]
struct Status {
    channel_full: i64,
    batch_full: i64,
}

impl Status {
    fn read(&mut self, data: &[u8]) -> Result<(), DecodeError> {
        for field in Fields(data) {
            match field? {
                (1, Value::Number(number)) => self.channel_full = number.cast_signed(),
                (2, Value::Number(number)) => self.batch_full = number.cast_signed(),
                _ => {}
            }
        }
        Ok(())
    }
}

fn utf8(text: &[u8]) -> Result<(), DecodeError> {
    std::str::from_utf8(text).map(drop).map_err(|_| DecodeError::Utf8)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tokio_util::bytes::Bytes;

    use super::super::message::tests::RECORDED_BATCH;
    use super::super::message::{
        BoundaryLog, BoundaryMessage, BoundaryStatus, HttpRequest, Message, ReportBoundaryLogsRequest, Resource,
    };
    use super::*;

    /// A status that reports 5 logs dropped by the channel and 3 by the batch.
    const RECORDED_STATUS: &[u8] = b"\x12\x04\x08\x05\x10\x03";

    fn frame(tag: Tag, data: &[u8]) -> Frame {
        Frame { tag, data: Bytes::copy_from_slice(data) }
    }

    fn log(allowed: bool) -> BoundaryLog {
        let resource = Some(Resource::HttpRequest(HttpRequest::default()));
        BoundaryLog { allowed, resource, ..BoundaryLog::default() }
    }

    fn batch(logs: Vec<BoundaryLog>) -> Frame {
        let request = ReportBoundaryLogsRequest { logs, ..ReportBoundaryLogsRequest::default() };
        frame(Tag::Logs, &request.encode_to_vec())
    }

    #[test]
    fn a_recorded_batch_is_counted_by_decision() {
        let received = receive(&frame(Tag::Logs, RECORDED_BATCH)).unwrap();
        assert_eq!(received, Received::Batch { allowed: 1, denied: 1, skipped: 0 });
    }

    #[test]
    fn logs_in_an_envelope_are_counted_in_the_same_way() {
        let request = ReportBoundaryLogsRequest::decode(RECORDED_BATCH).unwrap();
        let envelope = BoundaryMessage { message: Some(Message::Logs(request)) };
        let received = receive(&frame(Tag::Message, &envelope.encode_to_vec())).unwrap();
        assert_eq!(received, Received::Batch { allowed: 1, denied: 1, skipped: 0 });
    }

    #[test]
    fn a_recorded_status_reports_dropped_logs() {
        let received = receive(&frame(Tag::Message, RECORDED_STATUS)).unwrap();
        assert_eq!(received, Received::Dropped { channel_full: 5, batch_full: 3 });
    }

    #[test]
    fn negative_counts_of_dropped_logs_are_zero() {
        let status = BoundaryStatus { dropped_channel_full: -1, dropped_batch_full: i64::MIN };
        let envelope = BoundaryMessage { message: Some(Message::Status(status)) };
        let received = receive(&frame(Tag::Message, &envelope.encode_to_vec())).unwrap();
        assert_eq!(received, Received::Dropped { channel_full: 0, batch_full: 0 });
    }

    #[test]
    fn a_batch_without_logs_counts_nothing() {
        assert_eq!(receive(&batch(vec![])).unwrap(), Received::Batch { allowed: 0, denied: 0, skipped: 0 });
    }

    #[test]
    fn a_batch_of_more_than_a_thousand_logs_is_rejected() {
        let received = receive(&batch(vec![log(false); 1_000])).unwrap();
        assert_eq!(received, Received::Batch { allowed: 0, denied: 1_000, skipped: 0 });
        assert_eq!(receive(&batch(vec![log(false); 1_001])).unwrap(), Received::Refused { logs: 1_001 });
    }

    #[test]
    fn a_log_without_a_resource_is_skipped() {
        let without = BoundaryLog { allowed: true, ..BoundaryLog::default() };
        let received = receive(&batch(vec![log(true), without, log(false)])).unwrap();
        assert_eq!(received, Received::Batch { allowed: 1, denied: 1, skipped: 1 });
    }

    #[test]
    fn a_log_with_a_resource_of_an_unknown_kind_is_skipped() {
        // logs[0] = { allowed: true, field 9 of a later version: "x" }
        let received = receive(&frame(Tag::Logs, b"\x0a\x05\x08\x01\x4a\x01x")).unwrap();
        assert_eq!(received, Received::Batch { allowed: 0, denied: 0, skipped: 1 });
    }

    #[test]
    fn an_envelope_of_an_unknown_kind_is_no_error() {
        assert_eq!(receive(&frame(Tag::Message, b"\x4a\x01x")).unwrap(), Received::Unknown);
        assert_eq!(receive(&frame(Tag::Message, b"")).unwrap(), Received::Unknown);
    }

    #[test]
    fn data_that_does_not_match_the_tag_is_an_error() {
        for garbage in [&b"\xff\xff\xff"[..], b"\x0a\x7f\x00", b"\x12\x02\xff\xfe"] {
            assert!(receive(&frame(Tag::Logs, garbage)).is_err(), "{garbage:?}");
        }
        assert!(receive(&frame(Tag::Message, b"\x0a\x01\xff")).is_err());
    }

    #[test]
    fn fields_with_a_wrong_wire_type_are_unknown_fields() {
        // logs[0] = { allowed: "x", resource: 7, then resource: {}, sequence_number: 1.0 }, session_id: 5.
        let batch = b"\x0a\x0c\x0a\x01x\x18\x07\x1a\x00\x25four\x10\x05";
        let one_denied = Received::Batch { allowed: 0, denied: 1, skipped: 0 };
        assert_eq!(receive(&frame(Tag::Logs, batch)).unwrap(), one_denied);
        // A resource of the wrong type is a missing resource.
        let skipped = Received::Batch { allowed: 0, denied: 0, skipped: 1 };
        assert_eq!(receive(&frame(Tag::Logs, b"\x0a\x04\x08\x01\x18\x07")).unwrap(), skipped);
        assert_eq!(receive(&frame(Tag::Message, b"\x08\x01\x10\x02")).unwrap(), Received::Unknown);
    }

    #[test]
    fn a_string_that_is_not_utf8_is_an_error() {
        for data in [&b"\x12\x01\xff"[..], b"\x1a\x01\xc0", b"\x0a\x05\x1a\x03\x12\x01\xff"] {
            assert_eq!(receive(&frame(Tag::Logs, data)), Err(DecodeError::Utf8), "{data:?}");
        }
    }

    #[test]
    fn only_the_last_kind_of_message_in_an_envelope_is_counted() {
        let log = b"\x0a\x06\x0a\x04\x08\x01\x1a\x00";
        let status = b"\x12\x02\x08\x05\x12\x02\x10\x03";
        let receive = |parts: &[&[u8]]| receive(&frame(Tag::Message, &parts.concat())).unwrap();
        assert_eq!(receive(&[log, log]), Received::Batch { allowed: 2, denied: 0, skipped: 0 });
        assert_eq!(receive(&[log, status]), Received::Dropped { channel_full: 5, batch_full: 3 });
        assert_eq!(receive(&[log, status, log]), Received::Batch { allowed: 1, denied: 0, skipped: 0 });
    }
}
