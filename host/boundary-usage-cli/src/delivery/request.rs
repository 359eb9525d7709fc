//! One attempt: a POST, and what its answer means.
//!
//! What goes wrong is said in words of ours, and they are kept in the database for `status`. They name neither the URL,
//! whose path may be a secret, nor anything that the receiver has sent, which may be our own token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use boundary_usage::Delivery;
use boundary_usage::certificates::{self, Remedies};
use ureq::http::{HeaderValue, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Error};
use url::{Host, Url};

use super::{DeliveryOptions, schedule};
use crate::cli::UsageError;

/// Where the URL is set.
const SETTING: &str = "--deliver or BOUNDARY_USAGE_DELIVER";
const REMEDIES: Remedies = Remedies {
    authority: "name the file of the one that did in SSL_CERT_FILE",
    plain: "check host and port, or use http:// if the network is trusted",
};

/// Why an attempt failed, and what the receiver wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// In words; holds nothing that the receiver has sent.
    pub(super) reason: String,
    /// How long the receiver wants no attempt.
    pub(super) retry_after: Option<Duration>,
    /// Whether the receiver wants no attempt any more.
    pub(super) is_gone: bool,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, ..Self::default() }
    }
}

/// Where summaries go.
pub struct Endpoint {
    agent: Agent,
    uri: Uri,
    token_file: Option<PathBuf>,
    pub(super) timeout: Duration,
    pub(super) retry: Duration,
}

impl Endpoint {
    /// Checks the options; connects to nobody yet.
    ///
    /// # Errors
    ///
    /// As wrong use, when the URL cannot be used, or not with a token, or when the authorities to trust cannot be read.
    pub fn new(options: &DeliveryOptions) -> Result<Self> {
        let url = check_url(&options.url, options.token_file.is_some())?;
        if url.scheme() == "https" {
            certificates::check_variables()?;
        }
        let Ok(uri) = url.as_str().parse() else { bail!(UsageError(format!("{SETTING}: the URL cannot be used"))) };
        let config = Agent::config_builder()
            .tls_config(tls())
            .timeout_global(Some(options.timeout))
            // A redirect is the receiver's mistake to mend: to follow it would send the token to somebody else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // One summary in half an hour needs no connection in between.
            .max_idle_connections(0)
            .user_agent(concat!("boundary-usage/", env!("CARGO_PKG_VERSION")));
        let agent = config.build().new_agent();
        let DeliveryOptions { token_file, timeout, retry, .. } = options;
        Ok(Self { agent, uri, token_file: token_file.clone(), timeout: *timeout, retry: *retry })
    }

    /// Sends a summary, and waits for the answer. Returns the status of an acknowledgement.
    pub(super) fn send(&self, delivery: &Delivery) -> Result<u16, Failure> {
        let body = serde_json::to_string(&delivery.summary).map_err(|error| error.to_string())?;
        let mut request = self
            .agent
            .post(&self.uri)
            .header("content-type", "application/json")
            .header("idempotency-key", delivery.idempotency_key.to_string());
        if let Some(file) = &self.token_file {
            request = request.header("authorization", bearer(file)?);
        }
        let response = request.send(body).map_err(|error| self.failure(&error))?;
        let status = response.status().as_u16();
        let hint = match status {
            200..=299 => return Ok(status),
            300..=399 => ", a redirect; name the URL that it leads to",
            401 | 403 => "; check the token",
            410 => {
                ": it wants no more summaries. This process sends none before a restart; correct --deliver and restart, \
                 or mark summaries as delivered with `collect --acknowledge`"
            }
            _ => "",
        };
        Err(Failure {
            reason: format!("the receiver answered {status}{hint}"),
            retry_after: schedule::retry_after(response.headers(), SystemTime::now()),
            is_gone: status == 410,
        })
    }

    /// Only what is known to hold nothing of the URL or of an answer is passed on.
    fn failure(&self, error: &Error) -> String {
        match error {
            Error::Timeout(_) => format!("no answer within {}", humantime::format_duration(self.timeout)),
            Error::HostNotFound => "the receiver's host is not found".into(),
            Error::ConnectionFailed => "the receiver, or the proxy before it, cannot be connected to".into(),
            Error::ConnectProxyFailed(_) => "the proxy does not connect to the receiver".into(),
            // How a handshake that fails comes out of the connection.
            Error::Io(error) => match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
                Some(error) => certificates::describe(error, REMEDIES),
                None => format!("the connection failed: {}", error.kind()),
            },
            Error::Rustls(error) => certificates::describe(error, REMEDIES),
            Error::Tls(reason) => format!("TLS failed: {reason}"),
            Error::Protocol(_) => "the answer is not HTTP".into(),
            _ => "the request failed".into(),
        }
    }
}

/// Read at each use: tokens are renewed.
fn bearer(file: &Path) -> Result<HeaderValue, String> {
    let read = std::fs::read_to_string(file);
    let token = read.map_err(|error| format!("cannot read the token file {}: {}", file.display(), error.kind()))?;
    let token = token.trim();
    let value = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
    let mut value = value.ok_or_else(|| format!("the token file {} holds no token on one line", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The authorities that the machine trusts, or those of SSL_CERT_FILE, as for PostgreSQL.
fn tls() -> TlsConfig {
    let native = rustls_native_certs::load_native_certs();
    let roots = native.certs.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned());
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

/// Refuses a URL without saying it: it may hold a secret.
fn check_url(url: &str, has_token: bool) -> Result<Url, UsageError> {
    let wrong = |what: &str| Err(UsageError(format!("{SETTING}: {what}")));
    let Ok(url) = Url::parse(url) else { return wrong("not a URL; write it like https://example.com/usage") };
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("a URL with a password would show in every list of processes; use --deliver-token-file");
    }
    match (url.scheme(), is_this_machine(&url)) {
        ("https", _) => Ok(url),
        ("http", false) if has_token => {
            wrong("a token does not go over plain http to another machine; use https, or --deliver without a token")
        }
        ("http", _) => Ok(url),
        _ => wrong("the URL must begin with https:// or http://"),
    }
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        for url in ["https://example.com/usage", "http://127.0.0.1:8080/", "http://[::1]/", "http://localhost/"] {
            assert!(check_url(url, true).is_ok(), "{url}");
        }
        assert!(check_url("http://example.com/", false).is_ok());
        assert!(check_url("http://example.com/", true).is_err());
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_showing_it() {
        for url in ["secret", "ftp://secret.example.com/", "https://secret:secret@example.com/", "https://"] {
            let error = check_url(url, false).expect_err(url).to_string();
            assert!(error.starts_with(SETTING) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_token_is_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        assert!(bearer(&file).unwrap_err().contains("cannot read the token file"));
        std::fs::write(&file, "hunter2\n").unwrap();
        assert_eq!(bearer(&file).unwrap(), "Bearer hunter2");
        assert!(!format!("{:?}", bearer(&file)).contains("hunter2"));
        for unusable in ["", "\n", "hunter2\nhunter3"] {
            std::fs::write(&file, unusable).unwrap();
            let error = bearer(&file).unwrap_err();
            assert!(error.contains("holds no token") && !error.contains("hunter"), "{error}");
        }
    }
}
