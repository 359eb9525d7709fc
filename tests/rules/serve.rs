//! The command `serve`: sockets, signals, intervals, and replicas that start and stop.

use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;

use boundary_usage_tests::databases::TestDatabase;
use serde_json::json;

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{Workplace, id, numbers, one_socket, pick};

#[test]
fn d5_sigterm_and_sigint_count_all_sent_frames_and_exit_with_0() {
    for signal in ["TERM", "INT"] {
        let workplace = Workplace::new();
        let socket = workplace.path("audit.sock");
        let serving = workplace.serve(1, one_socket(&socket, 1, 2));
        // These clients stay connected, and some are not yet accepted when the signal arrives.
        let mut clients: Vec<_> = (0..20).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        clients.iter_mut().for_each(|client| client.write_all(SESSION).unwrap());
        serving.signal(signal);
        let ended = serving.wait();
        let report = ended.json();
        assert_eq!(pick(&report["sockets"][0], ["allowed", "denied", "batches"]), [json!(180), json!(80), json!(40)]);
        assert_eq!(pick(&report, ["activities", "failed_flushes"]), [json!(40), json!(0)]);
        assert!(socket.exists(), "clients that start while the file is missing never connect");
        assert!(ended.stderr.contains(&format!("signal=\"SIG{signal}\"")), "{}", ended.stderr);
        assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 180, 80]);
    }
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_socket_in_use_is_refused() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    workplace.serve(1, one_socket(&socket, 1, 2)).kill();
    assert!(std::fs::metadata(&socket).unwrap().file_type().is_socket(), "a crash leaves the file behind");

    let serving = workplace.serve(1, one_socket(&socket, 1, 2));
    let second = workplace.command(["serve"]).args(one_socket(&socket, 1, 2)).output().unwrap();
    crate::program::Ended::from(second).assert_failed(1, "another process listens on");
    send_and_hang_up(&socket, SESSION);
    serving.stop().json();
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9, 4]);
}

#[test]
fn each_socket_counts_for_its_workspace_and_owner() {
    let workplace = Workplace::new();
    let socket = |name: &str, workspace, owner| {
        format!("[[socket]]\npath = {name:?}\nworkspace = \"{}\"\nowner = \"{}\"\n", id(workspace), id(owner))
    };
    let file = socket("a.sock", 1, 7) + &socket("b.sock", 2, 7) + &socket("c.sock", 3, 8);
    workplace.write("sockets.toml", &file);
    let serving = workplace.serve(3, ["--config", "sockets.toml", "--replica", &id(5)]);
    for name in ["a.sock", "b.sock", "b.sock", "c.sock"] {
        send_and_hang_up(&workplace.path(name), SESSION);
    }
    let report = serving.stop().json();
    let served = |number: usize| pick(&report["sockets"][number], ["path", "workspace", "owner", "allowed"]);
    assert_eq!(report["replica"], json!(id(5)));
    assert_eq!(served(0), [json!("a.sock"), json!(id(1)), json!(id(7)), json!(9)]);
    assert_eq!(served(1), [json!("b.sock"), json!(id(2)), json!(id(7)), json!(18)]);
    assert_eq!(served(2), [json!("c.sock"), json!(id(3)), json!(id(8)), json!(9)]);
    assert_eq!(workplace.json(["status"])["rows"][0]["replica"], json!(id(5)));
    assert_eq!(numbers(&workplace.json(["collect"])), [3, 2, 36, 16]);
}

#[test]
fn errors_list_all_faults_of_a_configuration_file_or_name_the_missing_file() {
    let workplace = Workplace::new();
    workplace.write("bad.toml", "[[socket]]\npath = \"a.sock\"\nworkspace = \"7\"\ncolour = \"red\"\n");
    let refused = workplace.run(["serve", "--config", "bad.toml"]);
    for fault in ["unknown key `colour`", "`owner` is missing", "`workspace` is `7`"] {
        refused.assert_failed(2, fault);
    }
    workplace.run(["serve", "--config", "missing.toml"]).assert_failed(1, "missing.toml");
    assert_eq!(workplace.files(), ["bad.toml"]);
}

#[test]
fn r7_c3_d10_serve_flushes_and_collects_at_the_requested_intervals() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let intervals = ["-v", "--flush-interval", "20ms", "--collect-interval", "200ms"].map(str::to_owned);
    let mut serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(intervals));
    send_and_hang_up(&socket, SESSION);
    serving.wait_for_log("Written");
    serving.wait_for_log("unique_workspaces=1");
    serving.stop().json();
    let periods = workplace.json(["status"])["periods"].clone();
    let collected = periods.as_array().unwrap().iter().map(|period| period["allowed_requests"].as_u64().unwrap());
    assert_eq!(collected.sum::<u64>(), 9);
}

#[tokio::test]
async fn d5_a_second_signal_ends_serve_immediately_and_the_error_names_the_loss() -> anyhow::Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let workplace = Workplace::on(&test.url);
    let socket = workplace.path("audit.sock");
    let mut serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(["--no-collect".into()]));
    send_and_hang_up(&socket, SESSION);
    // The last flush waits for a collection that does not end.
    let mut collection = database.backend().begin(boundary_usage::Purpose::Collection).await?;
    collection.acquire(boundary_usage::Lock::Cutover, boundary_usage::LockMode::Exclusive).await?;
    serving.signal("TERM");
    serving.wait_for_log("stopping");
    serving.signal("INT");
    serving.wait().assert_failed(1, "stopped immediately by a second SIGINT; activity since the last checkpoint");
    assert!(socket.exists());
    Ok(())
}

#[test]
fn a_stop_disconnects_idle_clients_and_refuses_new_ones() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let serving = workplace.serve(1, one_socket(&socket, 1, 2));
    let mut idle = UnixStream::connect(&socket).unwrap();
    serving.stop().json();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "an idle client is still connected");
    assert!(UnixStream::connect(&socket).is_err());
}
