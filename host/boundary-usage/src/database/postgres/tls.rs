//! TLS to PostgreSQL: the effective `sslmode`, and descriptions of failed handshakes.
//!
//! The modes have the meaning that PostgreSQL's manual describes. Two rules are stricter than libpq's:
//!
//! - A remote host is verified unless the URL sets another mode.
//! - `verify-ca` needs SSL_CERT_FILE or SSL_CERT_DIR.
//!   The driver always trusts the machine's authorities too, and this mode does not check the host's name.
//!   Without these variables, any certificate of a public authority would pass.

use std::net::IpAddr;
use std::path::Path;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::certificates::{self, Remedies};

/// The modes, from the weakest to the strongest.
const MODES: &str = "disable, allow, prefer, require, verify-ca or verify-full";

/// The value of `sslrootcert` for the machine's authorities.
pub(in crate::database) const SYSTEM: &str = "system";

/// The TLS parameters of the URL or the environment.
#[derive(Default)]
pub(in crate::database) struct TlsParams {
    /// `sslmode` or PGSSLMODE.
    pub(in crate::database) mode: Option<String>,
    /// `sslrootcert` or PGSSLROOTCERT: a path, certificates in PEM format, or `system`.
    pub(in crate::database) root: Option<String>,
    /// Whether SSL_CERT_FILE or SSL_CERT_DIR replaces the machine's authorities.
    pub(in crate::database) machine_roots_replaced: bool,
}

/// Sets the TLS mode of a connection. Returns the reason if the parameters are invalid.
pub(in crate::database) fn resolve(options: PgConnectOptions, params: &TlsParams) -> Result<PgConnectOptions, String> {
    let mode = params.mode.as_deref().map(|mode| mode.parse::<PgSslMode>());
    let mode = mode.transpose().map_err(|_| format!("sslmode must be {MODES}"))?;
    // A Unix socket needs no TLS, and libpq ignores the mode there, too.
    if options.get_socket().is_some() || options.get_host().starts_with('/') {
        return Ok(options.ssl_mode(PgSslMode::Disable));
    }
    // The driver would pass the brackets of an IPv6 address to TLS, which does not accept them.
    let host = options.get_host().trim_matches(['[', ']']).to_owned();
    let is_remote = !is_this_machine(&host);
    let mode = effective(mode, params, is_remote)?;
    if let PgSslMode::VerifyCa | PgSslMode::VerifyFull = mode {
        certificates::check_variables().map_err(|error| error.to_string())?;
        params.root.as_deref().map_or(Ok(()), check_root)?;
    }
    Ok(options.host(&host).ssl_mode(mode))
}

fn effective(mode: Option<PgSslMode>, params: &TlsParams, is_remote: bool) -> Result<PgSslMode, String> {
    let is_system = params.root.as_deref() == Some(SYSTEM);
    let mode = match mode {
        None if is_remote || params.root.is_some() => PgSslMode::VerifyFull,
        None => PgSslMode::Prefer,
        // According to the manual, `require` with a root certificate behaves like `verify-ca`.
        Some(PgSslMode::Require) if params.root.is_some() && !is_system => PgSslMode::VerifyCa,
        Some(mode) => mode,
    };
    match mode {
        PgSslMode::VerifyFull => Ok(mode),
        _ if is_system => Err("sslrootcert=system needs sslmode=verify-full".to_owned()),
        PgSslMode::VerifyCa if !params.machine_roots_replaced => Err(
            "sslmode=verify-ca (and require with sslrootcert) does not check the host name, so any certificate of a \
             public authority would pass; use sslmode=verify-full, or set SSL_CERT_FILE to the file of the only \
             authority to trust"
                .to_owned(),
        ),
        _ => Ok(mode),
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Checks `sslrootcert`. The driver's error would lack the path, and the driver accepts a file without a certificate.
fn check_root(root: &str) -> Result<(), String> {
    if root == SYSTEM {
        return Ok(());
    }
    if root.trim().starts_with("-----BEGIN") {
        let is_valid = certificates::contains_certificate(root.as_bytes());
        return if is_valid { Ok(()) } else { Err("the text of sslrootcert holds no certificate".to_owned()) };
    }
    certificates::check_file(Path::new(root)).map_err(|reason| format!("sslrootcert names {root}, which {reason}"))
}

const REMEDIES: Remedies = Remedies {
    authority: "name the file of the one that did with sslrootcert",
    plain: "check host and port, and whether a proxy stands before the server",
};

/// Describes a TLS error and its remedy. Returns `None` for other errors.
pub(super) fn refusal(error: &sqlx::Error) -> Option<String> {
    let tls = |error: &rustls::Error| certificates::describe(error, REMEDIES);
    match error {
        sqlx::Error::Tls(reason) if reason.to_string().contains("does not support TLS") => Some(
            "the server offers no TLS, and sslmode requires it; enable it there (`ssl = on`), or set \
             sslmode=disable if the network is trusted"
                .to_owned(),
        ),
        sqlx::Error::Tls(reason) => Some(match reason.downcast_ref::<rustls::Error>() {
            Some(reason) => tls(reason),
            None => format!("TLS cannot be set up: {reason}"),
        }),
        sqlx::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>().map(tls),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBbjCCAROgAwIBAgIUVglZEGvXGpQ8HFiuaVMCOa+uSIkwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYTAeFw0yNjExMjgwMTQyMzlaFw0yNjExMjkwMTQyMzlaMAwx
CjAIBgNVBAMMAWEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAT6i8o14IUhNvjd
sePc82lg78F1QdmNHCix6qVb2/9E8V78U9R1JnIOjXJlzJyj2cTIP4yLxLgCo2uS
1D54ACouo1MwUTAdBgNVHQ4EFgQUKDxWZy4Li2cQN7L7FAhbsnwx9gwwHwYDVR0j
BBgwFoAUKDxWZy4Li2cQN7L7FAhbsnwx9gwwDwYDVR0TAQH/BAUwAwEB/zAKBggq
hkjOPQQDAgNJADBGAiEAhNwkS6oJFOnNh0ulRN5l4sMJzlD/pJmd3eOUC979lREC
IQD75IgwRpXTVkTadPStaS9hlx6Pk1dBxwSFv6U1ustbzg==
-----END CERTIFICATE-----
";

    fn resolved(host: &str, mode: Option<&str>, root: Option<&str>) -> Result<String, String> {
        let options = PgConnectOptions::new_without_pgpass().host(host);
        let params =
            TlsParams { mode: mode.map(Into::into), root: root.map(Into::into), machine_roots_replaced: false };
        resolve(options, &params).map(|options| format!("{:?}", options.get_ssl_mode()))
    }

    #[test]
    fn a_remote_host_is_verified_by_default() {
        for host in ["db.example.com", "10.0.0.7", "2001:db8::1", "localhost.example.com", "127.0.0.1.example.com"] {
            assert_eq!(resolved(host, None, None).unwrap(), "VerifyFull", "{host}");
            assert_eq!(resolved(host, Some("disable"), None).unwrap(), "Disable", "{host}");
            assert_eq!(resolved(host, Some("require"), None).unwrap(), "Require", "{host}");
        }
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"] {
            assert_eq!(resolved(host, None, None).unwrap(), "Prefer", "{host}");
        }
        assert_eq!(resolved("/var/run/postgresql", Some("verify-full"), None).unwrap(), "Disable");
    }

    #[test]
    fn a_root_certificate_is_used_or_refused_and_never_ignored() {
        let inline = Some(AUTHORITY);
        assert_eq!(resolved("localhost", None, inline).unwrap(), "VerifyFull");
        assert_eq!(resolved("localhost", None, Some("system")).unwrap(), "VerifyFull");
        assert!(resolved("localhost", Some("verify-full"), Some("/nowhere/ca.crt")).unwrap_err().contains("ca.crt"));
        let empty = Some("-----BEGIN CERTIFICATE-----");
        assert!(resolved("localhost", None, empty).unwrap_err().contains("holds no certificate"));
        assert!(resolved("localhost", Some("require"), inline).unwrap_err().contains("SSL_CERT_FILE"));
        for weak in ["require", "verify-ca", "prefer"] {
            assert!(resolved("db", Some(weak), Some("system")).unwrap_err().contains("verify-full"), "{weak}");
        }
    }

    #[test]
    fn verify_ca_needs_a_closed_list_of_authorities() {
        assert!(resolved("db", Some("verify-ca"), None).unwrap_err().contains("SSL_CERT_FILE"));
        let params = TlsParams { mode: Some("verify-ca".into()), machine_roots_replaced: true, ..TlsParams::default() };
        let options = resolve(PgConnectOptions::new_without_pgpass().host("db"), &params).unwrap();
        assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyCa));
    }

    #[test]
    fn tls_errors_are_described_and_other_errors_are_not() {
        let hidden = |error: rustls::Error| sqlx::Error::Io(std::io::Error::other(error));
        let handshake = rustls::Error::HandshakeNotComplete;
        let reason = |error: sqlx::Error| refusal(&error);
        assert!(reason(sqlx::Error::Tls("server does not support TLS".into())).unwrap().contains("offers no TLS"));
        assert_eq!(reason(sqlx::Error::Tls("no key".into())).unwrap(), "TLS cannot be set up: no key");
        let expected = certificates::describe(&handshake, REMEDIES);
        assert_eq!(reason(sqlx::Error::Tls(handshake.clone().into())), Some(expected.clone()));
        assert_eq!(reason(hidden(handshake)), Some(expected));
        assert_eq!(reason(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())), None);
        assert_eq!(reason(sqlx::Error::PoolClosed), None);
    }

    #[test]
    fn the_error_of_an_unknown_mode_does_not_contain_it() {
        let refused = resolved("db", Some("hunter2"), None).unwrap_err();
        assert!(refused.contains("verify-full") && !refused.contains("hunter2"), "{refused}");
    }
}
