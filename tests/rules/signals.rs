//! Signals that stop `serve`: after a last flush while it serves, immediately while it starts.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{PROGRAM, Serving, Workplace, numbers, one_socket, pick};

/// A limit that no step of these tests reaches.
const LIMIT: Duration = Duration::from_secs(60);

/// Starts `serve` with the default action of all signals, even if the tests run under `nohup`.
fn serve_with_default_signals(workplace: &Workplace, arguments: impl IntoIterator<Item = String>) -> Serving {
    serve_through(workplace, &["env", "--default-signal=HUP,QUIT"], arguments)
}

fn serve_through(workplace: &Workplace, outer: &[&str], arguments: impl IntoIterator<Item = String>) -> Serving {
    let mut command = workplace.command_through(outer, ["serve", "--format", "json"]);
    Serving::start(command.args(arguments), 1)
}

#[test]
fn sighup_and_sigquit_stop_serve_after_a_last_flush() {
    for signal in ["HUP", "QUIT"] {
        let workplace = Workplace::new();
        let socket = workplace.path("audit.sock");
        let serving = serve_with_default_signals(&workplace, one_socket(&socket, 1, 2));
        send_and_hang_up(&socket, SESSION);
        serving.signal(signal);
        let ended = serving.wait();
        let report = ended.json();
        assert_eq!(pick(&report, ["activities", "failed_flushes"]), [json!(2), json!(0)]);
        assert!(ended.stderr.contains(&format!("signal=\"SIG{signal}\"")), "{}", ended.stderr);
        assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9, 4]);
    }
}

#[test]
fn an_ignored_sighup_does_not_stop_serve() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let serving = serve_through(&workplace, &["env", "--ignore-signal=HUP"], one_socket(&socket, 1, 2));
    serving.signal("HUP");
    send_and_hang_up(&socket, SESSION);
    let ended = serving.stop();
    assert_eq!(ended.json()["activities"], json!(2));
    assert!(ended.stderr.contains("signal=\"SIGTERM\""), "{}", ended.stderr);
}

#[tokio::test]
async fn a_sighup_during_the_last_flush_does_not_interrupt_it() -> anyhow::Result<()> {
    let test = boundary_usage_tests::databases::TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let workplace = Workplace::on(&test.url);
    let socket = workplace.path("audit.sock");
    let arguments = one_socket(&socket, 1, 2).into_iter().chain(["--no-collect".into()]);
    let mut serving = serve_with_default_signals(&workplace, arguments);
    send_and_hang_up(&socket, SESSION);
    let mut collection = database.backend().begin(boundary_usage::Purpose::Collection).await?;
    collection.acquire(boundary_usage::Lock::Cutover, boundary_usage::LockMode::Exclusive).await?;
    // systemd with SendSIGHUP= and shells with a closing terminal send one right after the other.
    serving.signal("TERM");
    serving.signal("HUP");
    serving.wait_for_log("stopping");
    collection.rollback().await;
    assert_eq!(serving.wait().json()["failed_flushes"], json!(0));
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9, 4]);
    Ok(())
}

/// A `script` process (util-linux), which runs a command in a new terminal. It is killed when dropped.
struct Terminal(Child);

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_closed_terminal_stops_serve_after_a_last_flush() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let program = format!("exec env --default-signal=HUP '{PROGRAM}' serve --flush-interval 1h");
    let program = one_socket(&socket, 1, 2).iter().fold(program, |command, argument| format!("{command} '{argument}'"));
    let mut command = workplace.command_through(&["script", "-q", "-c", &program, "/dev/null"], [] as [&str; 0]);
    let terminal = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut terminal = Terminal(terminal.expect("`script` is missing; install util-linux (Debian: bsdutils)"));
    let shown = BufReader::new(terminal.0.stdout.take().unwrap());
    assert!(shown.lines().map_while(Result::ok).any(|line| line.contains("listening on")), "serve did not start");
    send_and_hang_up(&socket, SESSION);
    // The kernel closes the terminal and sends SIGHUP to the processes in it.
    drop(terminal);
    let deadline = Instant::now() + LIMIT;
    let allowed = || workplace.json(["status"])["so_far"]["allowed_requests"].clone();
    while allowed() != 9 {
        assert!(Instant::now() < deadline, "the last flush of serve is not in the database");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a server that accepts connections and never replies.
fn silent_server() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://proxy@{}/usage?sslmode=disable", listener.local_addr().unwrap());
    (listener, url)
}

#[test]
fn a_start_that_waits_for_the_database_logs_it_and_ends_on_a_signal() {
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129), ("QUIT", 131)] {
        let (_server, url) = silent_server();
        let workplace = Workplace::on(&url);
        let socket = workplace.path("audit.sock");
        let mut command = workplace.command_through(&["env", "--default-signal=HUP,QUIT"], ["serve"]);
        let mut serving = Serving::start(command.args(one_socket(&socket, 1, 2)), 0);
        serving.wait_for_log("waiting for the database");
        let signalled = Instant::now();
        serving.signal(signal);
        let ended = serving.wait();
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(signalled.elapsed() < Duration::from_secs(2), "the end took {:?}", signalled.elapsed());
    }
}
