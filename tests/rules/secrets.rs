//! Passwords are never shown: not in logs, even at `trace` and by the driver, nor in errors, nor in `Debug` output.

use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex};

use anyhow::{Result, ensure};
use boundary_usage::Database;
use boundary_usage_cli::cli::Cli;
use boundary_usage_tests::postgres_server::PostgresServer;
use clap::Parser;
use sqlx::{Connection, Executor, PgConnection};
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::fmt::format::FmtSpan;

const SECRET: &str = "hunter2";

/// Collects the log and the spans of this thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// A second subscriber, which ignores everything.
///
/// `tracing` caches for each span and event whether a subscriber wants it. If the process has only one subscriber, the
/// cache considers only the current thread. A thread without a subscriber would then disable the event for all threads.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));

impl Log {
    pub(crate) fn start() -> (Self, DefaultGuard) {
        LazyLock::force(&SECOND);
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
        let subscriber = subscriber.with_span_events(FmtSpan::CLOSE).with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns unusable URLs, each with the secret in another place.
fn unusable() -> Vec<String> {
    [
        // No server listens on port 1.
        "postgres://proxy:SECRET@127.0.0.1:1/usage",
        "postgres://proxy@127.0.0.1:1/usage?password=SECRET",
        "postgres://proxy:SECRET@127.0.0.1:1/usage?sslmode=require",
        "postgres://proxy:SECRET@no-such-host.invalid/usage",
        "postgres://proxy:hun?SECRET@host/usage",
        "postgres://proxy:SECRET/x@host/usage",
        "postgres://proxy:SECRET@host:port/usage",
        "postgres://proxy:SECRET@[host/usage",
        "postgres://proxy@host/usage?passwrod=SECRET",
        "postgres://proxy@host/usage?password=a&SECRET",
        "postgres://proxy@host/usage?sslmode=SECRET",
        "postgres://proxy@host/usage?port=SECRET",
        "postgres:proxy:SECRET@host/usage",
        "postgres//proxy:SECRET@host/usage",
        "mysql://proxy:SECRET@host/usage",
        "sqlite://proxy:SECRET@host/usage",
        "proxy:SECRET@host/usage",
        "SECRET",
    ]
    .map(|url| url.replace("SECRET", SECRET))
    .into()
}

/// Connects by the library and by each command, all of which must fail, and returns all errors.
async fn shown_by_all(url: &str) -> Result<String> {
    let Err(error) = Database::connect(url).await.map(drop) else { anyhow::bail!("connected") };
    let mut shown = format!("{error:?} ");
    shown += &format!("{:#}", anyhow::Error::from(error));
    for command in ["status", "collect", "replay"] {
        let cli = Cli::try_parse_from(["boundary-usage", command, "--database", url])
            .or_else(|_| Cli::try_parse_from(["boundary-usage", command, "--database", url, "-"]))?;
        let Err(error) = cli.run().await else { anyhow::bail!("{command} connected") };
        shown += &format!(" {error:?} {error:#}");
    }
    Ok(shown)
}

#[tokio::test]
async fn the_password_of_an_unusable_url_is_shown_nowhere() -> Result<()> {
    let (log, _guard) = Log::start();
    for url in unusable() {
        let shown = shown_by_all(&url).await?;
        ensure!(!shown.contains(SECRET), "{shown}");
        ensure!(!log.text().contains(SECRET), "{}", log.text());
    }
    Ok(())
}

#[tokio::test]
async fn right_and_wrong_passwords_are_shown_nowhere() -> Result<()> {
    let server = PostgresServer::with_tls()?;
    let admin = server.new_database().await?;
    let mut connection = PgConnection::connect(&admin).await?;
    connection.execute("CREATE ROLE with_password SUPERUSER LOGIN PASSWORD 'hunter2'").await?;
    let (log, _guard) = Log::start();
    let url = admin.replace("postgres@", "with_password:hunter2@");
    let database = Database::connect(&url).await?;
    let status = database.status().await?;
    let shown = format!("{status:?}");
    ensure!(!shown.contains(SECRET) && !log.text().contains(SECRET), "{shown} {}", log.text());
    let shown = shown_by_all(&admin.replace("postgres@", "with_password:not-hunter2@")).await?;
    ensure!(shown.contains("password authentication failed"), "{shown}");
    ensure!(!shown.contains(SECRET) && !log.text().contains(SECRET), "{shown} {}", log.text());
    // The log was active.
    tracing::trace!("the last line");
    ensure!(log.text().contains("the last line"));
    Ok(())
}
