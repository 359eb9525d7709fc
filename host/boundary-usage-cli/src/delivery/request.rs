//! One delivery attempt: a POST request, and the meaning of its response.
//!
//! Failures are stored in the database, and `status` shows them. Messages of failures contain neither the URL, whose
//! path may be a secret, nor anything from the response, which may repeat the token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use boundary_usage::certificates::{self, Remedies};
use boundary_usage::{Delivery, KeyFingerprint, Summary};
use ureq::http::{HeaderValue, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Error};
use url::{Host, Url};

use super::payload::{Payload, webhook_id};
use super::signature::Secrets;
use super::{DeliveryOptions, schedule};
use crate::failure::UsageError;

/// The option and the variable that contain the URL, for messages.
const SETTING: &str = "--deliver or BOUNDARY_USAGE_DELIVER";
const REMEDIES: Remedies = Remedies {
    authority: "set SSL_CERT_FILE to the file of the authority that did",
    plain: "check host and port, or use http:// if the network is trusted",
};

/// A failed attempt.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// The reason, which contains nothing from the response.
    pub(super) reason: String,
    /// The wait that the receiver requests.
    pub(super) retry_after: Option<Duration>,
    /// Whether the receiver is gone for good (410).
    pub(super) is_gone: bool,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, ..Self::default() }
    }
}

/// The content of a request.
pub(super) struct Composed {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// The receiver of summaries.
pub struct Endpoint {
    agent: Agent,
    uri: Uri,
    token_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    pub(super) timeout: Duration,
    pub(super) retry: Duration,
}

impl Endpoint {
    /// Checks the options. Does not connect yet.
    ///
    /// # Errors
    ///
    /// Returns a [`UsageError`] if the URL is invalid or not allowed with a token, or an error if the trusted
    /// certificate authorities cannot be read.
    pub fn new(options: &DeliveryOptions) -> Result<Self> {
        let url = check_url(&options.url, options.token_file.is_some())?;
        if url.scheme() == "https" {
            certificates::check_variables()?;
        }
        let Ok(uri) = url.as_str().parse() else { bail!(UsageError(format!("{SETTING}: the URL is not valid"))) };
        let config = Agent::config_builder()
            .tls_config(tls())
            .timeout_global(Some(options.timeout))
            // Following a redirect would send the token to another server.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // Summaries are rare, so no connection is kept between them.
            .max_idle_connections(0)
            .user_agent(concat!("boundary-usage/", env!("CARGO_PKG_VERSION")));
        let agent = config.build().new_agent();
        let DeliveryOptions { token_file, secret_file, timeout, retry, .. } = options.clone();
        // Each attempt reads the file again. A faulty file is an error of the start already.
        if let Some(file) = &secret_file {
            Secrets::read(file).map_err(UsageError)?;
        }
        Ok(Self { agent, uri, token_file, secret_file, timeout, retry })
    }

    /// Returns the body and the headers of a request, except the key of a claimed delivery and the token.
    pub(super) fn compose(&self, deployment: &KeyFingerprint, summary: &Summary) -> Result<Composed, String> {
        let body = serde_json::to_string(&Payload::of(summary)).map_err(|error| error.to_string())?;
        let mut headers = vec![("content-type", "application/json".to_owned())];
        if let Some(file) = &self.secret_file {
            let id = webhook_id(deployment, summary);
            let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
            let signature = Secrets::read(file)?.sign(&id, timestamp, &body);
            headers.push(("webhook-id", id));
            headers.push(("webhook-timestamp", timestamp.to_string()));
            headers.push(("webhook-signature", signature));
        }
        Ok(Composed { headers, body })
    }

    /// Returns the server of the URL without its path, which may be a secret.
    pub(super) fn server(&self) -> String {
        let (scheme, authority) = (self.uri.scheme_str().unwrap_or_default(), self.uri.authority());
        format!("{scheme}://{}", authority.map(ToString::to_string).unwrap_or_default())
    }

    /// Sends a summary, and waits for the response.
    ///
    /// Returns the status code of an acknowledgement.
    pub(super) fn send(&self, deployment: &KeyFingerprint, delivery: &Delivery) -> Result<u16, Failure> {
        let Composed { headers, body } = self.compose(deployment, &delivery.summary)?;
        let mut request = self.agent.post(&self.uri).header("idempotency-key", delivery.idempotency_key.to_string());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(file) = &self.token_file {
            request = request.header("authorization", bearer(file)?);
        }
        let response = request.send(body).map_err(|error| self.failure(&error))?;
        let status = response.status().as_u16();
        let hint = match status {
            200..=299 => return Ok(status),
            300..=399 => ", a redirect; set --deliver to the URL of its target",
            401 | 403 => "; check the token",
            410 => {
                ": it is gone. This process sends nothing until it is restarted; correct --deliver and restart, or \
                 acknowledge summaries with `collect --acknowledge`"
            }
            _ => "",
        };
        Err(Failure {
            reason: format!("the receiver returned status {status}{hint}"),
            retry_after: schedule::retry_after(response.headers(), SystemTime::now()),
            is_gone: status == 410,
        })
    }

    /// Describes an error without any part of the URL or of a response.
    fn failure(&self, error: &Error) -> String {
        match error {
            Error::Timeout(_) => format!("no response within {}", humantime::format_duration(self.timeout)),
            Error::HostNotFound => "the receiver's host name cannot be resolved".into(),
            Error::ConnectionFailed => "cannot connect to the receiver, or to the proxy before it".into(),
            Error::ConnectProxyFailed(_) => "the proxy cannot connect to the receiver".into(),
            // A failed TLS handshake is an I/O error with the TLS error as its cause.
            Error::Io(error) => match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
                Some(error) => certificates::describe(error, REMEDIES),
                None => format!("the connection failed: {}", error.kind()),
            },
            Error::Rustls(error) => certificates::describe(error, REMEDIES),
            Error::Tls(reason) => format!("TLS failed: {reason}"),
            Error::Protocol(_) => "the response is not HTTP".into(),
            _ => "the request failed".into(),
        }
    }
}

/// Reads the token from its file.
///
/// Each attempt reads the file again, because tokens are renewed.
fn bearer(file: &Path) -> Result<HeaderValue, String> {
    let read = std::fs::read_to_string(file);
    let token = read.map_err(|error| format!("cannot read the token file {}: {}", file.display(), error.kind()))?;
    let token = token.trim();
    let value = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
    let invalid = || format!("the token file {} does not contain a token on one line", file.display());
    let mut value = value.ok_or_else(invalid)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Trusts the machine's certificate authorities, or those of SSL_CERT_FILE.
fn tls() -> TlsConfig {
    let native = rustls_native_certs::load_native_certs();
    let roots = native.certs.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned());
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

/// Checks a URL. No error contains the URL, because it may contain a secret.
fn check_url(url: &str, has_token: bool) -> Result<Url, UsageError> {
    let wrong = |what: &str| Err(UsageError(format!("{SETTING}: {what}")));
    let Ok(url) = Url::parse(url) else { return wrong("not a URL; write it like https://example.com/usage") };
    if !url.username().is_empty() || url.password().is_some() {
        return wrong(
            "the URL contains a password, which every list of processes would show; use --deliver-token-file",
        );
    }
    match (url.scheme(), is_this_machine(&url)) {
        ("https", _) => Ok(url),
        ("http", false) if has_token => {
            wrong("a token must not be sent over plain http to another machine; use https or no --deliver-token-file")
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
    fn a_token_requires_tls_unless_the_receiver_is_on_this_machine() {
        for url in ["https://example.com/usage", "http://127.0.0.1:8080/", "http://[::1]/", "http://localhost/"] {
            assert!(check_url(url, true).is_ok(), "{url}");
        }
        assert!(check_url("http://example.com/", false).is_ok());
        assert!(check_url("http://example.com/", true).is_err());
    }

    #[test]
    fn an_invalid_url_is_rejected_without_being_shown() {
        for url in ["secret", "ftp://secret.example.com/", "https://secret:secret@example.com/", "https://"] {
            let error = check_url(url, false).expect_err(url).to_string();
            assert!(error.starts_with(SETTING) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_token_has_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        assert!(bearer(&file).unwrap_err().contains("cannot read the token file"));
        std::fs::write(&file, "hunter2\n").unwrap();
        assert_eq!(bearer(&file).unwrap(), "Bearer hunter2");
        assert!(!format!("{:?}", bearer(&file)).contains("hunter2"));
        for unusable in ["", "\n", "hunter2\nhunter3"] {
            std::fs::write(&file, unusable).unwrap();
            let error = bearer(&file).unwrap_err();
            assert!(error.contains("does not contain a token") && !error.contains("hunter"), "{error}");
        }
    }
}
