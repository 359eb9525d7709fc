//! The reference's algorithm as native code: each call takes one mutex and inserts into four hash sets.
//!
//! It runs in Rust and, if `go` is installed, in Go.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use uuid::Uuid;

use crate::inputs::Input;
use crate::rounds::{Round, race};

/// The algorithm in Rust, with the standard library's hasher.
#[derive(Default)]
pub(crate) struct Native(Mutex<Sets>);

#[derive(Default)]
struct Sets {
    workspaces_delta: HashSet<Uuid>,
    workspaces_cumulative: HashSet<Uuid>,
    users_delta: HashSet<Uuid>,
    users_cumulative: HashSet<Uuid>,
    allowed: u64,
    denied: u64,
}

impl Native {
    pub(crate) fn track(&self, workspace: Uuid, owner: Uuid, allowed: u64, denied: u64) {
        let mut sets = self.0.lock().expect("no holder of this lock panics");
        sets.workspaces_delta.insert(workspace);
        sets.workspaces_cumulative.insert(workspace);
        sets.users_delta.insert(owner);
        sets.users_cumulative.insert(owner);
        sets.allowed += allowed;
        sets.denied += denied;
    }

    /// Runs a round with new sets, as after a flush.
    pub(crate) fn round(round: &Round) -> Result<Duration> {
        let native = Self::default();
        let took = race(round, |workspace, owner| native.track(workspace, owner, 1, 0));
        let sets = native.0.into_inner().expect("no holder of this lock panics");
        ensure!(sets.allowed + sets.denied == round.activities);
        Ok(took)
    }
}

/// The algorithm in Go, as a process that runs rounds on request.
pub(crate) struct Golang {
    process: Child,
    rounds: ChildStdin,
    times: BufReader<ChildStdout>,
}

impl Golang {
    /// Builds and starts the process. Returns `None` if `go` is not installed.
    pub(crate) fn start(directory: &Path) -> Result<Option<Self>> {
        if Command::new("go").arg("version").output().is_err() {
            return Ok(None);
        }
        let program = directory.join("reference");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/reference");
        let built = Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(&source).status()?;
        ensure!(built.success(), "`go build` in {} failed", source.display());
        let mut process = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let rounds = process.stdin.take().context("stdin is not a pipe")?;
        let times = BufReader::new(process.stdout.take().context("stdout is not a pipe")?);
        Ok(Some(Self { process, rounds, times }))
    }

    pub(crate) fn round(&mut self, round: &Round) -> Result<Duration> {
        let Round { input, threads, activities, first } = round;
        writeln!(self.rounds, "{} {threads} {activities} {first}", input.name())?;
        let mut line = String::new();
        self.times.read_line(&mut line)?;
        Ok(Duration::from_nanos(line.trim().parse().context("the Go program ended")?))
    }

    /// Returns the output of `go version`.
    pub(crate) fn version() -> Option<String> {
        let output = Command::new("go").arg("version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Golang {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the memory of the native sets for this number of distinct ids between two flushes, in bytes.
pub(crate) fn bytes_of_sets(ids: u64) -> u64 {
    let before = crate::start::resident_bytes();
    let native = Native::default();
    for number in 0..ids {
        let (workspace, owner) = Input::Adversarial.ids(number);
        native.track(workspace, owner, 1, 0);
    }
    let after = crate::start::resident_bytes();
    drop(native);
    after.saturating_sub(before)
}
