//! Support for tests that run the program as a user does, each in its own directory.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The path of the program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_program-under-test");

/// A limit that is far longer than `serve` takes to log a line or to end. A test that waits longer has failed.
const LIMIT: Duration = Duration::from_secs(90);

/// A working directory for the program, with the default SQLite database.
pub(crate) struct Workplace {
    directory: TempDir,
    /// Contains a state directory for each command.
    states: TempDir,
    commands: AtomicUsize,
    database: Option<String>,
}

/// The result of a command that has ended.
pub(crate) struct Ended {
    /// The exit code.
    pub(crate) code: i32,
    /// The standard output: the result.
    pub(crate) stdout: String,
    /// The standard error: errors and logs.
    pub(crate) stderr: String,
}

impl Workplace {
    /// Creates an empty directory.
    pub(crate) fn new() -> Self {
        let [directory, states] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Self { directory, states, commands: AtomicUsize::new(0), database: None }
    }

    /// Creates an empty directory for commands that use this database.
    pub(crate) fn on(database: &str) -> Self {
        Self { database: Some(database.to_owned()), ..Self::new() }
    }

    /// Returns the path of this name in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into the directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Returns the sorted names of the files in the directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Returns a command for the program, without environment variables that would affect it.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.command_through(&[], arguments)
    }

    /// Returns a command that runs the program through another command, for example `env`.
    ///
    /// If there are no arguments, only the other command runs.
    pub(crate) fn command_through<S: AsRef<OsStr>>(
        &self,
        outer: &[&str],
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut arguments = arguments.into_iter().peekable();
        let inner = (outer.is_empty() || arguments.peek().is_some()).then_some(PROGRAM);
        let mut words = outer.iter().copied().chain(inner);
        let mut command = Command::new(words.next().expect("there is an outer command or the program"));
        command.args(words).args(arguments).current_dir(self.directory.path());
        command.env_remove("RUST_LOG").env_remove("BOUNDARY_USAGE_DATABASE").env_remove("STATE_DIRECTORY");
        let certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
        let names = ["BOUNDARY_USAGE_DELIVER", "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"];
        for name in names.into_iter().chain(certificates) {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").env_remove("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        // Several commands may run in one directory simultaneously, and each is a separate replica.
        let number = self.commands.fetch_add(1, Ordering::Relaxed).to_string();
        command.env("XDG_STATE_HOME", self.states.path().join(number));
        command.envs(self.database.iter().map(|url| ("BOUNDARY_USAGE_DATABASE", url)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Returns a shell that runs `script`, and then replaces itself with the program.
    ///
    /// The process id stays the same.
    pub(crate) fn command_after<S: AsRef<OsStr>>(
        &self,
        script: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let program = self.command(arguments);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!(r#"{script} && exec "$0" "$@""#)]).arg(program.get_program());
        shell.args(program.get_args()).current_dir(self.directory.path());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell
    }

    /// Runs the program to its end.
    pub(crate) fn run<const N: usize>(&self, arguments: [&str; N]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs the program, which must succeed, and returns the JSON that it prints.
    pub(crate) fn json<const N: usize>(&self, arguments: [&str; N]) -> Value {
        let ended: Ended = self.command(arguments).args(["--format", "json"]).output().unwrap().into();
        ended.json()
    }

    /// Runs the program to its end with this standard input.
    pub(crate) fn run_with_input<const N: usize>(&self, arguments: [&str; N], input: &str) -> Ended {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Starts `serve`, and waits until it listens on this number of sockets.
    pub(crate) fn serve<S: AsRef<OsStr>>(&self, sockets: usize, arguments: impl IntoIterator<Item = S>) -> Serving {
        let mut command = self.command(["serve", "--format", "json"]);
        Serving::start(command.args(arguments), sockets)
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the program was ended by a signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Returns the line of JSON that a successful command printed.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Checks that the command succeeded.
    #[track_caller]
    pub(crate) fn assert_succeeded(&self) {
        assert_eq!(self.code, 0, "{}", self.stderr);
    }

    /// Checks that the command failed with this code and reason, and printed no result.
    #[track_caller]
    pub(crate) fn assert_failed(&self, code: i32, reason: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{}", self.stderr);
        assert!(self.stderr.contains(reason), "{reason:?} is not in: {}", self.stderr);
    }
}

/// A running `serve`, which is killed when this value is dropped.
pub(crate) struct Serving {
    child: Child,
    lines: Receiver<String>,
    log: String,
}

impl Serving {
    /// Starts a command that runs `serve`, and waits until it listens on this number of sockets.
    pub(crate) fn start(command: &mut Command, sockets: usize) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // A thread always reads the log, because the program blocks when the pipe is full.
        let read = move || stderr.lines().try_for_each(|line| sender.send(line.unwrap()));
        std::thread::spawn(read);
        let mut serving = Self { child, lines, log: String::new() };
        (0..sockets).for_each(|_| serving.wait_for_log("listening on"));
        serving
    }

    /// Reads the log until a line contains the text.
    #[track_caller]
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        loop {
            let Ok(line) = self.lines.recv_timeout(LIMIT) else { panic!("the log lacks {text:?}: {}", self.log) };
            self.log += &(line.clone() + "\n");
            if line.contains(text) {
                return;
            }
        }
    }

    /// Returns the host and port of the HTTP server, which are logged before any socket.
    #[track_caller]
    pub(crate) fn http(&self) -> String {
        let address = self.log.split("HTTP on http://").nth(1).expect("the log contains the HTTP address");
        address.split('/').next().unwrap().to_owned()
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, name: &str) {
        // The shell sends the signal, because the system call needs `unsafe`, which this package forbids.
        let kill = Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name, &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(mut self) -> Ended {
        let deadline = Instant::now() + LIMIT;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the program does not end: {}", self.log);
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut ended = Ended { code: 0, stdout: String::new(), stderr: std::mem::take(&mut self.log) };
        self.child.stdout.take().unwrap().read_to_string(&mut ended.stdout).unwrap();
        self.lines.iter().for_each(|line| ended.stderr += &(line + "\n"));
        ended.code = self.child.wait().unwrap().code().expect("the program was ended by a signal");
        ended
    }

    /// Stops the process with SIGTERM, and waits until it has ended.
    pub(crate) fn stop(self) -> Ended {
        self.signal("TERM");
        self.wait()
    }

    /// Kills the process with SIGKILL, and waits until it has ended.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the values of these names, for one comparison.
pub(crate) fn pick<const N: usize>(object: &Value, names: [&str; N]) -> [Value; N] {
    names.map(|name| object[name].clone())
}

/// Returns the four counts of a summary.
pub(crate) fn numbers(summary: &Value) -> [u64; 4] {
    pick(summary, ["unique_workspaces", "unique_users", "allowed_requests", "denied_requests"])
        .map(|number| number.as_u64().unwrap())
}

/// Returns the id of this number as text.
pub(crate) fn id(number: u128) -> String {
    boundary_usage_tests::usage::id(number).to_string()
}

/// Returns one line of a recording.
pub(crate) fn line(workspace: u128, owner: u128, allowed: u64, denied: u64) -> String {
    let (workspace, owner) = (id(workspace), id(owner));
    format!(r#"{{"workspace":"{workspace}","owner":"{owner}","allowed":{allowed},"denied":{denied}}}"#) + "\n"
}

/// Returns the arguments of `serve` for one socket.
pub(crate) fn one_socket(socket: &Path, workspace: u128, owner: u128) -> [String; 6] {
    ["--socket", socket.to_str().unwrap(), "--workspace", &id(workspace), "--owner", &id(owner)].map(str::to_owned)
}
