//! A PostgreSQL server of a single test.
//!
//! The test can kill, stop and restart it, fill its disk, and start a standby of it.
//!
//! Unlike the server that the other tests share, it flushes its writes to the disk, as in production. It listens only
//! on a Unix socket, because another process could take its port while the server is down. A shell stops the server and
//! removes all files when the test process ends, as for the shared server.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};

use crate::postgres_server::{is_root, programs};

/// The outer script, which runs the inner script.
///
/// It creates the directories and the disk, if any, and removes them at the end. `"$@"` selects the user of the inner
/// script.
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

/// The inner script, which runs the server.
///
/// Each line of stdin is the name of a function of the script. It prints one line after each command.
const INSIDE: &str = r#"
trap '' HUP INT TERM
cd "$directory" || exit 1
export TMPDIR=/tmp
start() {
    # Killed processes may still use the shared memory for a moment.
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
# SIGSTOP prevents the postmaster from starting a process that would survive.
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
create() {
    if [ -n "$primary" ]; then
        "$programs/pg_basebackup" --pgdata=disk/data --dbname="host=$primary port=5432 user=postgres" \
            --write-recovery-conf --checkpoint=fast --no-sync
    else
        "$programs/initdb" --pgdata=disk/data --username=postgres --auth=trust --no-sync --encoding=UTF8 --locale=C \
            --wal-segsize=1
    fi
}
create >log 2>&1 && start || { cat log >&2; exit 1; }
echo "$directory"
while read -r command; do
    if "$command"; then echo done; else echo failed; fi
done
kill -QUIT "$server" 2>>log
wait "$server"
"#;

/// A running or stopped server.
pub struct RestartablePostgres {
    directory: String,
    shell: Arc<Mutex<Shell>>,
}

struct Shell {
    commands: ChildStdin,
    replies: BufReader<ChildStdout>,
    _watchdog: Child,
}

impl RestartablePostgres {
    /// Starts a server with settings (`-c name=value`).
    ///
    /// # Errors
    ///
    /// Returns an error if PostgreSQL is not installed or does not start.
    pub async fn start(settings: &str) -> Result<Self> {
        Self::start_on("", settings, "").await
    }

    /// Starts a server whose data are on a separate disk.
    ///
    /// The size has the format of `mount`, such as `64m`.
    ///
    /// # Errors
    ///
    /// Returns an error if PostgreSQL is not installed or does not start, or if this machine does not allow the mount.
    pub async fn start_on_a_disk_of(size: &str) -> Result<Self> {
        Self::start_on(size, "", "").await
    }

    /// Starts a hot standby of this server, from a base backup and by streaming replication.
    ///
    /// # Errors
    ///
    /// Returns an error if this server does not run, or if the standby does not start.
    pub async fn start_standby(&self) -> Result<Self> {
        Self::start_on("", "", &self.socket_directory()).await
    }

    /// Starts a server, as the standby of the server with the socket directory `primary` unless that is empty.
    async fn start_on(disk: &str, settings: &str, primary: &str) -> Result<Self> {
        let mut watchdog = watchdog(!disk.is_empty());
        watchdog.env("disk", disk).env("settings", settings).env("programs", programs()?).env("inside", INSIDE);
        watchdog.env("primary", primary);
        watchdog.stdin(Stdio::piped()).stdout(Stdio::piped());
        tokio::task::spawn_blocking(move || {
            let mut child = watchdog.spawn().context("cannot run `sh`")?;
            let commands = child.stdin.take().context("the watchdog's stdin is not a pipe")?;
            let replies = BufReader::new(child.stdout.take().context("the watchdog's stdout is not a pipe")?);
            let mut shell = Shell { commands, replies, _watchdog: child };
            let directory = shell.reply().context("PostgreSQL did not start; its log is above")?;
            Ok(Self { directory, shell: Arc::new(Mutex::new(shell)) })
        })
        .await?
    }

    /// Returns the URL of its database, through its socket.
    pub fn url(&self) -> String {
        url_through(&self.socket_directory())
    }

    /// Returns the directory of its socket.
    pub fn socket_directory(&self) -> String {
        format!("{}/socket", self.directory)
    }

    /// Returns the server's log.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read.
    pub fn log(&self) -> Result<String> {
        let log = std::fs::read(format!("{}/log", self.directory))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// Kills all processes of the server simultaneously (SIGKILL).
    ///
    /// It returns after the postmaster has ended.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not run.
    pub async fn crash(&self) -> Result<()> {
        self.command("crash").await
    }

    /// Stops the server like an operator. It disconnects all clients.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not run.
    pub async fn stop(&self) -> Result<()> {
        self.command("stop").await
    }

    /// Starts the server again, and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not start. Its log is then on stderr.
    pub async fn start_again(&self) -> Result<()> {
        self.command("start").await
    }

    /// Fills the disk of the server completely.
    ///
    /// # Errors
    ///
    /// Returns an error if the watchdog has ended.
    pub async fn fill_disk(&self) -> Result<()> {
        self.command("fill").await
    }

    /// Deletes the file that fills the disk.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such file.
    pub async fn clear_disk(&self) -> Result<()> {
        self.command("clear").await
    }

    async fn command(&self, name: &'static str) -> Result<()> {
        let shell = self.shell.clone();
        let reply = tokio::task::spawn_blocking(move || {
            let mut shell = shell.lock().expect("no holder of this lock panics");
            writeln!(shell.commands, "{name}")?;
            shell.reply()
        });
        ensure!(reply.await?? == "done", "the command `{name}` of the watchdog failed; its output is above");
        Ok(())
    }
}

impl Shell {
    fn reply(&mut self) -> Result<String> {
        let mut line = String::new();
        self.replies.read_line(&mut line)?;
        if line.is_empty() {
            bail!("PostgreSQL's watchdog has ended");
        }
        Ok(line.trim_end().to_owned())
    }
}

/// Returns the URL of the database of the server whose socket is in a directory.
pub fn url_through(socket_directory: &str) -> String {
    format!("postgres://postgres@localhost:5432/postgres?host={socket_directory}")
}

/// Returns the command of the outer script.
///
/// PostgreSQL does not run as root, but a mount needs root. So the two scripts may run as different users.
fn watchdog(mounts: bool) -> Command {
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
