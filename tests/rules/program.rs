//! No tests: how they run the program, as a user does, in a directory of its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};

use serde_json::Value;
use tempfile::TempDir;

/// The path of the program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_program-under-test");

/// A directory to work in, whose SQLite database is the default one.
pub(crate) struct Workplace {
    directory: TempDir,
    /// Holds the state of each `serve`.
    states: TempDir,
    commands: AtomicUsize,
    database: Option<String>,
}

/// A command that has ended.
pub(crate) struct Ended {
    /// Its exit code.
    pub(crate) code: i32,
    /// Its answer.
    pub(crate) stdout: String,
    /// Its errors and logs.
    pub(crate) stderr: String,
}

impl Workplace {
    /// An empty directory.
    pub(crate) fn new() -> Self {
        let [directory, states] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Self { directory, states, commands: AtomicUsize::new(0), database: None }
    }

    /// An empty directory, and a database of another place.
    pub(crate) fn on(database: &str) -> Self {
        Self { database: Some(database.to_owned()), ..Self::new() }
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into the directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The names of the files in the directory, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The program, not yet started. The environment of the tests does not reach it.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.command_through(&[], arguments)
    }

    /// The program as the last arguments of another command, `env` for example. Without arguments, that command alone.
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
        // Several run at once from one directory: each is a replica of its own.
        let number = self.commands.fetch_add(1, Ordering::Relaxed).to_string();
        command.env("XDG_STATE_HOME", self.states.path().join(number));
        command.envs(self.database.iter().map(|url| ("BOUNDARY_USAGE_DATABASE", url)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The program, started by a shell that runs `script` first. The shell becomes the program, so that its id stays.
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

    /// Runs the program to its end; it must succeed, and answer JSON.
    pub(crate) fn json<const N: usize>(&self, arguments: [&str; N]) -> Value {
        let ended: Ended = self.command(arguments).args(["--format", "json"]).output().unwrap().into();
        ended.json()
    }

    /// Runs the program with a text as its standard input.
    pub(crate) fn run_with_input<const N: usize>(&self, arguments: [&str; N], input: &str) -> Ended {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Starts `serve`, and waits until it listens on as many sockets.
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
    /// The answer of a command that succeeded: one line of JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Checks that the command failed with this code, said so on stderr, and answered nothing.
    #[track_caller]
    pub(crate) fn assert_failed(&self, code: i32, reason: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{}", self.stderr);
        assert!(self.stderr.contains(reason), "{reason:?} is not in: {}", self.stderr);
    }
}

/// A running `serve`; killed when dropped.
pub(crate) struct Serving {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Serving {
    /// Starts the command of a `serve`, and waits until it listens on as many sockets.
    pub(crate) fn start(command: &mut Command, sockets: usize) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (says, lines) = mpsc::channel();
        // Read at once: a program whose log nobody reads comes to a halt when the pipe is full.
        let read = move || stderr.lines().try_for_each(|line| says.send(line.unwrap()));
        std::thread::spawn(read);
        let mut serving = Self { child, lines, said: String::new() };
        (0..sockets).for_each(|_| serving.wait_until_it_says("listening on"));
        serving
    }

    /// Reads its log up to a line that contains the text.
    #[track_caller]
    pub(crate) fn wait_until_it_says(&mut self, text: &str) {
        loop {
            let Ok(line) = self.lines.recv() else { panic!("it ended without saying {text:?}: {}", self.said) };
            self.said += &(line.clone() + "\n");
            if line.contains(text) {
                return;
            }
        }
    }

    /// Where it answers HTTP: host and port. It says so before it listens on a socket.
    #[track_caller]
    pub(crate) fn http(&self) -> String {
        let address = self.said.split("HTTP on http://").nth(1).expect("it has said where it answers HTTP");
        address.split('/').next().unwrap().to_owned()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own `kill`: this package may not call the system's.
        let kill = Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name, &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let mut ended = Ended { code: 0, stdout: String::new(), stderr: std::mem::take(&mut self.said) };
        self.child.stdout.take().unwrap().read_to_string(&mut ended.stdout).unwrap();
        self.lines.iter().for_each(|line| ended.stderr += &(line + "\n"));
        ended.code = self.child.wait().unwrap().code().expect("the program was ended by a signal");
        ended
    }

    /// Stops it in order.
    pub(crate) fn stop(self) -> Ended {
        self.signal("TERM");
        self.wait()
    }

    /// Ends it as a crash would, and waits for that.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Named values of an answer, for a comparison at one glance.
pub(crate) fn pick<const N: usize>(answer: &Value, names: [&str; N]) -> [Value; N] {
    names.map(|name| answer[name].clone())
}

/// The four numbers of a summary.
pub(crate) fn numbers(summary: &Value) -> [u64; 4] {
    pick(summary, ["unique_workspaces", "unique_users", "allowed_requests", "denied_requests"])
        .map(|number| number.as_u64().unwrap())
}

/// The id of a number, as text.
pub(crate) fn id(number: u128) -> String {
    boundary_usage_tests::usage::id(number).to_string()
}

/// One line of a recording.
pub(crate) fn line(workspace: u128, owner: u128, allowed: u64, denied: u64) -> String {
    let (workspace, owner) = (id(workspace), id(owner));
    format!(r#"{{"workspace":"{workspace}","owner":"{owner}","allowed":{allowed},"denied":{denied}}}"#) + "\n"
}

/// The arguments of `serve` for one socket.
pub(crate) fn one_socket(socket: &Path, workspace: u128, owner: u128) -> [String; 6] {
    ["--socket", socket.to_str().unwrap(), "--workspace", &id(workspace), "--owner", &id(owner)].map(str::to_owned)
}
