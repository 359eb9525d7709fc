//! The messages of the boundary's client, for encoding.
//!
//! The structs follow `proto/boundary.proto`. The structs are written by hand, so that the build needs no protobuf
//! compiler. The server decodes without these structs: see `decode`.

use prost::Oneof;

/// A batch of decisions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReportBoundaryLogsRequest {
    /// The decisions.
    #[prost(message, repeated, tag = "1")]
    pub logs: Vec<BoundaryLog>,
    /// The client's session.
    #[prost(string, tag = "2")]
    pub session_id: String,
    /// The name of the process that sent the requests.
    #[prost(string, tag = "3")]
    pub confined_process_name: String,
}

/// A request that the boundary allowed or denied.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BoundaryLog {
    /// Whether the request was allowed.
    #[prost(bool, tag = "1")]
    pub allowed: bool,
    /// The time of the decision.
    #[prost(message, optional, tag = "2")]
    pub time: Option<Timestamp>,
    /// The requested resource. `None` if the field is missing or has an unknown kind.
    #[prost(oneof = "Resource", tags = "3")]
    pub resource: Option<Resource>,
    /// The log's number in its session.
    #[prost(int32, tag = "4")]
    pub sequence_number: i32,
}

/// A requested resource.
#[derive(Clone, PartialEq, Oneof)]
pub enum Resource {
    /// An HTTP request.
    #[prost(message, tag = "3")]
    HttpRequest(HttpRequest),
}

/// An HTTP request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpRequest {
    /// The method.
    #[prost(string, tag = "1")]
    pub method: String,
    /// The URL, which is never logged or stored, because it may contain secrets.
    #[prost(string, tag = "2")]
    pub url: String,
    /// The rule that allowed the request.
    #[prost(string, tag = "3")]
    pub matched_rule: String,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// The fraction of a second, in nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// The logs that the client dropped since its last status.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BoundaryStatus {
    /// Logs dropped because the client's queue was full.
    #[prost(int64, tag = "1")]
    pub dropped_channel_full: i64,
    /// Logs dropped because the client's batch was full while it had no connection.
    #[prost(int64, tag = "2")]
    pub dropped_batch_full: i64,
}

/// The envelope of newer clients.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BoundaryMessage {
    /// The message. `None` if the field is missing or has an unknown kind.
    #[prost(oneof = "Message", tags = "1, 2")]
    pub message: Option<Message>,
}

/// The content of an envelope.
#[derive(Clone, PartialEq, Oneof)]
pub enum Message {
    /// A batch, as in a frame with tag 1.
    #[prost(message, tag = "1")]
    Logs(ReportBoundaryLogsRequest),
    /// A status.
    #[prost(message, tag = "2")]
    Status(BoundaryStatus),
}

#[cfg(test)]
pub(super) mod tests {
    use prost::Message as _;

    use super::*;

    /// An allowed GET with its rule and time, and a denied POST.
    pub(in super::super) const RECORDED_BATCH: &[u8] = b"\
        \x0a\x28\x08\x01\x12\x06\x08\x80\xe2\xcf\xaa\x06\x1a\x1a\x0a\x03GET\x12\x0ehttps://a.test\x1a\x03a.*\x20\x01\
        \x0a\x18\x1a\x14\x0a\x04POST\x12\x0chttp://b.tst\x20\x02\
        \x12\x07session\x1a\x05agent";

    #[test]
    fn a_recorded_batch_decodes_and_encodes() {
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

    /// Returns the name and number of each field of a message.
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
