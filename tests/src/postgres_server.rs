//! A PostgreSQL server of one's own: one for each test process, gone when that ends, however it ends.
//!
//! A shell starts the server and then reads its standard input, which is a pipe that nobody writes to. When this process
//! ends, be it by a panic or a signal, the kernel closes the pipe; the shell then stops the server and removes its files.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use sqlx::{Connection, Executor, PgConnection};

/// Arguments: where the programs are, the port, and `tls` or nothing. Prints its directory when the server answers.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
directory=$(mktemp -d) || exit 1
cd "$directory" && mkdir socket || exit 1
"$1/initdb" --pgdata=data --username=postgres --auth=trust --no-sync --encoding=UTF8 --locale=C >log 2>&1 || {
    cat log >&2; rm -rf "$directory"; exit 1
}
tls=
if [ "$3" = tls ]; then
    # The server takes a key only from its own user, so the certificates are made here: an authority, the server's
    # certificate for `localhost` and no other name, and an authority that has issued nothing.
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
    # One role has a password; the others are let in as everywhere.
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
    /// Holds the pipe that keeps the server up.
    _watchdog: Child,
}

impl PostgresServer {
    /// Starts the server if this process has none yet.
    ///
    /// # Errors
    ///
    /// When PostgreSQL is not installed or does not start.
    pub fn running() -> Result<&'static Self> {
        static SERVER: OnceLock<Result<PostgresServer, String>> = OnceLock::new();
        let server = SERVER.get_or_init(|| Self::start("").map_err(|error| format!("{error:#}")));
        server.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Starts a second server, one that offers TLS, if this process has none yet. Its role `with_password` needs its
    /// password.
    ///
    /// # Errors
    ///
    /// When PostgreSQL or `openssl` is not installed, or the server does not start.
    pub fn with_tls() -> Result<&'static Self> {
        static SERVER: OnceLock<Result<PostgresServer, String>> = OnceLock::new();
        let server = SERVER.get_or_init(|| Self::start("tls").map_err(|error| format!("{error:#}")));
        server.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// A certificate that the server with TLS has made: `ca`, which has issued the server's for `localhost`, or `other`.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.crt"))
    }

    /// Where the server listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates an empty database, and answers its URL.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn new_database(&self) -> Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres", "postgres")).await?;
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
        connection.close().await?;
        Ok(self.url("postgres", &name))
    }

    /// The URL of a database for a role. The server asks nobody for a password.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    fn start(kind: &str) -> Result<Self> {
        let programs = programs()?;
        // Another process can take the port between our looking and the server's start.
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
        // Standard error is passed on, so that a failure is seen in the test's output.
        watchdog.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
        let mut child = watchdog.spawn().context("cannot run `sh`")?;
        let mut line = String::new();
        let output = child.stdout.as_mut().context("the watchdog's output is a pipe")?;
        BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() {
            child.wait()?;
            bail!("PostgreSQL did not start; what it said is above");
        }
        let directory = PathBuf::from(line.trim_end());
        Ok(Self { port, directory, databases: AtomicUsize::new(0), _watchdog: child })
    }
}

/// The newest server that Debian's packages have installed.
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

/// PostgreSQL refuses to run as root: then the user that its package makes is taken.
fn unprivileged_shell() -> Command {
    if !is_root() {
        return Command::new("sh");
    }
    let mut shell = Command::new("setpriv");
    shell.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--", "sh"]);
    shell.env("TMPDIR", "/tmp").env("HOME", "/nonexistent");
    shell
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}
