//! TLS to PostgreSQL, as its manual documents `sslmode`: a real server, a real authority, and a wrong one.

use std::process::Command;

use anyhow::{Result, bail, ensure};
use boundary_usage::Database;
use boundary_usage_tests::postgres_server::PostgresServer;
use boundary_usage_tests::usage::{flush, id, update};
use sqlx::postgres::PgPool;

use crate::migrations::CHILD_URL;

/// A new database of the server with TLS, with the host and the parameters.
async fn url(host: &str, parameters: &str) -> Result<String> {
    let server = PostgresServer::with_tls()?;
    let url = server.new_database().await?.replace("127.0.0.1", host);
    Ok(format!("{url}?{parameters}"))
}

fn root(name: &str) -> Result<String> {
    Ok(format!("sslrootcert={}", PostgresServer::with_tls()?.certificate(name).display()))
}

/// Connects, flushes, and answers whether that was encrypted, by the server's account.
async fn is_encrypted(url: &str) -> Result<bool> {
    let database = Database::connect(url).await?;
    flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
    let pool = PgPool::connect(url.split('?').next().unwrap_or_default()).await?;
    let question = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                    WHERE application_name = 'boundary-usage' AND datname = current_database()";
    Ok(sqlx::query_scalar(question).fetch_one(&pool).await?)
}

async fn refusal(url: &str) -> Result<String> {
    match Database::connect(url).await.map(drop) {
        Ok(()) => bail!("it could connect"),
        Err(error) => Ok(format!("{:#}", anyhow::Error::from(error))),
    }
}

#[tokio::test]
async fn the_right_authority_and_the_right_name_connect() -> Result<()> {
    let ca = root("ca")?;
    ensure!(is_encrypted(&url("localhost", &format!("sslmode=verify-full&{ca}")).await?).await?);
    // Who names an authority wants it used.
    ensure!(is_encrypted(&url("localhost", &ca).await?).await?);
    Ok(())
}

#[tokio::test]
async fn require_encrypts_and_asks_for_no_name_and_disable_does_not_encrypt() -> Result<()> {
    ensure!(is_encrypted(&url("127.0.0.1", "sslmode=require").await?).await?);
    ensure!(!is_encrypted(&url("127.0.0.1", "sslmode=disable").await?).await?);
    Ok(())
}

#[tokio::test]
async fn a_wrong_authority_is_refused_with_what_to_do() -> Result<()> {
    for parameters in [format!("sslmode=verify-full&{}", root("other")?), "sslmode=verify-full".to_owned()] {
        let refusal = refusal(&url("localhost", &parameters).await?).await?;
        ensure!(refusal.contains("name the file of the one that did with sslrootcert"), "{refusal}");
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_host_name_is_refused_with_what_to_do() -> Result<()> {
    let refusal = refusal(&url("127.0.0.1", &format!("sslmode=verify-full&{}", root("ca")?)).await?).await?;
    ensure!(refusal.contains("connect under a name that the certificate holds"), "{refusal}");
    Ok(())
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() -> Result<()> {
    let url = PostgresServer::running()?.new_database().await?;
    for mode in ["require", "verify-full"] {
        let refusal = refusal(&format!("{url}?sslmode={mode}")).await?;
        ensure!(refusal.contains("the server offers no TLS"), "{mode}: {refusal}");
    }
    Ok(())
}

#[tokio::test]
async fn verify_ca_trusts_the_closed_list_and_looks_at_no_name() -> Result<()> {
    let url = url("127.0.0.1", "sslmode=verify-ca").await?;
    // The environment of this process is every test's; a child has one of its own.
    for (authority, connects) in [(None, false), (Some("ca"), true), (Some("other"), false)] {
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["--exact", "migrations::child_process_that_connects", "--ignored"]).env(CHILD_URL, &url);
        child.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        if let Some(authority) = authority {
            child.env("SSL_CERT_FILE", PostgresServer::with_tls()?.certificate(authority));
        }
        let output = child.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains("1 test") && output.status.success() == connects, "{authority:?}: {said}");
        ensure!(authority.is_some() || said.contains("SSL_CERT_FILE"), "{said}");
    }
    Ok(())
}
