//! TLS to PostgreSQL as its manual documents `sslmode`, with a real server and two certificate authorities.

use std::process::Command;

use anyhow::{Result, bail, ensure};
use boundary_usage::Database;
use boundary_usage_tests::postgres_server::PostgresServer;
use boundary_usage_tests::usage::{flush, id, update};
use sqlx::postgres::PgPool;

use crate::migrations::CHILD_URL;

/// Creates a database on the server with TLS, and returns its URL with this host and these parameters.
async fn url(host: &str, parameters: &str) -> Result<String> {
    let server = PostgresServer::with_tls()?;
    let url = server.new_database().await?.replace("127.0.0.1", host);
    Ok(format!("{url}?{parameters}"))
}

fn root(name: &str) -> Result<String> {
    Ok(format!("sslrootcert={}", PostgresServer::with_tls()?.certificate(name).display()))
}

/// Connects, flushes, and returns whether the server reports an encrypted connection.
async fn is_encrypted(url: &str) -> Result<bool> {
    let database = Database::connect(url).await?;
    flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
    let pool = PgPool::connect(url.split('?').next().unwrap_or_default()).await?;
    let query = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                    WHERE application_name = 'boundary-usage' AND datname = current_database()";
    Ok(sqlx::query_scalar(query).fetch_one(&pool).await?)
}

async fn refusal(url: &str) -> Result<String> {
    match Database::connect(url).await.map(drop) {
        Ok(()) => bail!("connected"),
        Err(error) => Ok(format!("{:#}", anyhow::Error::from(error))),
    }
}

#[tokio::test]
async fn the_right_authority_and_host_name_are_accepted() -> Result<()> {
    let ca = root("ca")?;
    ensure!(is_encrypted(&url("localhost", &format!("sslmode=verify-full&{ca}")).await?).await?);
    // The parameter for an authority enables the check without `sslmode`.
    ensure!(is_encrypted(&url("localhost", &ca).await?).await?);
    Ok(())
}

#[tokio::test]
async fn require_encrypts_without_a_check_of_the_name_and_disable_does_not_encrypt() -> Result<()> {
    ensure!(is_encrypted(&url("127.0.0.1", "sslmode=require").await?).await?);
    ensure!(!is_encrypted(&url("127.0.0.1", "sslmode=disable").await?).await?);
    Ok(())
}

#[tokio::test]
async fn a_wrong_authority_is_refused_and_the_error_names_the_remedy() -> Result<()> {
    for parameters in [format!("sslmode=verify-full&{}", root("other")?), "sslmode=verify-full".to_owned()] {
        let refusal = refusal(&url("localhost", &parameters).await?).await?;
        ensure!(refusal.contains("name the file of the one that did with sslrootcert"), "{refusal}");
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_host_name_is_refused_and_the_error_names_the_remedy() -> Result<()> {
    let refusal = refusal(&url("127.0.0.1", &format!("sslmode=verify-full&{}", root("ca")?)).await?).await?;
    ensure!(refusal.contains("connect under a name that the certificate holds"), "{refusal}");
    Ok(())
}

#[tokio::test]
async fn a_server_without_tls_is_refused_if_tls_is_required() -> Result<()> {
    let url = PostgresServer::running()?.new_database().await?;
    for mode in ["require", "verify-full"] {
        let refusal = refusal(&format!("{url}?sslmode={mode}")).await?;
        ensure!(refusal.contains("the server offers no TLS"), "{mode}: {refusal}");
    }
    Ok(())
}

#[tokio::test]
async fn verify_ca_trusts_ssl_cert_file_and_ignores_the_host_name() -> Result<()> {
    let url = url("127.0.0.1", "sslmode=verify-ca").await?;
    // All tests share the environment of this process, so a child process is used.
    for (authority, connects) in [(None, false), (Some("ca"), true), (Some("other"), false)] {
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["--exact", "migrations::child_process_that_connects", "--ignored"]).env(CHILD_URL, &url);
        child.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        if let Some(authority) = authority {
            child.env("SSL_CERT_FILE", PostgresServer::with_tls()?.certificate(authority));
        }
        let output = child.output()?;
        let output_text = String::from_utf8_lossy(&output.stdout);
        ensure!(output_text.contains("1 test") && output.status.success() == connects, "{authority:?}: {output_text}");
        ensure!(authority.is_some() || output_text.contains("SSL_CERT_FILE"), "{output_text}");
    }
    Ok(())
}
