//! Database URLs follow one rule for SQLite and libpq's rules for PostgreSQL.
//!
//! Errors name the invalid part of the URL.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boundary_usage::Database;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::postgres_server::PostgresServer;
use boundary_usage_tests::restartable_postgres::RestartablePostgres;
use boundary_usage_tests::usage::{flush, id, update};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::program::{Ended, Workplace};

/// A limit that is far longer than any time limit of a connection in these tests.
const LIMIT: Duration = Duration::from_secs(60);

/// Returns the whole error text of a failed connection.
async fn refusal(url: &str) -> Result<String> {
    match timeout(LIMIT, Database::connect(url)).await.map(|connected| connected.map(drop)) {
        Ok(Ok(())) => bail!("{url}: the connection succeeded"),
        Ok(Err(error)) => Ok(format!("{:#}", anyhow::Error::from(error))),
        Err(_) => bail!("{url}: the connection did not fail within {LIMIT:?}"),
    }
}

#[tokio::test]
async fn a_sqlite_path_is_decoded_the_same_by_every_command() -> Result<()> {
    for (encoded, file) in [
        ("my%20usage.db", "my usage.db"),
        ("a%3Fb.db", "a?b.db"),
        ("100%25.db", "100%.db"),
        ("50%.db", "50%.db"),
        ("a+b#c&d.db", "a+b#c&d.db"),
        ("%C3%BC.db?mode=rwc", "ü.db"),
    ] {
        for scheme in ["sqlite:", "sqlite://"] {
            let workplace = Workplace::on(&format!("{scheme}{encoded}"));
            workplace.write("lines", &crate::program::line(1, 2, 5, 0));
            let replayed = workplace.run(["replay", "lines"]);
            ensure!(replayed.code == 0, "{encoded}: {}", replayed.stderr);
            ensure!(workplace.path(file).exists(), "{encoded}: {:?}", workplace.files());
            let status = workplace.json(["status"]);
            ensure!(status["rows"][0]["allowed_requests"] == 5, "{encoded}: {status}");
            ensure!(workplace.json(["collect"])["allowed_requests"] == 5, "{encoded}");
        }
    }
    Ok(())
}

#[test]
fn sqlite_urls_that_name_no_usable_file_are_refused_with_the_reason() {
    let workplace = Workplace::new();
    std::fs::create_dir(workplace.path("directory")).unwrap();
    for (url, code, reason) in [
        ("sqlite:directory", 2, "`directory` is a directory"),
        ("sqlite:missing.db?mode=rw", 1, "there is no database file missing.db"),
        ("sqlite:/dev/null", 2, "is not a regular file"),
        ("sqlite:no/such/usage.db", 2, "there is no directory `no/such`"),
        ("sqlite:%3Amemory%3A", 2, "must be a file"),
        ("sqlite:file%3Ausage.db", 2, "./file:"),
        ("sqlite:a%00b.db", 2, "zero byte"),
        ("sqlite:%FF.db", 2, "not UTF-8"),
        ("sqlite:usage.db?mode=ro", 2, "`mode=rwc`"),
    ] {
        for command in ["status", "collect"] {
            let ended: Ended = workplace.command([command, "--database", url]).output().unwrap().into();
            ended.assert_failed(code, reason);
        }
    }
    assert_eq!(workplace.files(), ["directory"]);
}

#[tokio::test]
async fn a_url_without_a_user_connects_as_the_operating_system_user() -> Result<()> {
    let me = std::process::Command::new("id").arg("-un").output()?;
    let me = String::from_utf8(me.stdout)?.trim().to_owned();
    let test = TestDatabase::postgres().await?;
    let url = test.url.replacen("postgres@", "", 1);
    let workplace = Workplace::on(&url);
    let child = |environment: &[(&str, &str)]| {
        let mut command = workplace.command(["status"]);
        command.env_remove("PGUSER").envs(environment.iter().copied());
        Ended::from(command.output().unwrap())
    };
    child(&[]).assert_failed(1, &format!("\"{me}\""));
    child(&[("PGUSER", "user_of_environment")]).assert_failed(1, "\"user_of_environment\"");
    Ok(())
}

#[tokio::test]
async fn postgresql_urls_have_the_meaning_they_have_in_libpq() -> Result<()> {
    let server = PostgresServer::running()?;
    let port = server.port();
    let test = TestDatabase::postgres().await?;
    let name = test.url.rsplit('/').next().context("the URL ends with the database")?;
    let socket = RestartablePostgres::start("").await?;
    let directory = socket.url().split("host=").nth(1).context("the server listens on a socket")?.to_owned();
    for url in [
        format!("postgres:///{name}?host=127.0.0.1&port={port}&user=postgres"),
        format!("postgres://postgres@/{name}?host=127.0.0.1&port={port}"),
        format!("postgresql://postgres@:{port}/{name}?host=127.0.0.1"),
        format!("postgres://postgres@localhost:{port}/{name}?hostaddr=127.0.0.1"),
        format!("postgres://postgres@127.0.0.1:{port}/ignored?dbname={name}"),
        format!("postgres://%70ostgres:@127.0.0.1:{port}/{name}?connect_timeout=5&channel_binding=prefer"),
        format!("postgres://postgres@127.0.0.1:{port}/{name}?target_session_attrs=read-write&gssencmode=disable"),
        format!("postgres://postgres@127.0.0.1:{port}/{name}?application_name=a+b%20c&client_encoding=UTF8"),
        format!("postgres:///postgres?host={directory}&user=postgres&port=5432"),
        format!("postgres://postgres@{}/postgres", directory.replace('/', "%2F")),
    ] {
        let database = Database::connect(&url).await.with_context(|| url.clone())?;
        database.status().await.with_context(|| url.clone())?;
    }
    let named = format!("{}?application_name=a+b%20c", test.url);
    let database = Database::connect(&named).await?;
    ensure!(test.number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'a+b c'").await? > 0);
    database.close().await;
    Ok(())
}

#[tokio::test]
async fn unsupported_parameters_are_refused_with_an_alternative() -> Result<()> {
    for (url, reason) in [
        ("postgres://u@a,b/d", "several hosts"),
        ("postgres://u@a:1,b:2/d", "several hosts"),
        ("postgres://u@/d?host=a,b", "several hosts"),
        ("postgres://u@h/d?channel_binding=require", "sslmode=verify-full"),
        ("postgres://u@h/d?target_session_attrs=standby", "primary"),
        ("postgres://u@h/d?connect_timeout=soon", "connect_timeout"),
        ("postgres://u@h/d?connect_timeout=0", "connect_timeout"),
        ("postgres://u@h/d?service=usage", "host, port, dbname and user"),
        ("postgres://u@h/d?keepalives_idle=30", "time limit"),
        ("postgres://u@h/d?gssencmode=require", "sslmode=verify-full"),
        ("postgres://u@h/d?passfile=x", "PGPASSFILE"),
        ("postgres://u@h/d?sslcrl=x", "sslcrl"),
        ("postgres://u@h/d?nonsense=1", "unknown parameter"),
        ("postgres://u@h:0/d", "port"),
        ("postgres://u@h/d%zz", "%25"),
        ("postgres://u@[::1/d", "]"),
        ("host=localhost dbname=usage", "names no kind of database"),
    ] {
        let text = refusal(url).await?;
        ensure!(text.contains(reason), "{url}: {text}");
    }
    Ok(())
}

#[test]
fn environment_variables_are_used_or_refused_by_name() {
    let workplace = Workplace::on("postgres://u@127.0.0.1/d");
    for (name, value, reason) in [
        ("PGSERVICE", "usage", "PGSERVICE"),
        ("PGPORT", "fivefourthreetwo", "PGPORT"),
        ("PGPORT", "70000", "PGPORT"),
        ("PGSSLMODE", "maybe", "PGSSLMODE"),
        ("PGCHANNELBINDING", "require", "PGCHANNELBINDING"),
        ("PGTARGETSESSIONATTRS", "standby", "PGTARGETSESSIONATTRS"),
        ("PGCONNECT_TIMEOUT", "long", "PGCONNECT_TIMEOUT"),
        ("PGREQUIREPEER", "postgres", "PGREQUIREPEER"),
        ("PGGSSENCMODE", "require", "PGGSSENCMODE"),
        ("PGREQUIREAUTH", "scram-sha-256", "PGREQUIREAUTH"),
    ] {
        let ended: Ended = workplace.command(["status"]).env(name, value).output().unwrap().into();
        ended.assert_failed(2, reason);
        assert!(!ended.stderr.contains("the PostgreSQL URL is not valid"), "{}", ended.stderr);
    }
    // Port 1 has no listener. The variable applies because the URL has no port.
    let ended: Ended = workplace.command(["status"]).env("PGPORT", "1").output().unwrap().into();
    ended.assert_failed(1, "127.0.0.1:1");
}

#[tokio::test]
async fn connection_errors_have_the_address_and_the_message_of_the_server() -> Result<()> {
    let no_listener = refusal("postgres://u@127.0.0.1:1/d").await?;
    ensure!(no_listener.contains("127.0.0.1:1"), "{no_listener}");
    let no_socket = refusal("postgres://u@/d?host=/nonexistent/sockets&port=5433").await?;
    ensure!(no_socket.contains("/nonexistent/sockets/.s.PGSQL.5433"), "{no_socket}");
    let no_name = refusal("postgres://u@no-such-host.invalid/d").await?;
    ensure!(no_name.contains("no-such-host.invalid:5432"), "{no_name}");

    let server = PostgresServer::running()?;
    let no_database = refusal(&server.url("postgres", "no_such_database")).await?;
    ensure!(no_database.contains(&format!("127.0.0.1:{}", server.port())), "{no_database}");
    ensure!(no_database.ends_with("database \"no_such_database\" does not exist"), "{no_database}");
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    test.execute("ALTER TABLE boundary_usage_stats ADD COLUMN extra int NOT NULL").await?;
    let Err(error) = flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await else {
        bail!("the flush succeeded");
    };
    let text = format!("{:#}", anyhow::Error::from(error));
    ensure!(text.contains("null value in column \"extra\"") && !text.contains("at line"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_silent_after_accepting_fails_within_the_time_limit() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let silent = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    let text = refusal(&format!("postgres://u@{address}/d?connect_timeout=1&sslmode=disable")).await?;
    ensure!(text.contains(&address.to_string()) && text.contains("within 1 s"), "{text}");
    silent.abort();
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_silent_after_the_login_fails_within_the_time_limit() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.read_buf(&mut Vec::with_capacity(1024)).await?;
        // These messages accept the login and report that the server is ready for a query.
        stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await?;
        std::future::pending::<std::io::Result<()>>().await
    });
    let text = refusal(&format!("postgres://u@{address}/d?sslmode=disable")).await?;
    ensure!(text.contains(&address.to_string()) && text.contains("within 10 s"), "{text}");
    silent.abort();
    Ok(())
}
