//! `serve` starts while PostgreSQL is down, but not if its database configuration is wrong.

use std::io::Write;
use std::os::unix::net::UnixStream;

use boundary_usage_tests::postgres_server::PostgresServer;
use boundary_usage_tests::restartable_postgres::RestartablePostgres;
use serde_json::{Value, json};

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::http::get;
use crate::program::{Ended, Serving, Workplace, numbers, one_socket, pick};

#[tokio::test]
async fn serve_starts_while_postgres_is_down_and_later_counts_all_frames() -> anyhow::Result<()> {
    let postgres = RestartablePostgres::start("").await?;
    postgres.stop().await?;
    let workplace = Workplace::on(&postgres.url());
    let socket = workplace.path("audit.sock");
    let listen = ["--listen", "127.0.0.1:0", "--no-collect"].map(str::to_owned);
    let mut serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(listen));
    serving.wait_for_log("waiting for the database");
    let address = serving.http();
    assert_eq!(get(&address, "/healthz").code, 200);
    let ready = get(&address, "/readyz");
    assert!(ready.code == 503 && ready.body.starts_with("not ready: database: "), "{}", ready.body);
    let status: Value = serde_json::from_str(&get(&address, "/status.json").body)?;
    assert_eq!(pick(&status, ["state", "ready"]), [json!("starting"), json!(false)]);
    assert!(status["database"]["error"].is_string(), "{status}");
    assert!(get(&address, "/").body.contains("Not ready: the database has not been reached yet"));
    // The frames of this client wait in the socket until the database is available.
    let mut client = UnixStream::connect(&socket)?;
    client.write_all(SESSION)?;
    client.shutdown(std::net::Shutdown::Write)?;

    postgres.start_again().await?;
    serving.wait_for_log("serving");
    assert_eq!(get(&address, "/readyz").body, "ready\n");
    serving.stop().json();
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9, 4]);
    Ok(())
}

/// Starts `serve` with a state directory and without collections.
fn serving(workplace: &Workplace) -> Serving {
    let socket = workplace.path("audit.sock");
    let more = ["--listen", "127.0.0.1:0", "--no-collect", "--state-dir", "state", "--checkpoint-interval", "50ms"];
    workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(more.map(str::to_owned)))
}

/// Starts `serve` while the database is down.
fn waiting(workplace: &Workplace) -> Serving {
    let serving = serving(workplace);
    let ready = get(&serving.http(), "/readyz");
    assert!(ready.code == 503 && ready.body.starts_with("not ready: database: "), "{}", ready.body);
    serving
}

/// Sends a session and waits until the checkpoint of this process contains it.
fn send_and_checkpoint(workplace: &Workplace, serving: &Serving) -> anyhow::Result<()> {
    send_and_hang_up(&workplace.path("audit.sock"), SESSION);
    let address = serving.http();
    let status = || serde_json::from_str::<Value>(&get(&address, "/status.json").body);
    let read = chrono::Utc::now();
    loop {
        let checkpoint = status()?["tracker"]["checkpoint"].clone();
        let complete = chrono::DateTime::parse_from_rfc3339(checkpoint["complete_at"].as_str().unwrap())?;
        if complete > read {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[tokio::test]
async fn activity_without_postgres_goes_to_the_checkpoint_and_counts_once() -> anyhow::Result<()> {
    let postgres = RestartablePostgres::start("").await?;
    let workplace = Workplace::on(&postgres.url());
    // The first start saves the hashing key. The second leaves a checkpoint with a session that is not in the database.
    let first = serving(&workplace);
    send_and_hang_up(&workplace.path("audit.sock"), SESSION);
    first.stop().json();
    let before = serving(&workplace);
    send_and_checkpoint(&workplace, &before)?;
    before.kill();
    postgres.stop().await?;

    // The next process is killed during the outage.
    let killed = waiting(&workplace);
    send_and_checkpoint(&workplace, &killed)?;
    killed.kill();
    // The next process is stopped during the outage.
    let stopped = waiting(&workplace);
    send_and_hang_up(&workplace.path("audit.sock"), SESSION);
    stopped.stop().assert_failed(1, "is kept in the checkpoint");
    // The last process runs when the database returns.
    let mut last = waiting(&workplace);
    send_and_checkpoint(&workplace, &last)?;
    postgres.start_again().await?;
    last.wait_for_log("restored the unflushed activity of an earlier process");
    last.stop().json();
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9 * 5, 4 * 5]);
    Ok(())
}

#[tokio::test]
async fn an_old_checkpoint_is_refused_and_activity_without_postgres_counts() -> anyhow::Result<()> {
    let postgres = RestartablePostgres::start("").await?;
    let workplace = Workplace::on(&postgres.url());
    let first = serving(&workplace);
    send_and_checkpoint(&workplace, &first)?;
    first.kill();
    let checkpoint = workplace.files().into_iter().find(|name| name.ends_with(".checkpoint"));
    let state = workplace.path("state");
    let checkpoint = match checkpoint {
        Some(name) => workplace.path(&name),
        None => std::fs::read_dir(&state)?
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|extension| extension == "checkpoint"))
            .unwrap(),
    };
    let old = std::fs::read(&checkpoint)?;
    // The next start flushes the contents of the file. Then the old file is restored, as from a backup.
    let second = serving(&workplace);
    second.stop().json();
    std::fs::write(&checkpoint, &old)?;
    postgres.stop().await?;
    let mut waiting = waiting(&workplace);
    send_and_checkpoint(&workplace, &waiting)?;
    postgres.start_again().await?;
    waiting.wait_for_log("a checkpoint is set aside");
    waiting.stop().json();
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 18, 8]);
    Ok(())
}

#[tokio::test]
async fn another_database_at_the_url_ends_serve_and_the_activity_is_kept() -> anyhow::Result<()> {
    let postgres = RestartablePostgres::start("").await?;
    let workplace = Workplace::on(&postgres.url());
    let first = serving(&workplace);
    first.stop().json();
    let pool = sqlx::PgPool::connect(&postgres.url()).await?;
    sqlx::query("UPDATE boundary_usage_deployment SET hashing_key = decode(repeat('5a', 16), 'hex')")
        .execute(&pool)
        .await?;
    pool.close().await;
    postgres.stop().await?;
    let waiting = waiting(&workplace);
    send_and_checkpoint(&workplace, &waiting)?;
    postgres.start_again().await?;
    let ended = waiting.wait();
    ended.assert_failed(1, "another hashing key");
    ended.assert_failed(1, "is kept in the checkpoint");
    // The next start uses the new database, and logs that activity for the other one is left.
    let next = serving(&workplace).stop();
    next.json();
    assert!(next.stderr.contains("a checkpoint holds activity for another database"), "{}", next.stderr);
    Ok(())
}

#[tokio::test]
async fn a_wrong_database_configuration_is_a_startup_error() -> anyhow::Result<()> {
    let server = PostgresServer::running()?;
    let test = boundary_usage_tests::databases::TestDatabase::postgres().await?;
    for (url, code, reason) in [
        ("nonsense".to_owned(), 2, "BOUNDARY_USAGE_DATABASE"),
        ("sqlite:missing/usage.db".to_owned(), 2, "missing"),
        (server.url("no_such_role", "postgres"), 1, "no_such_role"),
        (server.url("postgres", "no_such_database"), 1, "no_such_database"),
        (test.url_as("postgres") + "?sslmode=require", 1, "TLS"),
    ] {
        let workplace = Workplace::on(&url);
        let mut command = workplace.command(["serve", "--state-dir", "state"]);
        let ended: Ended = command.args(one_socket(&workplace.path("audit.sock"), 1, 2)).output()?.into();
        ended.assert_failed(code, reason);
    }
    Ok(())
}
