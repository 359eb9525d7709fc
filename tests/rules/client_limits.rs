//! Clients can use only a limited number of descriptors, connections and log lines.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::http::get;
use crate::program::{Ended, Serving, Workplace, id, one_socket, pick};

/// Time limit for a response that must not depend on idle clients. A response takes far less.
const PROMPT: Duration = Duration::from_secs(5);

/// Writes a configuration file with this number of sockets.
fn many_sockets(workplace: &Workplace, sockets: usize) {
    let socket = |number: usize| {
        format!(
            "[[socket]]\npath = \"{number}.sock\"\nworkspace = \"{}\"\nowner = \"{}\"\n",
            id(1000 + number as u128),
            id(7)
        )
    };
    workplace.write("sockets.toml", &(0..sockets).map(socket).collect::<String>());
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_limit() {
    let workplace = Workplace::new();
    many_sockets(&workplace, 150);
    let arguments = ["serve", "--format", "json", "--config", "sockets.toml"];
    let serving = Serving::start(&mut workplace.command_after("ulimit -S -n 64", arguments), 150);
    send_and_hang_up(&workplace.path("149.sock"), SESSION);
    serving.stop().json();
}

#[test]
fn sockets_that_need_more_descriptors_than_the_hard_limit_are_refused() {
    let workplace = Workplace::new();
    many_sockets(&workplace, 150);
    let arguments = ["serve", "--config", "sockets.toml"];
    let ended: Ended = workplace.command_after("ulimit -n 100", arguments).output().unwrap().into();
    ended.assert_failed(1, "150 sockets need");
    assert!(ended.stderr.contains("214") && ended.stderr.contains("LimitNOFILE"), "{}", ended.stderr);
}

/// Sends a session as one client. Panics if the server does not read it promptly.
fn send_promptly(socket: &Path) {
    let mut client = UnixStream::connect(socket).unwrap();
    client.set_read_timeout(Some(PROMPT)).unwrap();
    client.write_all(SESSION).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).expect("idle clients keep others from reporting"), 0);
}

#[test]
fn idle_connections_do_not_keep_other_clients_from_reporting() {
    // The first server has enough descriptors for all connections, and the second has fewer.
    for limit in ["true", "ulimit -n 200"] {
        let workplace = Workplace::new();
        let socket = workplace.path("audit.sock");
        let mut command = workplace.command_after(limit, ["serve", "--format", "json"]);
        let serving = Serving::start(command.args(one_socket(&socket, 1, 2)), 1);
        let idle: Vec<_> = (0..300).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        send_promptly(&socket);
        // A client in the middle of a frame is idle, too.
        let mut partial: Vec<_> = (0..300).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        for client in &mut partial {
            // The server may have closed this connection to accept others.
            let _ = client.write_all(&SESSION[..9]);
        }
        send_promptly(&socket);
        drop((idle, partial));
        let report = serving.stop().json()["sockets"][0].clone();
        assert_eq!(pick(&report, ["allowed", "denied"]), [json!(18), json!(8)], "{limit}");
    }
}

#[test]
fn idle_connections_do_not_keep_other_clients_from_http() {
    let workplace = Workplace::new();
    let listen = ["--listen", "127.0.0.1:0"].map(str::to_owned);
    let serving = workplace.serve(1, one_socket(&workplace.path("audit.sock"), 1, 2).into_iter().chain(listen));
    let address = serving.http();
    let mut idle: Vec<_> = (0..600).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for (number, client) in idle.iter_mut().enumerate().filter(|(number, _)| number % 2 == 0) {
        // The server may have closed this connection to accept others.
        let _ = write!(client, "GET /healthz HTTP/1.1\r\nHost: {number}\r\n");
    }
    let mut client = TcpStream::connect(&address).unwrap();
    client.set_read_timeout(Some(PROMPT)).unwrap();
    write!(client, "GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).expect("idle clients keep others waiting");
    assert!(response.ends_with("ok\n"), "{response}");
    drop(idle);
    serving.stop().json();
}

/// Returns the number of log lines that contain the text.
fn lines(ended: &Ended, text: &str) -> usize {
    ended.stderr.lines().filter(|line| line.contains(text)).count()
}

/// Returns the sum of the numbers after `field` in the log lines that contain the text.
fn logged(ended: &Ended, text: &str, field: &str) -> u64 {
    let lines = ended.stderr.lines().filter(|line| line.contains(text));
    let number = |line: &str| {
        let digits: String = line.split_once(field)?.1.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    };
    lines.filter_map(number).sum()
}

#[test]
fn repeated_warnings_are_few_and_state_their_number() {
    const TIMES: usize = 500;
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let serving = workplace.serve(1, one_socket(&socket, 1, 2));
    let status: &[u8] = b"\x02\x00\x00\x06\x12\x04\x08\x03\x10\x02";
    let without_resource: &[u8] = b"\x01\x00\x00\x04\x0a\x02\x08\x01";
    let undecodable: &[u8] = b"\x01\x00\x00\x01\xff";
    let too_many = include_bytes!("../frames/too_many_logs.bin");
    for _ in 0..TIMES {
        send_and_hang_up(&socket, &[status, without_resource, undecodable, too_many, &[7, 0, 0, 0]].concat());
    }
    let ended = serving.stop();
    let report = ended.json()["sockets"][0].clone();
    let counted = pick(
        &report,
        ["malformed_frames", "undecodable_frames", "refused_batches", "skipped_logs", "dropped_channel_full"],
    );
    assert_eq!(counted, [500, 500, 500, 500, 1_500].map(|number| json!(number)));
    for text in [
        "malformed frame",
        "cannot be decoded",
        "too many logs",
        "resource is missing or unknown",
        "the client dropped logs",
    ] {
        let (first, more) = (lines(&ended, text), logged(&ended, text, "repeated="));
        assert!((1..=4).contains(&first), "{first} lines with {text:?}: {}", ended.stderr);
        assert_eq!(first as u64 - lines_of_repetitions(&ended, text) + more, TIMES as u64, "{text}: {}", ended.stderr);
    }
}

/// Returns the number of log lines that only count repetitions of the text.
fn lines_of_repetitions(ended: &Ended, text: &str) -> u64 {
    ended.stderr.lines().filter(|line| line.contains(text) && line.contains("repeated=")).count() as u64
}

#[test]
fn many_connections_without_a_frame_are_logged_but_one_is_not() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let listen = ["--listen", "127.0.0.1:0"].map(str::to_owned);
    let serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(listen));
    let metric = || {
        let text = get(&serving.http(), "/metrics").body;
        let line = text.lines().find(|line| line.starts_with("boundary_usage_client_connections_without_frame_total "));
        line.expect("the metric is exported").split(' ').nth(1).unwrap().parse::<u64>().unwrap()
    };
    let one = |bytes: &[u8]| send_and_hang_up(&socket, bytes);
    one(SESSION);
    one(&[]);
    assert_eq!(metric(), 1);
    let few = workplace.path("few.sock");
    let alone = workplace.serve(1, one_socket(&few, 3, 4));
    send_and_hang_up(&few, &[]);
    let ended = alone.stop();
    assert_eq!(lines(&ended, "without a frame"), 0, "one connection without a frame is not logged: {}", ended.stderr);
    for _ in 0..30 {
        one(&[]);
        one(SESSION);
    }
    assert_eq!(metric(), 31);
    let ended = serving.stop();
    // One line at the tenth connection, and one at the end with the number of the others.
    assert_eq!(lines(&ended, "without a frame"), 2, "{}", ended.stderr);
    assert_eq!(logged(&ended, "without a frame", "repeated="), 21, "{}", ended.stderr);
}
