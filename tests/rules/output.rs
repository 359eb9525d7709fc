//! Output that cannot be written, because of a full disk or a closed pipe, does not change the exit code.

use std::fs::OpenOptions;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{Ended, Workplace, numbers, one_socket};

/// A limit that no step of these tests reaches.
const LIMIT: Duration = Duration::from_secs(60);

/// Outputs that accept no bytes.
const BROKEN: [fn() -> Stdio; 2] = [full_disk, closed_pipe];

fn full_disk() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

fn closed_pipe() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

#[test]
fn commands_keep_their_exit_code_when_stderr_cannot_be_written() {
    let workplace = Workplace::new();
    workplace.write("activity", &crate::program::line(1, 2, 3, 4));
    workplace.write("bad", "nonsense\n");
    for (arguments, code) in [
        ("replay -vvv activity", 0),
        ("collect -vvv", 0),
        ("status -vvv", 0),
        ("demo -vvv --plain", 2),
        ("replay -vvv bad", 1),
        ("replay -vvv --skip-invalid activity bad", 0),
        ("status -vvv --database sqlite:missing.db", 1),
        ("status -vvv --database mysql://host/usage", 2),
        ("frobnicate", 2),
        ("serve -vvv --config missing.toml", 1),
    ] {
        for broken in BROKEN {
            let mut command = workplace.command(arguments.split_whitespace());
            let output = command.env("RUST_LOG", "trace").stderr(broken()).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments}");
        }
    }
}

#[test]
fn serve_works_when_its_log_cannot_be_written() {
    for broken in BROKEN {
        let workplace = Workplace::new();
        let socket = workplace.path("audit.sock");
        let mut command = workplace.command(["serve", "-vvv", "--format", "json", "--listen", "127.0.0.1:0"]);
        let child = command.args(one_socket(&socket, 1, 2)).stderr(broken()).spawn().unwrap();
        let deadline = Instant::now() + LIMIT;
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "serve must listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        send_and_hang_up(&socket, SESSION);
        // The shell sends the signal, because the system call needs `unsafe`, which this package forbids.
        let kill = Command::new("sh").args(["-c", r#"kill "$0""#, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let ended: Ended = child.wait_with_output().unwrap().into();
        assert_eq!(ended.json()["activities"], json!(2));
        assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9, 4]);
    }
}

#[test]
fn a_full_stdout_is_an_error_and_a_closed_pipe_is_not() {
    let workplace = Workplace::new();
    workplace.write("nothing", "");
    workplace.json(["replay", "nothing"]);
    for arguments in ["status", "component", "man", "completions bash", "status --format json"] {
        for (broken, code) in BROKEN.into_iter().zip([1, 0]) {
            let mut command = workplace.command(arguments.split_whitespace());
            let output = command.stdout(broken()).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments}: {stderr}");
            assert_eq!(stderr.contains("cannot write to stdout"), code == 1, "{arguments}: {stderr}");
            // Now stdout and stderr both cannot be written.
            let output = workplace.command(arguments.split_whitespace()).stdout(broken()).stderr(broken()).output();
            assert_eq!(output.unwrap().status.code(), Some(code), "{arguments}");
        }
    }
}
