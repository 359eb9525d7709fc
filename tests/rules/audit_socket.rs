//! The audit socket of `serve` reads the bytes of a boundary client from a real unix socket.
//!
//! Google's implementation of protobuf encoded the files in `tests/frames` from `proto/boundary.proto`. The tests build
//! the same frames with our implementation, and the bytes must be equal.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use boundary_usage_cli::audit_socket::{
    BoundaryLog, BoundaryMessage, BoundaryStatus, HttpRequest, Message, ReportBoundaryLogsRequest, Resource, Timestamp,
};
use prost::Message as _;
use serde_json::json;

use crate::program::{Workplace, numbers, one_socket, pick};

/// A client's session with 9 allowed and 4 denied requests in two batches.
///
/// It has ten logs (7 allowed, 3 denied), an empty batch, an envelope with four logs (2 allowed, 1 denied, 1 without a
/// resource), and an envelope with a status (5 and 3 dropped logs).
pub(crate) const SESSION: &[u8] = include_bytes!("../frames/session.bin");

/// One batch of 1,001 logs.
const TOO_MANY_LOGS: &[u8] = include_bytes!("../frames/too_many_logs.bin");

/// Sends bytes as one client, and waits until the server has read all of them and closed the connection.
pub(crate) fn send_and_hang_up(socket: &Path, bytes: &[u8]) {
    send_pieces(socket, &[bytes]);
}

fn send_pieces(socket: &Path, pieces: &[&[u8]]) {
    let mut client = UnixStream::connect(socket).unwrap();
    for piece in pieces {
        client.write_all(piece).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    await_end(&mut client);
}

/// Waits until the server closes the connection. Unread bytes cause a reset.
fn await_end(client: &mut UnixStream) {
    match client.read(&mut [0]) {
        Ok(read) => assert_eq!(read, 0, "the server never writes"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

fn frame(tag: u8, data: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&[tag], &length[..], data].concat()
}

fn log(number: i32, allowed: bool) -> BoundaryLog {
    let text = |yes: &str, no: &str| if allowed { yes.to_owned() } else { no.to_owned() };
    let request = HttpRequest {
        method: text("GET", "POST"),
        url: text(&format!("https://a.test/{number}"), "https://b.test/"),
        matched_rule: text("domain=a.test", ""),
    };
    BoundaryLog {
        allowed,
        time: Some(Timestamp { seconds: 1_700_000_000 + i64::from(number), nanos: 250_000_000 }),
        resource: Some(Resource::HttpRequest(request)),
        sequence_number: number,
    }
}

fn request(logs: Vec<BoundaryLog>) -> ReportBoundaryLogsRequest {
    ReportBoundaryLogsRequest { logs, session_id: "s-1".into(), confined_process_name: "agent".into() }
}

fn envelope(message: Message) -> Vec<u8> {
    frame(2, &BoundaryMessage { message: Some(message) }.encode_to_vec())
}

fn session() -> Vec<u8> {
    let ten = request((1..=10).map(|number| log(number, number % 3 != 0)).collect());
    let without_resource = BoundaryLog { resource: None, ..log(14, true) };
    let four = request(vec![log(11, true), log(12, false), log(13, true), without_resource]);
    let status = BoundaryStatus { dropped_channel_full: 5, dropped_batch_full: 3 };
    [frame(1, &ten.encode_to_vec()), frame(1, &[]), envelope(Message::Logs(four)), envelope(Message::Status(status))]
        .concat()
}

#[test]
fn our_frames_are_the_recorded_bytes() {
    assert_eq!(session(), SESSION);
    let empty = BoundaryLog { resource: Some(Resource::HttpRequest(HttpRequest::default())), ..Default::default() };
    let many = ReportBoundaryLogsRequest { logs: vec![empty; 1_001], ..Default::default() };
    assert_eq!(frame(1, &many.encode_to_vec()), TOO_MANY_LOGS);
}

#[test]
fn recorded_frames_count_the_same_split_and_joined_at_every_byte() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let serving = workplace.serve(1, one_socket(&socket, 1, 2));
    // Two sessions in one write, one byte by byte, and one for each byte where a session can be split.
    send_and_hang_up(&socket, &[SESSION, SESSION].concat());
    send_pieces(&socket, &SESSION.chunks(1).collect::<Vec<_>>());
    for cut in 1..SESSION.len() {
        let (first, second) = SESSION.split_at(cut);
        let mut client = UnixStream::connect(&socket).unwrap();
        client.write_all(first).unwrap();
        // The connection of another client gives the server time to read the first piece alone.
        send_and_hang_up(&socket, &[]);
        client.write_all(second).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        await_end(&mut client);
    }
    let sessions = 2 + 1 + (SESSION.len() as u64 - 1);
    let report = serving.stop().json()["sockets"][0].clone();
    let counted = pick(&report, ["batches", "allowed", "denied", "skipped_logs"]);
    assert_eq!(counted, [2, 9, 4, 1].map(|each| json!(each * sessions)));
    let dropped = pick(&report, ["dropped_channel_full", "dropped_batch_full", "malformed_frames"]);
    assert_eq!(dropped, [json!(5 * sessions), json!(3 * sessions), json!(0)]);
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9 * sessions, 4 * sessions]);
}

#[test]
fn a_malformed_frame_closes_only_its_own_connection_with_a_warning() {
    let malformed: [(&[u8], &str); 3] = [
        (&[7, 0, 0, 1, 0], "unknown frame tag 7"),
        (&[1, 0, 0x80, 1], "the frame has 32769 bytes"),
        (&[1, 0, 0, 9, 0x0a], "ended inside a frame"),
    ];
    for (bytes, warning) in malformed {
        let workplace = Workplace::new();
        let socket = workplace.path("audit.sock");
        let mut serving = workplace.serve(1, one_socket(&socket, 1, 2));
        let mut bystander = UnixStream::connect(&socket).unwrap();
        bystander.write_all(&SESSION[..100]).unwrap();
        // Frames before the malformed frame count. Later frames of that connection do not.
        let mut client = UnixStream::connect(&socket).unwrap();
        client.write_all(&[SESSION, bytes].concat()).unwrap();
        if warning.contains("ended") {
            client.shutdown(Shutdown::Write).unwrap();
        }
        await_end(&mut client);
        serving.wait_for_log(warning);
        bystander.write_all(&SESSION[100..]).unwrap();
        bystander.shutdown(Shutdown::Write).unwrap();
        await_end(&mut bystander);
        let ended = serving.stop();
        let report = ended.json()["sockets"][0].clone();
        let expected = [json!(18), json!(8), json!(1), json!(2)];
        assert_eq!(pick(&report, ["allowed", "denied", "malformed_frames", "connections"]), expected);
        assert!(!ended.stderr.contains("a.test"), "a URL may contain secrets and must not be logged: {}", ended.stderr);
    }
}

#[test]
fn a_batch_with_too_many_logs_is_refused_and_its_connection_continues() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let mut serving = workplace.serve(1, one_socket(&socket, 1, 2));
    send_and_hang_up(&socket, &[TOO_MANY_LOGS, SESSION].concat());
    serving.wait_for_log("a batch with too many logs is not counted");
    let report = serving.stop().json()["sockets"][0].clone();
    let expected = [json!(9), json!(4), json!(1), json!(0)];
    assert_eq!(pick(&report, ["allowed", "denied", "refused_batches", "malformed_frames"]), expected);
}

#[test]
fn a_frame_that_cannot_be_decoded_is_skipped_and_its_connection_continues() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let mut serving = workplace.serve(1, one_socket(&socket, 1, 2));
    // A frame that is no message, a valid batch, and a log whose `allowed` and resource have the wrong wire types.
    let garbage: &[u8] = b"\x01\x00\x00\x01\xff";
    let one: &[u8] = b"\x01\x00\x00\x06\x0a\x04\x08\x01\x1a\x00";
    let wrong_types: &[u8] = b"\x01\x00\x00\x0b\x0a\x09\x0a\x01x\x18\x07\x1a\x00\x20\x01";
    send_and_hang_up(&socket, &[garbage, &one.repeat(5), wrong_types].concat());
    serving.wait_for_log("cannot be decoded");
    let report = serving.stop().json()["sockets"][0].clone();
    let expected = [json!(5), json!(1), json!(1), json!(0), json!(1)];
    let names = ["allowed", "denied", "undecodable_frames", "malformed_frames", "connections"];
    assert_eq!(pick(&report, names), expected);
}
