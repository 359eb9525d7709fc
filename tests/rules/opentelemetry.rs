//! Traces as an OpenTelemetry collector receives them, by OTLP over HTTP.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{Serving, Workplace, id, one_socket};

/// A received span.
struct Span {
    service: String,
    name: String,
    attributes: BTreeMap<String, String>,
}

/// Receives traces until the test ends, and returns its URL and the received spans.
fn receiver() -> (String, Receiver<Span>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, spans) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(
                move || while receive(&mut BufReader::new(stream.as_ref().unwrap()), &sender).is_some() {},
            );
        }
    });
    (address, spans)
}

/// Receives one request. Returns `None` if the connection is closed.
fn receive(stream: &mut BufReader<&TcpStream>, sender: &Sender<Span>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(&[String::new()]) {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        head.push(line.trim_end().to_ascii_lowercase());
    }
    assert_eq!(head[0], "post /v1/traces http/1.1");
    assert!(head.iter().any(|line| line == "content-type: application/x-protobuf"), "{head:?}");
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    for resource in ExportTraceServiceRequest::decode(&body[..]).unwrap().resource_spans {
        let service = texts(&resource.resource.unwrap().attributes)["service.name"].clone();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let attributes = texts(&span.attributes);
            // This fails if the test has ended.
            let _ = sender.send(Span { service: service.clone(), name: span.name, attributes });
        }
    }
    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        value => format!("{value:?}"),
    };
    let value = |attribute: &KeyValue| text(attribute.value.as_ref().unwrap().value.as_ref().unwrap());
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

#[test]
fn spans_of_flushes_and_collections_arrive_even_the_last_one() {
    let (address, spans) = receiver();
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let mut command =
        workplace.command(["serve", "--format", "json", "--replica", &id(5), "--collect-interval", "200ms"]);
    command.args(one_socket(&socket, 1, 2)).env("OTEL_EXPORTER_OTLP_ENDPOINT", &address);
    let serving = Serving::start(&mut command, 1);
    let wait_for = |name: &str, outcome: &str| loop {
        let span = spans.recv().unwrap();
        assert_eq!(span.service, "boundary-usage");
        if span.name == name && span.attributes["outcome"] == outcome {
            return span.attributes;
        }
    };
    let collection = wait_for("collection", "closed");
    assert_eq!((collection["period"].as_str(), collection["replicas"].as_str()), ("1", "0"));
    send_and_hang_up(&socket, SESSION);
    // The flush interval is a minute, so this is the flush at the end.
    serving.stop().json();
    let flush = wait_for("flush", "written");
    assert_eq!((flush["replica"].as_str(), flush["flush"].as_str()), (id(5).as_str(), "1"));
}

#[test]
fn serve_works_while_the_collector_of_traces_is_unreachable() {
    let unreachable = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let mut command = workplace.command(["serve", "--format", "json"]);
    command.args(one_socket(&socket, 1, 2)).env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{unreachable}"));
    let serving = Serving::start(&mut command, 1);
    send_and_hang_up(&socket, SESSION);
    serving.stop().json();
    assert_eq!(workplace.json(["collect"])["allowed_requests"], 9);
}

#[test]
fn an_unusable_endpoint_is_refused_and_not_shown() {
    let workplace = Workplace::new();
    let mut command = workplace.command(["status"]);
    let refused =
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:hunter2@collector.example").output().unwrap();
    let refused = crate::program::Ended::from(refused);
    refused.assert_failed(2, "not an http:// URL");
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
}
