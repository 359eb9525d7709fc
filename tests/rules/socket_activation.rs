//! Sockets that a supervisor such as systemd opens and passes to `serve`, and that outlive each process.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{Ended, Serving, Workplace, numbers, one_socket};

/// Returns a script that passes standard input as descriptor 3, with the variables that systemd sets.
fn script(name: Option<&str>) -> String {
    let name = name.map(|name| format!("export LISTEN_FDNAMES={name} && ")).unwrap_or_default();
    format!("exec 3<&0 </dev/null && {name}export LISTEN_FDS=1 LISTEN_PID=$$")
}

struct Supervisor {
    workplace: Workplace,
    listener: UnixListener,
    socket: PathBuf,
}

impl Supervisor {
    fn listening_on(name: &str) -> Self {
        let workplace = Workplace::new();
        let socket = workplace.path(name);
        Self { listener: UnixListener::bind(&socket).unwrap(), workplace, socket }
    }

    fn command(&self, configured: &Path, name: Option<&str>) -> Command {
        let mut command = self.workplace.command_after(&script(name), ["serve", "--format", "json"]);
        command.args(one_socket(configured, 1, 2));
        command.stdin(Stdio::from(OwnedFd::from(self.listener.try_clone().unwrap())));
        command
    }

    fn start(&self) -> Serving {
        Serving::start(&mut self.command(&self.socket, Some("usage")), 1)
    }
}

#[test]
fn frames_in_a_passed_socket_survive_stops_and_kill_9() {
    let supervisor = Supervisor::listening_on("audit.sock");
    let wait_in_the_backlog = || {
        let mut client = UnixStream::connect(&supervisor.socket).unwrap();
        std::io::Write::write_all(&mut client, SESSION).unwrap();
    };
    wait_in_the_backlog();
    let serving = supervisor.start();
    send_and_hang_up(&supervisor.socket, SESSION);
    serving.stop().json();
    wait_in_the_backlog();
    let serving = supervisor.start();
    send_and_hang_up(&supervisor.socket, SESSION);
    serving.stop().json();
    supervisor.start().kill();
    wait_in_the_backlog();
    let serving = supervisor.start();
    send_and_hang_up(&supervisor.socket, SESSION);
    serving.stop().json();
    assert_eq!(numbers(&supervisor.workplace.json(["collect"])), [1, 1, 6 * 9, 6 * 4]);
}

#[test]
fn a_passed_socket_is_matched_by_its_name_if_its_path_differs() {
    let supervisor = Supervisor::listening_on("elsewhere.sock");
    let configured = supervisor.workplace.path("audit.sock");
    let serving = Serving::start(&mut supervisor.command(&configured, Some("audit.sock")), 1);
    send_and_hang_up(&supervisor.socket, SESSION);
    serving.stop().json();
    assert!(!configured.exists(), "serve created the configured path");
    assert_eq!(numbers(&supervisor.workplace.json(["collect"])), [1, 1, 9, 4]);
}

#[test]
fn a_passed_socket_that_is_not_configured_is_refused_with_its_path() {
    let supervisor = Supervisor::listening_on("elsewhere.sock");
    let configured = supervisor.workplace.path("audit.sock");
    let ended: Ended = supervisor.command(&configured, None).output().unwrap().into();
    ended.assert_failed(1, "elsewhere.sock");
    assert!(ended.stderr.contains("no configured socket"), "{}", ended.stderr);
}

#[test]
fn systemd_socket_activate_passes_the_socket() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let serve = workplace.command(["serve", "--format", "json"]);
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(&socket).current_dir(workplace.path("."));
    for (name, value) in serve.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        command.arg("--setenv").arg(format!("{}={}", name.to_str().unwrap(), value.to_str().unwrap()));
    }
    command.arg(serve.get_program()).args(serve.get_args()).args(one_socket(&socket, 1, 2));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut serving = Serving::start(&mut command, 0);
    serving.wait_for_log("Listening on");
    send_and_hang_up(&socket, SESSION);
    serving.stop().json();
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9, 4]);
}
