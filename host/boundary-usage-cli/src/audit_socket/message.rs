//! What a frame says, and which part of it counts.
//!
//! The structs are those of `proto/boundary.proto`, written by hand so that the build needs no protobuf compiler.
//! [`receive`] applies the rules of the reference's receiver, so that both count the same for the same client:
//!
//! | a batch of logs                                  | counts                      |
//! | ------------------------------------------------ | --------------------------- |
//! | without logs                                     | nothing                     |
//! | with more than 1,000                             | nothing: refused whole      |
//! | with logs whose resource is missing or unknown   | all but those               |
//! | with such logs only                              | nothing                     |
//!
//! What is not protobuf at all is an error: whoever sends it speaks another protocol, and its connection is closed.

use std::iter;

use prost::{DecodeError, Message as _, Oneof, decode_length_delimiter};

use super::codec::{Frame, Tag};

/// The most logs that one batch may hold.
pub const MAX_LOGS_PER_BATCH: usize = 1_000;

/// A batch of decisions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReportBoundaryLogsRequest {
    /// The decisions.
    #[prost(message, repeated, tag = "1")]
    pub logs: Vec<BoundaryLog>,
    /// The client's session.
    #[prost(string, tag = "2")]
    pub session_id: String,
    /// The process whose requests these are.
    #[prost(string, tag = "3")]
    pub confined_process_name: String,
}

/// One request that the boundary let through or blocked.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BoundaryLog {
    /// Let through, or blocked.
    #[prost(bool, tag = "1")]
    pub allowed: bool,
    /// When.
    #[prost(message, optional, tag = "2")]
    pub time: Option<Timestamp>,
    /// What was requested; `None` also for a kind that this version does not know.
    #[prost(oneof = "Resource", tags = "3")]
    pub resource: Option<Resource>,
    /// The log's place in its session.
    #[prost(int32, tag = "4")]
    pub sequence_number: i32,
}

/// What was requested.
#[derive(Clone, PartialEq, Oneof)]
pub enum Resource {
    /// An HTTP request.
    #[prost(message, tag = "3")]
    HttpRequest(HttpRequest),
}

/// An HTTP request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpRequest {
    /// Its method.
    #[prost(string, tag = "1")]
    pub method: String,
    /// Its URL. Never logged and never stored: it may hold secrets.
    #[prost(string, tag = "2")]
    pub url: String,
    /// The rule that let it through.
    #[prost(string, tag = "3")]
    pub matched_rule: String,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// The part of a second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// What the client had to drop since it last said so.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BoundaryStatus {
    /// Logs for which the client's own queue had no room.
    #[prost(int64, tag = "1")]
    pub dropped_channel_full: i64,
    /// Logs that waited for a connection, until there was no more room for them.
    #[prost(int64, tag = "2")]
    pub dropped_batch_full: i64,
}

/// The envelope of newer clients.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BoundaryMessage {
    /// What is inside; `None` also for a kind that this version does not know.
    #[prost(oneof = "Message", tags = "1, 2")]
    pub message: Option<Message>,
}

/// What an envelope holds.
#[derive(Clone, PartialEq, Oneof)]
pub enum Message {
    /// The same as a frame of tag 1.
    #[prost(message, tag = "1")]
    Logs(ReportBoundaryLogsRequest),
    /// A status.
    #[prost(message, tag = "2")]
    Status(BoundaryStatus),
}

/// What a frame comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A batch of logs. It is to be tracked unless `allowed` and `denied` are both 0.
    Batch {
        /// Requests let through.
        allowed: u64,
        /// Requests blocked.
        denied: u64,
        /// Logs that do not count: their resource is missing or unknown.
        skipped: u64,
    },
    /// A batch with too many logs; none of them counts.
    Refused {
        /// How many it had.
        logs: usize,
    },
    /// What the client had to drop since it last said so.
    Dropped {
        /// For want of room in its queue.
        channel_full: u64,
        /// For want of a connection.
        batch_full: u64,
    },
    /// An envelope with nothing inside that this version knows: a newer client's, and no reason to hang up.
    Unknown,
}

/// Decodes a frame and judges what it holds.
///
/// # Errors
///
/// When its data is not the protobuf message that its tag promises.
pub fn receive(frame: &Frame) -> Result<Received, DecodeError> {
    // Counted before it is decoded: a frame has room for 16,384 empty logs, of which each takes a hundred bytes in memory.
    let logs = count_logs(frame);
    if logs > MAX_LOGS_PER_BATCH {
        return Ok(Received::Refused { logs });
    }
    match frame.tag {
        Tag::Logs => ReportBoundaryLogsRequest::decode(frame.data.clone()).map(|batch| judge(&batch)),
        Tag::Message => match BoundaryMessage::decode(frame.data.clone())?.message {
            Some(Message::Logs(batch)) => Ok(judge(&batch)),
            Some(Message::Status(status)) => Ok(Received::Dropped {
                channel_full: status.dropped_channel_full.max(0).unsigned_abs(),
                batch_full: status.dropped_batch_full.max(0).unsigned_abs(),
            }),
            None => Ok(Received::Unknown),
        },
    }
}

fn count_logs(frame: &Frame) -> usize {
    let logs = |batch| fields(batch).filter(|(number, _)| *number == 1).count();
    match frame.tag {
        Tag::Logs => logs(&frame.data),
        Tag::Message => fields(&frame.data).filter(|(number, _)| *number == 1).map(|(_, batch)| logs(batch)).sum(),
    }
}

/// The fields of a message that have a length, as number and content, up to what is malformed or of a kind that no
/// version of the protocol uses; that is the decoder's to judge.
fn fields(mut data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    iter::from_fn(move || {
        loop {
            let key = decode_length_delimiter(&mut data).ok()?;
            let length = match key & 7 {
                0 => {
                    decode_length_delimiter(&mut data).ok()?;
                    continue;
                }
                1 => 8,
                2 => decode_length_delimiter(&mut data).ok()?,
                5 => 4,
                _ => return None,
            };
            let (content, rest) = data.split_at_checked(length)?;
            data = rest;
            if key & 7 == 2 {
                return Some((key >> 3, content));
            }
        }
    })
}

fn judge(batch: &ReportBoundaryLogsRequest) -> Received {
    if batch.logs.len() > MAX_LOGS_PER_BATCH {
        return Received::Refused { logs: batch.logs.len() };
    }
    let (mut allowed, mut denied, mut skipped) = (0, 0, 0);
    for log in &batch.logs {
        match (&log.resource, log.allowed) {
            (None, _) => skipped += 1,
            (Some(Resource::HttpRequest(_)), true) => allowed += 1,
            (Some(Resource::HttpRequest(_)), false) => denied += 1,
        }
    }
    Received::Batch { allowed, denied, skipped }
}

#[cfg(test)]
mod tests {
    use tokio_util::bytes::Bytes;

    use super::*;

    /// Two logs in the client's encoding, kept as bytes: an allowed GET with its rule and time, and a denied POST.
    const RECORDED_BATCH: &[u8] = b"\
        \x0a\x28\x08\x01\x12\x06\x08\x80\xe2\xcf\xaa\x06\x1a\x1a\x0a\x03GET\x12\x0ehttps://a.test\x1a\x03a.*\x20\x01\
        \x0a\x18\x1a\x14\x0a\x04POST\x12\x0chttp://b.tst\x20\x02\
        \x12\x07session\x1a\x05agent";

    /// A status: 5 dropped in the channel, 3 in the batch.
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
    fn a_recorded_batch_counts_by_decision() {
        let received = receive(&frame(Tag::Logs, RECORDED_BATCH)).unwrap();
        assert_eq!(received, Received::Batch { allowed: 1, denied: 1, skipped: 0 });
    }

    #[test]
    fn every_field_is_where_the_client_puts_it() {
        let batch = ReportBoundaryLogsRequest::decode(RECORDED_BATCH).unwrap();
        assert_eq!(batch.session_id, "session");
        assert_eq!(batch.confined_process_name, "agent");
        let first = HttpRequest { method: "GET".into(), url: "https://a.test".into(), matched_rule: "a.*".into() };
        assert_eq!(batch.logs[0].time, Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }));
        assert_eq!(batch.logs[0].resource, Some(Resource::HttpRequest(first)));
        assert_eq!((batch.logs[0].sequence_number, batch.logs[1].sequence_number), (1, 2));
        assert_eq!(batch.encode_to_vec(), RECORDED_BATCH);
    }

    #[test]
    fn logs_in_an_envelope_count_the_same() {
        let request = ReportBoundaryLogsRequest::decode(RECORDED_BATCH).unwrap();
        let envelope = BoundaryMessage { message: Some(Message::Logs(request)) };
        let received = receive(&frame(Tag::Message, &envelope.encode_to_vec())).unwrap();
        assert_eq!(received, Received::Batch { allowed: 1, denied: 1, skipped: 0 });
    }

    #[test]
    fn a_recorded_status_says_what_was_dropped() {
        let received = receive(&frame(Tag::Message, RECORDED_STATUS)).unwrap();
        assert_eq!(received, Received::Dropped { channel_full: 5, batch_full: 3 });
    }

    #[test]
    fn negative_drops_count_as_none() {
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
    fn a_thousand_logs_count_and_one_more_refuses_the_batch() {
        let received = receive(&batch(vec![log(false); 1_000])).unwrap();
        assert_eq!(received, Received::Batch { allowed: 0, denied: 1_000, skipped: 0 });
        assert_eq!(receive(&batch(vec![log(false); 1_001])).unwrap(), Received::Refused { logs: 1_001 });
    }

    #[test]
    fn too_many_logs_are_refused_before_they_are_decoded() {
        // 16,382 empty logs, and then what no decoder accepts.
        let mut data = b"\x0a\x00".repeat(16_382);
        data.extend_from_slice(b"\x0a\x7f");
        assert!(ReportBoundaryLogsRequest::decode(&data[..]).is_err());
        assert_eq!(receive(&frame(Tag::Logs, &data)).unwrap(), Received::Refused { logs: 16_382 });

        let batch = b"\x20\x01\x0a\x00".repeat(1_001);
        let mut envelope = b"\x08\x01\x11eight678\x25four\x0a".to_vec();
        prost::encode_length_delimiter(batch.len(), &mut envelope).unwrap();
        envelope.extend_from_slice(&batch);
        assert_eq!(receive(&frame(Tag::Message, &envelope)).unwrap(), Received::Refused { logs: 1_001 });
    }

    #[test]
    fn what_is_nested_too_deep_is_an_error() {
        // Groups are all that can nest without end: field 9, begun 10,000 times and ended as often.
        let nested = [vec![0x4b; 10_000], vec![0x4c; 10_000]].concat();
        for tag in [Tag::Logs, Tag::Message] {
            assert!(receive(&frame(tag, &nested)).is_err());
        }
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
    fn an_envelope_of_an_unknown_kind_is_tolerated() {
        assert_eq!(receive(&frame(Tag::Message, b"\x4a\x01x")).unwrap(), Received::Unknown);
        assert_eq!(receive(&frame(Tag::Message, b"")).unwrap(), Received::Unknown);
    }

    #[test]
    fn data_that_is_not_the_promised_message_is_an_error() {
        for garbage in [&b"\xff\xff\xff"[..], b"\x0a\x7f\x00", b"\x12\x02\xff\xfe"] {
            assert!(receive(&frame(Tag::Logs, garbage)).is_err(), "{garbage:?}");
        }
        assert!(receive(&frame(Tag::Message, b"\x0a\x01\xff")).is_err());
    }

    #[test]
    fn field_numbers_agree_with_the_proto_file() {
        let proto = include_str!("../../../../proto/boundary.proto");
        let source = include_str!("message.rs");
        for (message, rust) in [
            ("message ReportBoundaryLogsRequest", "pub struct ReportBoundaryLogsRequest"),
            ("message BoundaryLog ", "pub struct BoundaryLog "),
            ("message HttpRequest", "pub struct HttpRequest"),
            ("message BoundaryStatus", "pub struct BoundaryStatus"),
            ("oneof message", "pub enum Message"),
        ] {
            assert_eq!(proto_fields(proto, message), rust_fields(source, rust), "{message}");
        }
    }

    /// `name = number` of each field between a message's braces, sorted by number.
    fn proto_fields(proto: &str, message: &str) -> Vec<(String, String)> {
        let body = proto.split_once(message).unwrap().1.split_once("\n}").unwrap().0;
        let body = body.replace("oneof resource {", "").replace('}', "");
        let fields = body.split(';').filter_map(|field| field.rsplit_once(" = "));
        fields.map(|(field, number)| (field.rsplit(' ').next().unwrap().into(), number.into())).collect()
    }

    fn rust_fields(source: &str, item: &str) -> Vec<(String, String)> {
        let body = source.split_once(item).unwrap().1.split_once("\n}").unwrap().0;
        let fields = body.split("#[prost(").skip(1).map(|field| {
            let number = field.rsplit_once("= \"").unwrap().1.split_once('"').unwrap().0;
            let name = field.split_once(")]").unwrap().1.trim().trim_start_matches("pub ");
            let name = name.split([':', '(']).next().unwrap().to_lowercase();
            (if name == "resource" { "http_request".into() } else { name }, number.into())
        });
        fields.collect()
    }
}
