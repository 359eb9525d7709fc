//! Certificate files and TLS errors have readable messages.
//!
//! If SSL_CERT_FILE or SSL_CERT_DIR is missing or has no certificate, the start fails.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Result, ensure};
use boundary_usage::Database;
use boundary_usage_tests::postgres_server::PostgresServer;
use boundary_usage_tests::receiver::Receiver;

use crate::delivery::{closed_periods, deliver_with};
use crate::program::{Ended, Workplace, one_socket};

/// Texts of Rust values and type names, which no message may contain.
const DEBUG_TEXT: [&str; 9] = [
    "Other",
    "InvalidContentType",
    "UnknownIssuer",
    "CaUsedAsEndEntity",
    "InvalidMessage",
    "NotValidForName",
    "{ ",
    "(\"",
    "AlertReceived",
];

fn assert_readable(text: &str) {
    for debug in DEBUG_TEXT {
        assert!(!text.contains(debug), "{debug:?} is in {text}");
    }
}

/// Creates files that a variable may name by mistake. Returns each variable with its value and the expected error.
fn mistakes(workplace: &Workplace) -> Vec<(&'static str, String, &'static str)> {
    workplace.write("empty.pem", "");
    workplace.write("text.pem", "no certificate\n");
    workplace.write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    workplace.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    std::fs::create_dir(workplace.path("empty")).unwrap();
    std::fs::create_dir(workplace.path("texts")).unwrap();
    std::fs::write(workplace.path("texts/a.pem"), "no certificate\n").unwrap();
    vec![
        ("SSL_CERT_FILE", "missing.pem".into(), "cannot be read"),
        ("SSL_CERT_FILE", "empty.pem".into(), "holds no certificate"),
        ("SSL_CERT_FILE", "text.pem".into(), "holds no certificate"),
        ("SSL_CERT_FILE", "key.pem".into(), "holds no certificate"),
        ("SSL_CERT_FILE", "broken.pem".into(), "holds no certificate"),
        ("SSL_CERT_FILE", "empty".into(), "cannot be read"),
        ("SSL_CERT_DIR", "missing".into(), "cannot be read"),
        ("SSL_CERT_DIR", "empty".into(), "holds no certificate"),
        ("SSL_CERT_DIR", "texts".into(), "holds no certificate"),
        ("SSL_CERT_DIR", "text.pem".into(), "cannot be read"),
    ]
}

fn assert_names(ended: &Ended, variable: &str, path: &str, reason: &str) {
    ended.assert_failed(2, variable);
    for part in [path, reason] {
        assert!(ended.stderr.contains(part), "{part:?} is not in {}", ended.stderr);
    }
    assert_readable(&ended.stderr);
}

#[test]
fn a_delivery_does_not_start_without_its_certificate_files() {
    let workplace = Workplace::new();
    for (variable, path, reason) in mistakes(&workplace) {
        let mut command = workplace.command(["serve", "--deliver", "https://localhost:1/"]);
        command.args(one_socket(&workplace.path("a.sock"), 1, 2)).env(variable, &path);
        assert_names(&command.output().unwrap().into(), variable, &path, reason);
        // Without TLS, certificates are not needed.
        if reason != "cannot be read" || !path.starts_with("missing") {
            continue;
        }
        let mut command = workplace.command(["serve", "--format", "json", "--deliver", "http://127.0.0.1:1/"]);
        command.args(one_socket(&workplace.path("a.sock"), 1, 2)).env(variable, &path);
        crate::program::Serving::start(&mut command, 1).stop().json();
    }
    // The TLS library would treat an empty SSL_CERT_FILE as a missing file and trust no authority.
    let mut command = workplace.command(["serve", "--format", "json", "--deliver", "https://localhost:1/"]);
    command.args(one_socket(&workplace.path("a.sock"), 1, 2)).env("SSL_CERT_FILE", "");
    crate::program::Serving::start(&mut command, 1).stop().json();
}

#[tokio::test]
async fn a_connection_to_postgresql_fails_without_its_certificate_files() -> Result<()> {
    let server = PostgresServer::with_tls()?;
    let url = server.new_database().await?.replace("127.0.0.1", "localhost");
    Database::connect(&format!("{url}?sslmode=require")).await?.close().await;
    let workplace = Workplace::new();
    for (variable, path, reason) in mistakes(&workplace) {
        let mut command = workplace.command(["collect", "--database", &format!("{url}?sslmode=verify-full")]);
        assert_names(&command.env(variable, &path).output()?.into(), variable, &path, reason);
        // Without verification, certificates are not needed.
        let mut command = workplace.command(["collect", "--database", &format!("{url}?sslmode=require")]);
        assert_eq!(Ended::from(command.env(variable, &path).output()?).code, 0, "{variable}={path}");
    }
    for (name, reason) in [("missing.pem", "cannot be read"), ("text.pem", "holds no certificate")] {
        let url = format!("{url}?sslmode=verify-full&sslrootcert={name}");
        let ended = Ended::from(workplace.command(["collect", "--database", &url]).output()?);
        assert_names(&ended, "sslrootcert", name, reason);
    }
    Ok(())
}

/// Starts a delivery that fails, and returns the log.
fn failed_delivery(workplace: &Workplace, url: &str, authority: Option<&Path>) -> String {
    let environment: Vec<_> = authority.map(|file| ("SSL_CERT_FILE", file.to_str().unwrap())).into_iter().collect();
    let mut serving = deliver_with(workplace, "audit", url, &[], &environment);
    serving.wait_for_log("the delivery failed");
    serving.stop().stderr
}

#[test]
fn tls_errors_of_deliveries_are_readable_and_name_the_remedy() -> Result<()> {
    let server = PostgresServer::with_tls()?;
    let [certificate, authority, other] = ["server", "ca", "other"].map(|name| server.certificate(name));
    let right = Receiver::start_tls(&certificate, &certificate.with_extension("key"))?;
    let with_ca = Receiver::start_tls(&authority, &authority.with_extension("key"))?;
    let port = |receiver: &Receiver| receiver.address.port();
    let plain = std::net::TcpListener::bind("127.0.0.1:0")?;
    let plain_port = plain.local_addr()?.port();
    // A plain HTTP server responds like this to bytes that it cannot parse.
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let refused = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
            stream.write_all(refused).and_then(|()| stream.read_to_end(&mut Vec::new())).ok();
        }
    });
    for (url, authority, reason, remedy) in [
        (
            format!("https://localhost:{}/", port(&right)),
            &other,
            "no authority that is trusted here has issued",
            "SSL_CERT_FILE",
        ),
        (format!("https://127.0.0.1:{}/", port(&right)), &authority, "not for the name 127.0.0.1", "localhost"),
        (
            format!("https://localhost:{}/", port(&with_ca)),
            &authority,
            "certificate of an authority",
            "have one issued",
        ),
        (format!("https://localhost:{plain_port}/"), &authority, "does not speak TLS", "http://"),
    ] {
        let workplace = Workplace::new();
        closed_periods(&workplace, 1);
        let log = failed_delivery(&workplace, &url, Some(authority));
        ensure!(log.contains(reason) && log.contains(remedy), "{reason:?}, {remedy:?}: {log}");
        assert_readable(&log.replace("BOUNDARY", ""));
        let error = workplace.json(["status"])["periods"][0]["delivery"]["last_error"].to_string();
        ensure!(error.contains(reason), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn tls_errors_of_postgresql_are_readable_and_name_the_remedy() -> Result<()> {
    let server = PostgresServer::with_tls()?;
    let url = server.new_database().await?;
    let named = url.replace("127.0.0.1", "localhost");
    let root = |name: &str| format!("sslrootcert={}", server.certificate(name).display());
    let workplace = Workplace::new();
    for (url, reason, remedy) in [
        (format!("{named}?{}", root("other")), "no authority that is trusted here has issued", "sslrootcert"),
        (format!("{url}?sslmode=verify-full&{}", root("ca")), "not for the name 127.0.0.1", "localhost"),
    ] {
        let ended = Ended::from(workplace.command(["collect", "--database", &url]).output()?);
        ended.assert_failed(1, reason);
        ensure!(ended.stderr.contains(remedy), "{}", ended.stderr);
        assert_readable(&ended.stderr);
    }
    Ok(())
}
