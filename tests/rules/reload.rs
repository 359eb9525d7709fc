//! SIGHUP makes `serve` read its configuration again, and a supervisor such as systemd is notified.

use std::io::Write;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use boundary_usage_cli::audit_socket::AuditClient;
use boundary_usage_tests::on_each_database;
use serde_json::{Value, json};

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::http::get;
use crate::program::{Serving, Workplace, id, numbers};

/// The decisions of a session: allowed and denied.
const DECISIONS: (u64, u64) = (9, 4);

const RELOADED: &str = "reloaded the configuration";

fn socket(workplace: &Workplace, name: &str) -> PathBuf {
    workplace.path(&format!("{name}.sock"))
}

/// Writes a configuration with these sockets: a name, and the number of the workspace.
fn configure(workplace: &Workplace, sockets: &[(&str, u128)]) {
    let table = |(name, workspace): &(&str, u128)| {
        let path = socket(workplace, name);
        format!("[[socket]]\npath = {path:?}\nworkspace = \"{}\"\nowner = \"{}\"\n", id(*workspace), id(100))
    };
    let tables: String = sockets.iter().map(table).collect();
    // The file is replaced atomically, as a careful operator does it.
    workplace.write("new.toml", &tables);
    std::fs::rename(workplace.path("new.toml"), workplace.path("serve.toml")).unwrap();
}

fn serve(workplace: &Workplace, sockets: usize, more: &[&str]) -> Serving {
    let mut command = workplace.command_through(
        &["env", "--default-signal=HUP"],
        ["serve", "--format", "json", "--no-collect", "--config", "serve.toml"],
    );
    Serving::start(command.args(more), sockets)
}

fn reload(serving: &mut Serving) {
    serving.signal("HUP");
    serving.wait_for_log(RELOADED);
}

/// Returns the sums of the sockets of the final report.
fn decisions(report: &Value) -> (u64, u64) {
    let sum =
        |name: &str| report["sockets"].as_array().unwrap().iter().map(|socket| socket[name].as_u64().unwrap()).sum();
    (sum("allowed"), sum("denied"))
}

on_each_database! {
    async fn new_sockets_open_removed_ones_drain_and_others_continue(test) {
        let workplace = Workplace::on(&test.url);
        configure(&workplace, &[("kept", 1), ("removed", 2)]);
        let mut serving = serve(&workplace, 2, &[]);
        let mut kept = UnixStream::connect(socket(&workplace, "kept"))?;
        let mut removed = UnixStream::connect(socket(&workplace, "removed"))?;
        kept.write_all(SESSION)?;
        removed.write_all(SESSION)?;

        configure(&workplace, &[("kept", 1), ("added", 3)]);
        reload(&mut serving);
        send_and_hang_up(&socket(&workplace, "added"), SESSION);
        assert!(UnixStream::connect(socket(&workplace, "removed")).is_err());
        // The connection from before the reload still counts.
        kept.write_all(SESSION)?;
        drop((kept, removed));

        let report = serving.stop().json();
        assert_eq!(decisions(&report), (4 * DECISIONS.0, 4 * DECISIONS.1));
        assert_eq!(numbers(&workplace.json(["collect"])), [3, 1, 4 * DECISIONS.0, 4 * DECISIONS.1]);
        Ok(())
    }

    async fn a_reload_under_load_loses_nothing(test) {
        let workplace = Workplace::on(&test.url);
        let (even, odd) = ([("kept", 1), ("a", 2)], [("kept", 1), ("b", 3)]);
        configure(&workplace, &even);
        let mut serving = serve(&workplace, 2, &["--flush-interval", "50ms"]);
        let done = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..3).map(|_| scope.spawn(|| report_until(&done, &socket(&workplace, "kept")))).collect();
            for round in 0..20 {
                configure(&workplace, if round % 2 == 0 { &odd } else { &even });
                reload(&mut serving);
                let other = socket(&workplace, if round % 2 == 0 { "b" } else { "a" });
                send_and_hang_up(&other, SESSION);
            }
            done.store(true, Ordering::Relaxed);
            clients.into_iter().map(|client| client.join().unwrap()).sum::<Result<u64>>()
        })?;
        let report = serving.stop().json();
        let expected = (sent + 20 * DECISIONS.0, 20 * DECISIONS.1);
        assert_eq!(decisions(&report), expected);
        assert_eq!(numbers(&workplace.json(["collect"])), [3, 1, expected.0, expected.1]);
        Ok(())
    }
}

/// Reports allowed requests over one connection until `done`, and returns their number.
fn report_until(done: &AtomicBool, socket: &Path) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = AuditClient::connect(socket).await?;
        let mut sent = 0;
        while !done.load(Ordering::Relaxed) {
            client.report(true, "https://a.test/").await?;
            sent += 1;
        }
        client.flush().await?;
        client.finish().await?;
        Ok(sent)
    })
}

#[test]
fn a_socket_with_another_workspace_is_opened_again() {
    let workplace = Workplace::new();
    configure(&workplace, &[("audit", 1)]);
    let mut serving = serve(&workplace, 1, &[]);
    let audit = socket(&workplace, "audit");
    let mut before = UnixStream::connect(&audit).unwrap();
    before.write_all(SESSION).unwrap();
    configure(&workplace, &[("audit", 2)]);
    reload(&mut serving);
    send_and_hang_up(&audit, SESSION);
    let report = serving.stop().json();
    assert_eq!(decisions(&report), (2 * DECISIONS.0, 2 * DECISIONS.1));
    assert_eq!(numbers(&workplace.json(["collect"]))[..2], [2, 1]);
}

#[test]
fn a_faulty_configuration_changes_nothing_and_is_reported() {
    let workplace = Workplace::new();
    configure(&workplace, &[("audit", 1)]);
    let mut serving = serve(&workplace, 1, &[]);
    let audit = socket(&workplace, "audit");
    let mut client = UnixStream::connect(&audit).unwrap();
    for (text, reason) in [("[[socket]]\npath = 7\n", "line 2"), ("", "no socket"), ("[[socket]]\n", "`path`")] {
        workplace.write("serve.toml", text);
        serving.signal("HUP");
        serving.wait_for_log(reason);
    }
    // A socket that cannot be bound is a fault, too.
    workplace.write("no.sock", "not a socket");
    configure(&workplace, &[("no", 2), ("other", 3)]);
    serving.signal("HUP");
    serving.wait_for_log("exists and is not a socket");
    client.write_all(SESSION).unwrap();
    send_and_hang_up(&audit, SESSION);
    drop(client);
    assert!(UnixStream::connect(socket(&workplace, "other")).is_err());
    let ended = serving.stop();
    assert_eq!(ended.stderr.matches("cannot reload the configuration; nothing has changed").count(), 4);
    assert_eq!(decisions(&ended.json()), (2 * DECISIONS.0, 2 * DECISIONS.1));
}

#[test]
fn the_metrics_of_removed_sockets_do_not_decrease() {
    let workplace = Workplace::new();
    configure(&workplace, &[("kept", 1), ("removed", 2)]);
    let mut serving = serve(&workplace, 2, &["--listen", "127.0.0.1:0"]);
    send_and_hang_up(&socket(&workplace, "removed"), SESSION);
    configure(&workplace, &[("kept", 1)]);
    // The second reload adds up the sockets that the first one has removed.
    (0..2).for_each(|_| reload(&mut serving));
    let metrics = get(&serving.http(), "/metrics").body;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(&format!("boundary_usage_{name} ")));
        line.unwrap_or_else(|| panic!("{name} is missing: {metrics}")).rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!([value("sockets"), value("client_connections_total")], ["1", "1"]);
    serving.stop();
}

#[test]
fn a_supervisor_is_notified_of_start_reload_status_and_stop() {
    let workplace = Workplace::new();
    configure(&workplace, &[("audit", 1)]);
    let supervisor = UnixDatagram::bind(workplace.path("notify")).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut messages = Vec::new();
    let mut receive = |part: &str| {
        while !messages.iter().any(|message: &String| message.contains(part)) {
            let mut buffer = [0; 4096];
            let length =
                supervisor.recv(&mut buffer).unwrap_or_else(|error| panic!("no {part}: {error}: {messages:?}"));
            messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        std::mem::take(&mut messages)
    };
    let mut command = workplace
        .command_through(&["env", "--default-signal=HUP"], ["serve", "--format", "json", "--config", "serve.toml"]);
    let mut serving =
        Serving::start(command.env("NOTIFY_SOCKET", workplace.path("notify")).env("WATCHDOG_USEC", "300000"), 1);
    receive("READY=1");
    receive("STATUS=open period: 0 workspaces, 0 users, 0 allowed, 0 denied");
    receive("WATCHDOG=1");
    reload(&mut serving);
    let reloading = receive("RELOADING=1").concat();
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    receive("READY=1");
    receive("WATCHDOG=1");
    assert_eq!(serving.stop().json()["failed_flushes"], json!(0));
    receive("STOPPING=1");
}
