//! A PgBouncer of a test's own, in front of the PostgreSQL server of this process.
//!
//! A shell starts it and then reads its standard input, which is a pipe. When the test ends, or kills the pooler, the
//! pipe closes, and the shell kills PgBouncer.

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::postgres_server::{PostgresServer, unprivileged_shell};

/// Runs the program `$1` with the configuration `$2` and the log `$3` until standard input ends.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
"$1" "$2" </dev/null >>"$3" 2>&1 &
pooler=$!
cat >/dev/null
kill -KILL "$pooler"
wait "$pooler"
"#;

/// The longest wait for the start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The time for which a client has a connection to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// One transaction.
    Transaction,
    /// Until the client disconnects.
    Session,
}

impl PoolMode {
    /// All modes that the product supports.
    pub const ALL: [Self; 2] = [Self::Transaction, Self::Session];

    fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
        }
    }
}

/// A running PgBouncer. Dropping it kills it.
pub struct PgBouncer {
    port: u16,
    directory: TempDir,
    /// `None` after a kill.
    watchdog: Option<Child>,
}

impl PgBouncer {
    /// Starts a pooler with at most `pool_size` connections to the server for each database.
    ///
    /// All other settings are the default ones, apart from addresses and authentication.
    ///
    /// # Errors
    ///
    /// Returns an error if PgBouncer or PostgreSQL is not installed or does not start.
    pub fn start(mode: PoolMode, pool_size: usize) -> Result<Self> {
        let server = PostgresServer::running()?;
        let directory = tempfile::tempdir()?;
        // PgBouncer refuses to run as root, and another user must be able to read its files.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (server, mode) = (server.port(), mode.name());
        let configuration = format!(
            "[databases]
            * = host=127.0.0.1 port={server} user=postgres
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = any
            pool_mode = {mode}
            default_pool_size = {pool_size}
            "
        );
        fs::write(directory.path().join("pgbouncer.ini"), configuration)?;
        let mut pooler = Self { port, directory, watchdog: None };
        pooler.start_again()?;
        Ok(pooler)
    }

    /// Returns the URL of the database that this URL of the server names.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL names no database.
    pub fn url_of(&self, direct: &str) -> Result<String> {
        let (_, database) = direct.rsplit_once('/').context("the URL names a database")?;
        Ok(format!("postgres://postgres@127.0.0.1:{}/{database}", self.port))
    }

    /// Kills the pooler with SIGKILL, and waits until it has ended.
    ///
    /// # Errors
    ///
    /// Returns an error if the pooler cannot be awaited.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            watchdog.wait()?;
        }
        Ok(())
    }

    /// Starts the pooler on the same port, and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// Returns an error if PgBouncer is not installed or does not start.
    pub fn start_again(&mut self) -> Result<()> {
        let file = |name| self.directory.path().join(name);
        let (configuration, log) = (file("pgbouncer.ini"), file("log"));
        let mut shell = unprivileged_shell();
        shell.args(["-c", WATCHDOG, "watchdog"]).arg(program()?).arg(&configuration).arg(&log);
        shell.stdin(Stdio::piped()).current_dir("/");
        self.watchdog = Some(shell.spawn().context("cannot run `sh`")?);
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if Instant::now() > deadline {
                bail!("PgBouncer did not start: {}", logged(&log));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // The shell kills the pooler even if its end cannot be awaited.
        let _ = self.kill();
    }
}

/// Returns the path of the program.
fn program() -> Result<PathBuf> {
    // Debian installs it into a directory that is not on the PATH of every user.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let program =
        directories.find_map(|directory| Some(directory.join("pgbouncer")).filter(|program| program.exists()));
    program.context("PgBouncer is not installed (no /usr/sbin/pgbouncer); run `make setup`")
}

fn logged(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}
