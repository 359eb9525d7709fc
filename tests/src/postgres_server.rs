//! A temporary PostgreSQL server for each test process.
//!
//! A shell starts the server, and then reads its stdin, a pipe without any data. When the test process ends, even by a
//! panic or a signal, the kernel closes the pipe. The shell then stops the server and removes its files.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use sqlx::{Connection, Executor, PgConnection};

/// The script that starts the server, and removes it at the end of stdin.
///
/// Its arguments are the directory of the programs, the port, and `tls` or an empty text. It prints the server's
/// directory when the server accepts connections.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
directory=$(mktemp -d) || exit 1
cd "$directory" && mkdir socket || exit 1
"$1/initdb" --pgdata=data --username=postgres --auth=trust --no-sync --encoding=UTF8 --locale=C >log 2>&1 || {
    cat log >&2; rm -rf "$directory"; exit 1
}
tls=
if [ "$3" = tls ]; then
    # The key file must belong to the server's user, so this script creates the certificates. They are an authority,
    # the server's certificate for `localhost` only, and another authority that has issued nothing.
    {
        new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes" &&
        openssl req -x509 $new -days 2 -subj "/CN=test authority" -keyout ca.key -out ca.crt &&
        openssl req -x509 $new -days 2 -subj "/CN=another authority" -keyout other.key -out other.crt &&
        openssl req $new -subj "/CN=localhost" -keyout server.key -out server.csr &&
        echo "subjectAltName=DNS:localhost" >names &&
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt
    } >log 2>&1 || { cat log >&2; rm -rf "$directory"; exit 1; }
    chmod 600 server.key
    tls="-c ssl=on -c ssl_cert_file=$directory/server.crt -c ssl_key_file=$directory/server.key"
    # Only one role needs a password.
    { echo "host all with_password all scram-sha-256"; cat data/pg_hba.conf; } >hba && cat hba >data/pg_hba.conf
fi
"$1/postgres" -D data -p "$2" -k "$directory/socket" -c listen_addresses=127.0.0.1 -c max_connections=200 \
    -c fsync=off -c full_page_writes=off -c synchronous_commit=off -c shared_buffers=64MB \
    $tls </dev/null >>log 2>&1 &
server=$!
until "$1/pg_isready" -q -h "$directory/socket" -p "$2"; do
    kill -0 "$server" 2>/dev/null || { cat log >&2; rm -rf "$directory"; exit 1; }
    sleep 0.05
done
echo "$directory"
cat >/dev/null
kill -QUIT "$server"
wait "$server"
rm -rf "$directory"
"#;

/// The server of this process.
pub struct PostgresServer {
    port: u16,
    directory: PathBuf,
    databases: AtomicUsize,
    /// The shell, whose stdin stays open until this process ends.
    _watchdog: Child,
}

impl PostgresServer {
    /// Returns the server of this process.
    ///
    /// The first call starts it.
    ///
    /// # Errors
    ///
    /// Returns an error if PostgreSQL is not installed or does not start.
    pub fn running() -> Result<&'static Self> {
        static SERVER: OnceLock<Result<PostgresServer, String>> = OnceLock::new();
        let server = SERVER.get_or_init(|| Self::start("").map_err(|error| format!("{error:#}")));
        server.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Returns the server of this process that offers TLS.
    ///
    /// The first call starts it. Its role `with_password` needs a password.
    ///
    /// # Errors
    ///
    /// Returns an error if PostgreSQL or `openssl` is not installed, or if the server does not start.
    pub fn with_tls() -> Result<&'static Self> {
        static SERVER: OnceLock<Result<PostgresServer, String>> = OnceLock::new();
        let server = SERVER.get_or_init(|| Self::start("tls").map_err(|error| format!("{error:#}")));
        server.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Returns the path of a certificate authority of the server with TLS.
    ///
    /// `ca` issued the server's certificate for `localhost`; `other` issued none.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.crt"))
    }

    /// Returns the server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates an empty database, and returns its URL.
    ///
    /// # Errors
    ///
    /// Returns an error if the server cannot create it.
    pub async fn new_database(&self) -> Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres", "postgres")).await?;
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
        connection.close().await?;
        Ok(self.url("postgres", &name))
    }

    /// Returns the URL of a database for a role, without a password.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    fn start(kind: &str) -> Result<Self> {
        let programs = programs()?;
        // Another process can take the port before the server starts.
        let mut retries = 0..2;
        loop {
            match Self::start_on(&programs, free_port()?, kind) {
                Err(_) if retries.next().is_some() => {}
                outcome => return outcome,
            }
        }
    }

    fn start_on(programs: &Path, port: u16, kind: &str) -> Result<Self> {
        let mut watchdog = unprivileged_shell();
        watchdog.args(["-c", WATCHDOG, "watchdog"]).arg(programs).arg(port.to_string()).arg(kind);
        // The shell inherits stderr, so that the test's output shows why the server failed.
        watchdog.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
        let mut child = watchdog.spawn().context("cannot run `sh`")?;
        let mut line = String::new();
        let output = child.stdout.as_mut().context("the watchdog's stdout is not a pipe")?;
        BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() {
            child.wait()?;
            bail!("PostgreSQL did not start; its log is above");
        }
        let directory = PathBuf::from(line.trim_end());
        Ok(Self { port, directory, databases: AtomicUsize::new(0), _watchdog: child })
    }
}

/// Returns the directory of the newest server that Debian's packages have installed.
pub(crate) fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |directory: &PathBuf| directory.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let programs = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    programs
        .max_by_key(version)
        .context("PostgreSQL is not installed (no /usr/lib/postgresql/*/bin/initdb); run `make setup`")
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Returns a shell for the server.
///
/// PostgreSQL does not run as root. If the tests run as root, the shell runs as the user of PostgreSQL's package.
pub(crate) fn unprivileged_shell() -> Command {
    if !is_root() {
        return Command::new("sh");
    }
    let mut shell = Command::new("setpriv");
    shell.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--", "sh"]);
    shell.env("TMPDIR", "/tmp").env("HOME", "/nonexistent");
    shell
}

/// Returns whether the tests run as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}
