//! `serve` starts while PostgreSQL is away, and does not if its configuration is wrong.

use std::io::Write;
use std::os::unix::net::UnixStream;

use boundary_usage_tests::postgres_server::PostgresServer;
use boundary_usage_tests::restartable_postgres::RestartablePostgres;
use serde_json::{Value, json};

use crate::audit_socket::SESSION;
use crate::http::get;
use crate::program::{Ended, Workplace, numbers, one_socket, pick};

#[tokio::test]
async fn serve_starts_while_postgres_is_away_and_counts_what_was_sent_meanwhile() -> anyhow::Result<()> {
    let postgres = RestartablePostgres::start("").await?;
    postgres.stop().await?;
    let workplace = Workplace::on(&postgres.url());
    let socket = workplace.path("audit.sock");
    let listen = ["--listen", "127.0.0.1:0", "--no-collect"].map(str::to_owned);
    let mut serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(listen));
    serving.wait_until_it_says("waiting for the database");
    let address = serving.http();
    assert_eq!(get(&address, "/healthz").code, 200);
    let ready = get(&address, "/readyz");
    assert!(ready.code == 503 && ready.body.starts_with("not ready: database: "), "{}", ready.body);
    let status: Value = serde_json::from_str(&get(&address, "/status.json").body)?;
    assert_eq!(pick(&status, ["state", "ready"]), [json!("starting"), json!(false)]);
    assert!(status["database"]["error"].is_string(), "{status}");
    assert!(get(&address, "/").body.contains("Not ready: database: "));
    // A client connects and writes; it waits until it is read.
    let mut client = UnixStream::connect(&socket)?;
    client.write_all(SESSION)?;
    client.shutdown(std::net::Shutdown::Write)?;

    postgres.start_again().await?;
    serving.wait_until_it_says("serving");
    assert_eq!(get(&address, "/readyz").body, "ready\n");
    serving.stop().json();
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9, 4]);
    Ok(())
}

#[tokio::test]
async fn wrong_configuration_of_the_database_ends_the_start_with_a_message() -> anyhow::Result<()> {
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
