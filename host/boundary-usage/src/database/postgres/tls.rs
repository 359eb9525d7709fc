//! TLS to PostgreSQL: which `sslmode` holds, and what is wrong when the server does not live up to it.
//!
//! The modes mean what PostgreSQL's manual says. Two things are stricter than in libpq: a remote host is verified unless
//! the URL says otherwise, and `verify-ca` needs a closed list of authorities, because the driver trusts those of the
//! machine beside the one that is named, and without a look at the host's name any of their customers would pass.

use std::net::IpAddr;
use std::path::Path;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::certificates::{self, Remedies};

/// The modes, from the weakest to the strongest.
const MODES: &str = "disable, allow, prefer, require, verify-ca or verify-full";

/// The `sslrootcert` that stands for the authorities that the machine trusts.
pub(in crate::database) const SYSTEM: &str = "system";

/// What was said about TLS, in the URL or in the environment.
#[derive(Default)]
pub(in crate::database) struct TlsParams {
    /// `sslmode` or PGSSLMODE.
    pub(in crate::database) mode: Option<String>,
    /// `sslrootcert` or PGSSLROOTCERT: a file, its content, or `system`.
    pub(in crate::database) root: Option<String>,
    /// Whether SSL_CERT_FILE or SSL_CERT_DIR take the place of the machine's authorities.
    pub(in crate::database) machine_roots_replaced: bool,
}

/// Settles the mode of a connection; answers what is wrong with what was asked.
pub(in crate::database) fn resolve(options: PgConnectOptions, asked: &TlsParams) -> Result<PgConnectOptions, String> {
    let mode = asked.mode.as_deref().map(|mode| mode.parse::<PgSslMode>());
    let mode = mode.transpose().map_err(|_| format!("sslmode must be {MODES}"))?;
    // A socket file is as private as its directory; libpq ignores the mode there, too.
    if options.get_socket().is_some() || options.get_host().starts_with('/') {
        return Ok(options.ssl_mode(PgSslMode::Disable));
    }
    // The driver hands the brackets of an IPv6 address on to TLS, which does not know them.
    let host = options.get_host().trim_matches(['[', ']']).to_owned();
    let is_remote = !is_this_machine(&host);
    let mode = effective(mode, asked, is_remote)?;
    if let PgSslMode::VerifyCa | PgSslMode::VerifyFull = mode {
        certificates::check_variables().map_err(|error| error.to_string())?;
        asked.root.as_deref().map_or(Ok(()), check_root)?;
    }
    Ok(options.host(&host).ssl_mode(mode))
}

fn effective(mode: Option<PgSslMode>, asked: &TlsParams, is_remote: bool) -> Result<PgSslMode, String> {
    let is_system = asked.root.as_deref() == Some(SYSTEM);
    let mode = match mode {
        None if is_remote || asked.root.is_some() => PgSslMode::VerifyFull,
        None => PgSslMode::Prefer,
        // As the manual says: a root certificate makes `require` verify.
        Some(PgSslMode::Require) if asked.root.is_some() && !is_system => PgSslMode::VerifyCa,
        Some(mode) => mode,
    };
    match mode {
        PgSslMode::VerifyFull => Ok(mode),
        _ if is_system => Err("sslrootcert=system needs sslmode=verify-full".to_owned()),
        PgSslMode::VerifyCa if !asked.machine_roots_replaced => Err(
            "sslmode=verify-ca (and require with sslrootcert) looks at no host name, so a certificate that any public \
             authority has issued to anybody would pass; use sslmode=verify-full, or set SSL_CERT_FILE to the file of \
             the one authority that is to be trusted"
                .to_owned(),
        ),
        _ => Ok(mode),
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The driver does not say which file it could not read, and accepts one without a certificate.
fn check_root(root: &str) -> Result<(), String> {
    if root == SYSTEM {
        return Ok(());
    }
    if root.trim().starts_with("-----BEGIN") {
        let holds = certificates::contains_certificate(root.as_bytes());
        return if holds { Ok(()) } else { Err("the text of sslrootcert holds no certificate".to_owned()) };
    }
    certificates::check_file(Path::new(root)).map_err(|reason| format!("sslrootcert names {root}, which {reason}"))
}

const REMEDIES: Remedies = Remedies {
    authority: "name the file of the one that did with sslrootcert",
    plain: "check host and port, and whether a proxy stands before the server",
};

/// Why a TLS connection failed, and what to do; `None` when the error is another.
pub(super) fn refusal(error: &sqlx::Error) -> Option<String> {
    let tls = |error: &rustls::Error| certificates::describe(error, REMEDIES);
    match error {
        sqlx::Error::Tls(reason) if reason.to_string().contains("does not support TLS") => Some(
            "the server offers no TLS, and sslmode asks for it; turn it on there (`ssl = on`), or say \
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

    fn settled(host: &str, mode: Option<&str>, root: Option<&str>) -> Result<String, String> {
        let options = PgConnectOptions::new_without_pgpass().host(host);
        let asked = TlsParams { mode: mode.map(Into::into), root: root.map(Into::into), machine_roots_replaced: false };
        resolve(options, &asked).map(|options| format!("{:?}", options.get_ssl_mode()))
    }

    #[test]
    fn a_remote_host_is_verified_unless_told_otherwise() {
        for host in ["db.example.com", "10.0.0.7", "2001:db8::1", "localhost.example.com", "127.0.0.1.example.com"] {
            assert_eq!(settled(host, None, None).unwrap(), "VerifyFull", "{host}");
            assert_eq!(settled(host, Some("disable"), None).unwrap(), "Disable", "{host}");
            assert_eq!(settled(host, Some("require"), None).unwrap(), "Require", "{host}");
        }
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"] {
            assert_eq!(settled(host, None, None).unwrap(), "Prefer", "{host}");
        }
        assert_eq!(settled("/var/run/postgresql", Some("verify-full"), None).unwrap(), "Disable");
    }

    #[test]
    fn a_root_certificate_is_used_or_refused_and_never_ignored() {
        let inline = Some(AUTHORITY);
        assert_eq!(settled("localhost", None, inline).unwrap(), "VerifyFull");
        assert_eq!(settled("localhost", None, Some("system")).unwrap(), "VerifyFull");
        assert!(settled("localhost", Some("verify-full"), Some("/nowhere/ca.crt")).unwrap_err().contains("ca.crt"));
        let empty = Some("-----BEGIN CERTIFICATE-----");
        assert!(settled("localhost", None, empty).unwrap_err().contains("holds no certificate"));
        assert!(settled("localhost", Some("require"), inline).unwrap_err().contains("SSL_CERT_FILE"));
        for weak in ["require", "verify-ca", "prefer"] {
            assert!(settled("db", Some(weak), Some("system")).unwrap_err().contains("verify-full"), "{weak}");
        }
    }

    #[test]
    fn verify_ca_needs_a_closed_list_of_authorities() {
        assert!(settled("db", Some("verify-ca"), None).unwrap_err().contains("SSL_CERT_FILE"));
        let asked = TlsParams { mode: Some("verify-ca".into()), machine_roots_replaced: true, ..TlsParams::default() };
        let options = resolve(PgConnectOptions::new_without_pgpass().host("db"), &asked).unwrap();
        assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyCa));
    }

    #[test]
    fn refusals_of_tls_have_reasons_and_other_errors_have_none() {
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
    fn an_unknown_mode_is_refused_without_being_shown() {
        let refused = settled("db", Some("hunter2"), None).unwrap_err();
        assert!(refused.contains("verify-full") && !refused.contains("hunter2"), "{refused}");
    }
}
