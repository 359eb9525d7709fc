//! Signals that stop `serve`: in order while it serves, at once while it starts.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{PROGRAM, Serving, Workplace, numbers, one_socket, pick};

/// Longer than any step of these tests takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A `serve` whose signals have their default action, even if the tests run under `nohup`.
fn serve_with_default_signals(workplace: &Workplace, arguments: impl IntoIterator<Item = String>) -> Serving {
    serve_through(workplace, &["env", "--default-signal=HUP,QUIT"], arguments)
}

fn serve_through(workplace: &Workplace, outer: &[&str], arguments: impl IntoIterator<Item = String>) -> Serving {
    let mut command = workplace.command_through(outer, ["serve", "--format", "json"]);
    Serving::start(command.args(arguments), 1)
}

#[test]
fn a_hangup_and_a_quit_stop_serve_in_order_with_a_flush() {
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
fn a_hangup_that_nohup_ignores_does_not_stop_serve() {
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
async fn a_hangup_during_the_last_flush_does_not_cut_it_short() -> anyhow::Result<()> {
    let test = boundary_usage_tests::databases::TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let workplace = Workplace::on(&test.url);
    let socket = workplace.path("audit.sock");
    let arguments = one_socket(&socket, 1, 2).into_iter().chain(["--no-collect".into()]);
    let mut serving = serve_with_default_signals(&workplace, arguments);
    send_and_hang_up(&socket, SESSION);
    let mut collection = database.backend().begin(boundary_usage::Purpose::Collection).await?;
    collection.acquire(boundary_usage::Lock::Cutover, boundary_usage::LockMode::Exclusive).await?;
    // systemd with SendSIGHUP= and shells with a closing terminal send both, one right after the other.
    serving.signal("TERM");
    serving.signal("HUP");
    serving.wait_for_log("stopping");
    collection.rollback().await;
    assert_eq!(serving.wait().json()["failed_flushes"], json!(0));
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9, 4]);
    Ok(())
}

/// A `script` (util-linux): it owns a terminal and runs a command in it. Killed when dropped.
struct Terminal(Child);

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_terminal_that_closes_stops_serve_in_order_with_a_flush() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let program = format!("exec env --default-signal=HUP '{PROGRAM}' serve --flush-interval 1h");
    let program = one_socket(&socket, 1, 2).iter().fold(program, |command, argument| format!("{command} '{argument}'"));
    let mut command = workplace.command_through(&["script", "-q", "-c", &program, "/dev/null"], [] as [&str; 0]);
    let terminal = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut terminal = Terminal(terminal.expect("`script` is missing; install util-linux (Debian: bsdutils)"));
    let shown = BufReader::new(terminal.0.stdout.take().unwrap());
    assert!(shown.lines().map_while(Result::ok).any(|line| line.contains("listening on")), "it must start");
    send_and_hang_up(&socket, SESSION);
    // The kernel closes the terminal, and sends SIGHUP to what runs in it.
    drop(terminal);
    let deadline = Instant::now() + LIMIT;
    let allowed = || workplace.json(["status"])["so_far"]["allowed_requests"].clone();
    while allowed() != 9 {
        assert!(Instant::now() < deadline, "the last flush of serve must reach the database");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A listener that accepts connections and never replies, as a server that hangs.
fn silent_server() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://nobody@{}/usage?sslmode=disable", listener.local_addr().unwrap());
    (listener, url)
}

#[test]
fn a_start_that_waits_for_the_database_says_so_and_ends_at_once_with_a_signal() {
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129), ("QUIT", 131)] {
        let (_server, url) = silent_server();
        let workplace = Workplace::on(&url);
        let socket = workplace.path("audit.sock");
        let mut command = workplace.command_through(&["env", "--default-signal=HUP,QUIT"], ["serve"]);
        let mut serving = Serving::start(command.args(one_socket(&socket, 1, 2)), 0);
        serving.wait_for_log("waiting for the database");
        let asked = Instant::now();
        serving.signal(signal);
        let ended = serving.wait();
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?} to end", asked.elapsed());
    }
}
