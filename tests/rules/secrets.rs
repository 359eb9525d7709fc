//! What is never shown, whatever goes wrong: a password in no log, also at `trace` and also the driver's, in no error, and
//! in no `Debug` form.

use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex};

use anyhow::{Result, ensure};
use boundary_usage::Database;
use boundary_usage_cli::cli::Cli;
use boundary_usage_cli::commands;
use boundary_usage_tests::postgres_server::PostgresServer;
use clap::Parser;
use sqlx::{Connection, Executor, PgConnection};
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::fmt::format::FmtSpan;

const SECRET: &str = "hunter2";

/// Everything that this thread logs, and its spans.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// Listens to nothing. As long as a log is the only subscriber of the process, a span or event that another thread comes
/// upon first is asked of that thread alone, which has none, and is then nobody's, also not the log's.
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

/// URLs that cannot be connected to, each with the secret in another place.
fn unusable() -> Vec<String> {
    [
        // Nobody listens on port 1.
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

/// Connects by the library and by each command that does; all must fail, and answer what was shown.
async fn shown_by_all(url: &str) -> Result<String> {
    let Err(error) = Database::connect(url).await.map(drop) else { anyhow::bail!("it could connect") };
    let mut shown = format!("{error:?} ");
    shown += &format!("{:#}", anyhow::Error::from(error));
    for command in ["status", "collect", "replay"] {
        let cli = Cli::try_parse_from(["boundary-usage", command, "--database", url])
            .or_else(|_| Cli::try_parse_from(["boundary-usage", command, "--database", url, "-"]))?;
        let Err(error) = commands::run(cli).await else { anyhow::bail!("{command} could connect") };
        shown += &format!(" {error:?} {error:#}");
    }
    Ok(shown)
}

#[tokio::test]
async fn a_url_that_cannot_be_used_shows_its_password_nowhere() -> Result<()> {
    let (log, _guard) = Log::start();
    for url in unusable() {
        let shown = shown_by_all(&url).await?;
        ensure!(!shown.contains(SECRET), "{shown}");
        ensure!(!log.text().contains(SECRET), "{}", log.text());
    }
    Ok(())
}

#[tokio::test]
async fn a_password_right_or_wrong_is_shown_nowhere() -> Result<()> {
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
    // The log was there to be written to.
    tracing::trace!("the last line");
    ensure!(log.text().contains("the last line"));
    Ok(())
}
