//! A PostgreSQL server of a test's own, to be killed, stopped and started again on the same directory, its disk filled.
//!
//! Unlike the server that the other tests share, it writes through to the disk as in production. It listens on a unix
//! socket alone, whose name nobody can take while the server is down. As with the shared one, a shell watches over it
//! and removes everything when this process ends, however it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};

use crate::postgres_server::{is_root, programs};

/// Makes the directories, and the disk if one of its own is asked for; runs the rest as a user who may run PostgreSQL.
const OUTSIDE: &str = r#"
trap '' HUP INT TERM
directory=$(mktemp -d) || exit 1
mkdir "$directory/disk" "$directory/socket" || exit 1
if [ -n "$disk" ]; then mount -t tmpfs -o "size=$disk,mode=0700" tmpfs "$directory/disk" || exit 1; fi
if [ -n "$owner" ]; then chown -R "$owner" "$directory" || exit 1; fi
export directory
cd /
"$@" sh -c "$inside" </dev/stdin
if [ -n "$disk" ]; then umount "$directory/disk"; fi
rm -rf "$directory"
"#;

/// Answers each line that it reads, the name of a function here, with one line.
const INSIDE: &str = r#"
trap '' HUP INT TERM
cd "$directory" || exit 1
export TMPDIR=/tmp
start() {
    # Those that were killed may take a moment to let go of the shared memory.
    for attempt in 1 2 3 4 5 6 7 8 9; do
        "$programs/postgres" -D disk/data -k "$directory/socket" -p 5432 -c listen_addresses= -c shared_buffers=16MB \
            -c max_wal_size=32MB -c min_wal_size=2MB $settings </dev/null >>log 2>&1 &
        server=$!
        while kill -0 "$server" 2>>log; do
            "$programs/pg_isready" -q -h "$directory/socket" -p 5432 && return 0
            sleep 0.02
        done
        wait "$server"
    done
    tail -n 30 log >&2
    return 1
}
# The postmaster is held first: so it starts no process that would be missed.
crash() {
    kill -STOP "$server" && kill -KILL "$server" $(cat "/proc/$server/task/$server/children")
    wait "$server" 2>>log
    return 0
}
stop() {
    kill -INT "$server"
    wait "$server"
}
fill() {
    cat /dev/zero >disk/ballast 2>>log
    return 0
}
clear() {
    rm disk/ballast
}
"$programs/initdb" --pgdata=disk/data --username=postgres --auth=trust --no-sync --encoding=UTF8 --locale=C \
    --wal-segsize=1 >log 2>&1 && start || { cat log >&2; exit 1; }
echo "$directory"
while read -r command; do
    if "$command"; then echo done; else echo failed; fi
done
kill -QUIT "$server" 2>>log
wait "$server"
"#;

/// The server.
pub struct RestartablePostgres {
    directory: String,
    shell: Arc<Mutex<Shell>>,
}

struct Shell {
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    _watchdog: Child,
}

impl RestartablePostgres {
    /// Starts one with settings (`-c name=value`).
    ///
    /// # Errors
    ///
    /// When PostgreSQL is not installed or does not start.
    pub async fn start(settings: &str) -> Result<Self> {
        Self::start_on("", settings).await
    }

    /// Starts one whose data are on a disk of that size, as `mount` reads it (`64m`).
    ///
    /// # Errors
    ///
    /// Also when this machine does not let us mount one.
    pub async fn start_on_a_disk_of(size: &str) -> Result<Self> {
        Self::start_on(size, "").await
    }

    async fn start_on(disk: &str, settings: &str) -> Result<Self> {
        let mut watchdog = outside(!disk.is_empty());
        watchdog.env("disk", disk).env("settings", settings).env("programs", programs()?).env("inside", INSIDE);
        watchdog.stdin(Stdio::piped()).stdout(Stdio::piped());
        tokio::task::spawn_blocking(move || {
            let mut child = watchdog.spawn().context("cannot run `sh`")?;
            let commands = child.stdin.take().context("the watchdog's input is a pipe")?;
            let answers = BufReader::new(child.stdout.take().context("the watchdog's output is a pipe")?);
            let mut shell = Shell { commands, answers, _watchdog: child };
            let directory = shell.answer().context("PostgreSQL did not start; what it said is above")?;
            Ok(Self { directory, shell: Arc::new(Mutex::new(shell)) })
        })
        .await?
    }

    /// The URL of its database, through its socket.
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost:5432/postgres?host={}/socket", self.directory)
    }

    /// What it has said so far.
    ///
    /// # Errors
    ///
    /// When the file is gone.
    pub fn log(&self) -> Result<String> {
        let log = std::fs::read(format!("{}/log", self.directory))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// Kills all its processes at once (SIGKILL), and answers when the first of them is gone.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn crash(&self) -> Result<()> {
        self.command("crash").await
    }

    /// Stops it as an operator does; whoever is connected is disconnected.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn stop(&self) -> Result<()> {
        self.command("stop").await
    }

    /// Starts it again, and answers when it lets us in.
    ///
    /// # Errors
    ///
    /// When it does not start; what it says is on standard error.
    pub async fn start_again(&self) -> Result<()> {
        self.command("start").await
    }

    /// Fills its disk to the last byte.
    ///
    /// # Errors
    ///
    /// When the watchdog is gone.
    pub async fn fill_disk(&self) -> Result<()> {
        self.command("fill").await
    }

    /// Takes away what fills the disk.
    ///
    /// # Errors
    ///
    /// When nothing does.
    pub async fn clear_disk(&self) -> Result<()> {
        self.command("clear").await
    }

    async fn command(&self, name: &'static str) -> Result<()> {
        let shell = self.shell.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let mut shell = shell.lock().expect("no holder of this lock panics");
            writeln!(shell.commands, "{name}")?;
            shell.answer()
        });
        ensure!(answer.await?? == "done", "to {name} PostgreSQL failed; what it said is above");
        Ok(())
    }
}

impl Shell {
    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            bail!("the shell that watches over PostgreSQL has ended");
        }
        Ok(line.trim_end().to_owned())
    }
}

/// PostgreSQL refuses to run as root, and mounting takes root: each gets what it needs, root or not.
fn outside(mounts: bool) -> Command {
    let (before, inside, owner): (&[_], &[_], _) = match (is_root(), mounts) {
        (true, false) => {
            (&["env"], &["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"], "postgres")
        }
        (true, true) => (
            &["unshare", "--mount", "--"],
            &["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"],
            "postgres",
        ),
        (false, false) => (&["env"], &["env"], ""),
        (false, true) => (
            &["unshare", "--user", "--map-root-user", "--mount", "--"],
            &["unshare", "--user", "--map-user=1000", "--"],
            "",
        ),
    };
    let mut command = Command::new(before[0]);
    command.args(&before[1..]).args(["sh", "-c", OUTSIDE, "watchdog"]).args(inside).env("owner", owner);
    command
}
