//! A stop of `serve` counts every frame whose write succeeded, and keeps the socket files.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use boundary_usage::Options;
use boundary_usage_cli::audit_socket::{AuditServer, BoundSockets, DrainLimits, Socket};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::{Cue, misbehaving_plugin, until, usage, workspace_of};
use serde_json::json;

use crate::audit_socket::SESSION;
use crate::program::{Workplace, numbers, one_socket, pick};

/// A batch of one allowed request.
const ONE_REQUEST: &[u8] = b"\x01\x00\x00\x06\x0a\x04\x08\x01\x1a\x00";

/// Writes frames without a pause until a write fails. Returns the number of successful writes.
fn write_without_pause(socket: &Path, written_by_all: &AtomicU64) -> u64 {
    let mut client = UnixStream::connect(socket).unwrap();
    let mut written = 0;
    while client.write_all(ONE_REQUEST).is_ok() {
        written += 1;
        written_by_all.fetch_add(1, Ordering::Relaxed);
    }
    written
}

#[test]
fn a_stop_counts_every_frame_whose_write_succeeded() {
    for _ in 0..5 {
        let workplace = Workplace::new();
        let socket = workplace.path("audit.sock");
        let serving = workplace.serve(1, one_socket(&socket, 1, 2));
        let so_far = AtomicU64::new(0);
        let (written, ended) = std::thread::scope(|scope| {
            let write = || write_without_pause(&socket, &so_far);
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(write)).collect();
            while so_far.load(Ordering::Relaxed) < 20_000 {
                std::thread::yield_now();
            }
            let ended = serving.stop();
            (clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>(), ended)
        });
        let report = ended.json()["sockets"][0].clone();
        assert_eq!(
            pick(&report, ["allowed", "malformed_frames", "left_requests"]),
            [json!(written), json!(0), json!(0)]
        );
        assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, written, 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_at_its_time_limit_reports_the_requests_it_left() {
    let database = TestDatabase::sqlite().unwrap();
    let directory = tempfile::tempdir().unwrap();
    // The component hangs at the cue. Then the intake becomes full, and the clients wait.
    let options = Options { cpu_limit: Duration::from_secs(10), intake_capacity: 2, ..Options::default() };
    let tracker = misbehaving_plugin().start(usage::id(1), database.connect().await.unwrap(), options).await.unwrap();
    let socket = |name: &str, workspace| Socket {
        path: directory.path().join(name),
        workspace,
        owner: usage::id(9),
        ids_ignored: false,
        group: None,
    };
    let sockets = [socket("a.sock", usage::id(2)), socket("b.sock", usage::id(3))];
    let limits = DrainLimits { longest: Duration::from_millis(300) };
    let server = AuditServer::start(BoundSockets::bind(&sockets).await.unwrap(), &tracker, limits);
    let reports = server.reports();
    tracker.track(workspace_of(Cue::LoopForever), usage::id(9), 1, 0).unwrap();
    // The component hangs when it receives the cue. From then on the intake stays full.
    let (mut ids, mut full_since) = (100.., None);
    until(|| {
        match tracker.try_track(usage::id(ids.next().unwrap()), usage::id(9), 0, 0) {
            Ok(()) => full_since = None,
            Err(_) => drop(full_since.get_or_insert_with(Instant::now)),
        }
        full_since.is_some_and(|since: Instant| since.elapsed() > Duration::from_millis(200))
    })
    .await;
    let mut clients: Vec<_> = sockets.iter().map(|socket| UnixStream::connect(&socket.path).unwrap()).collect();
    clients.iter_mut().for_each(|client| client.write_all(&ONE_REQUEST.repeat(50)).unwrap());
    until(|| reports.now().iter().all(|report| report.connections == 1)).await;
    let stopped = server.stop().await;
    for report in &stopped {
        assert_eq!((report.allowed, report.left_batches, report.left_requests), (0, 50, 50), "{report:?}");
    }
}

#[test]
fn the_socket_file_exists_from_the_first_start_to_the_last_stop() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    workplace.serve(1, one_socket(&socket, 1, 2)).stop().json();
    let over = AtomicBool::new(false);
    let missing = std::thread::scope(|scope| {
        let look = || {
            let mut missing = 0_u64;
            while !over.load(Ordering::Relaxed) {
                missing += u64::from(fs::symlink_metadata(&socket).is_err());
            }
            missing
        };
        let looking = scope.spawn(look);
        for signal in ["TERM", "KILL", "INT"] {
            let serving = workplace.serve(1, one_socket(&socket, 1, 2));
            match signal {
                "KILL" => serving.kill(),
                signal => {
                    serving.signal(signal);
                    serving.wait().json();
                }
            }
        }
        over.store(true, Ordering::Relaxed);
        looking.join().unwrap()
    });
    assert_eq!(missing, 0, "a client that starts without the file never reports");
}

#[test]
fn waiting_clients_are_counted_at_a_stop_without_free_descriptors() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let mut command = workplace.command_after("ulimit -n 90", ["serve", "--format", "json"]);
    let serving = crate::program::Serving::start(command.args(one_socket(&socket, 1, 2)), 1);
    let idle: Vec<_> = (0..120).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let connect_and_write = || {
        let mut client = UnixStream::connect(&socket).unwrap();
        client.write_all(SESSION).map(|()| client)
    };
    // The server may close a connection to accept another one. Its client connects again.
    let clients: Vec<_> = (0..20).map(|_| std::iter::repeat_with(connect_and_write).find_map(Result::ok)).collect();
    let report = serving.stop().json()["sockets"][0].clone();
    assert_eq!(pick(&report, ["allowed", "denied", "left_requests"]), [json!(180), json!(80), json!(0)]);
    drop((idle, clients));
}
