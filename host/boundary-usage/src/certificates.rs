//! Trusted certificate authorities, and readable descriptions of TLS errors.
//!
//! Connections to PostgreSQL and deliveries of summaries trust the machine's authorities, or those that the variables
//! SSL_CERT_FILE and SSL_CERT_DIR name. Without a check at the start, an unusable variable would show only later, as an
//! error about an untrusted server. [`check_variables`] is that check.

use std::borrow::Cow;
use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use chrono::DateTime;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, RootCertStore};

use crate::error::Error;

const FILE: &str = "SSL_CERT_FILE";
const DIRECTORIES: &str = "SSL_CERT_DIR";

/// Checks that SSL_CERT_FILE and SSL_CERT_DIR name certificates of authorities.
///
/// Variables that are not set pass the check, and so does an empty SSL_CERT_DIR.
///
/// # Errors
///
/// - [`Error::Configuration`] if a variable is unusable. The message contains the variable, the path and the reason.
pub fn check_variables() -> Result<(), Error> {
    let fault = |name: &str, path: &Path, reason: String| {
        let what = format!("{name} names {}, which {reason}", path.display());
        let remedy = format!("name certificates in PEM format, or unset {name} to trust the machine's authorities");
        Err(Error::Configuration { message: format!("{what}; {remedy}") })
    };
    if env::var_os(FILE).is_some_and(|value| value.is_empty()) {
        // The TLS library would look for a file with an empty name and trust no authority.
        let message = format!("{FILE} is set, but empty; unset it, or name a file of certificates in PEM format");
        return Err(Error::Configuration { message });
    }
    if let Some(file) = variable(FILE)
        && let Err(reason) = check_file(Path::new(&file))
    {
        return fault(FILE, Path::new(&file), reason);
    }
    for directory in variable(DIRECTORIES).iter().flat_map(env::split_paths).filter(|path| *path != Path::new("")) {
        if let Err(reason) = check_directory(&directory) {
            return fault(DIRECTORIES, &directory, reason);
        }
    }
    Ok(())
}

/// Returns whether SSL_CERT_FILE or SSL_CERT_DIR replaces the machine's authorities.
pub(crate) fn are_replaced() -> bool {
    [FILE, DIRECTORIES].iter().any(|name| variable(name).is_some())
}

/// Returns a variable's value, or `None` if the variable is empty or not set.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    env::var_os(name).filter(|value| value != OsStr::new(""))
}

/// Checks that a file contains the certificate of an authority. Returns the reason if it does not.
pub(crate) fn check_file(path: &Path) -> Result<(), String> {
    match std::fs::read(path) {
        Ok(text) if contains_certificate(&text) => Ok(()),
        Ok(_) => Err("holds no certificate".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn check_directory(path: &Path) -> Result<(), String> {
    let entries = path.read_dir().map_err(|error| format!("cannot be read: {error}"))?;
    let mut files = entries.filter_map(Result::ok).map(|entry| entry.path());
    if files.any(|file| check_file(&file).is_ok()) { Ok(()) } else { Err("holds no certificate".to_owned()) }
}

/// Returns whether a text in PEM format contains a certificate that can be trusted.
pub(crate) fn contains_certificate(text: &[u8]) -> bool {
    let readable = |certificate: Result<CertificateDer<'_>, pem::Error>| {
        certificate.is_ok_and(|certificate| RootCertStore::empty().add(certificate).is_ok())
    };
    CertificateDer::pem_slice_iter(text).any(readable)
}

/// Remedies for TLS errors, which depend on the kind of server.
#[derive(Clone, Copy, Debug)]
pub struct Remedies {
    /// The remedy for an untrusted authority.
    pub authority: &'static str,
    /// The remedy for a server without TLS.
    pub plain: &'static str,
}

/// Describes a TLS error in plain words, with its remedy.
pub fn describe(error: &rustls::Error, remedies: Remedies) -> String {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(fault) => certificate_fault(fault, remedies),
        Tls::InvalidMessage(_) | Tls::PeerSentOversizedRecord => {
            format!("the server does not speak TLS on this port; {}", remedies.plain)
        }
        Tls::AlertReceived(alert) => {
            let alert = words(&inner(&format!("{alert:?}")));
            format!("the server refused the TLS connection ({alert}); see the server's log for the reason")
        }
        Tls::PeerIncompatible(reason) => {
            let reason = words(&format!("{reason:?}"));
            format!(
                "the server and this program have no TLS settings in common ({reason}); allow TLS 1.2 or newer there"
            )
        }
        Tls::PeerMisbehaved(reason) => {
            format!("the server violated the TLS protocol ({})", words(&format!("{reason:?}")))
        }
        Tls::InappropriateMessage { .. } | Tls::InappropriateHandshakeMessage { .. } => {
            "the server violated the TLS protocol (a message at the wrong time)".to_owned()
        }
        Tls::NoCertificatesPresented => "the server presents no certificate; configure one there".to_owned(),
        Tls::General(reason) => format!("TLS failed: {reason}"),
        Tls::Other(reason) => format!("TLS failed ({})", words(&reason.to_string())),
        other => format!("TLS failed ({})", words(&format!("{other:?}"))),
    }
}

fn certificate_fault(fault: &CertificateError, remedies: Remedies) -> String {
    use CertificateError as Fault;
    let issue_new = "have a new one issued, and check this machine's clock";
    match fault {
        Fault::UnknownIssuer => {
            format!("no authority that is trusted here has issued the server's certificate; {}", remedies.authority)
        }
        Fault::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| inner(name)).collect();
            let names = if names.is_empty() { "no name".into() } else { names.join(", ") };
            let what = format!("the server's certificate is not for the name {}, but for {names}", expected.to_str());
            format!("{what}; connect under a name that the certificate holds, or have one issued for this name")
        }
        Fault::NotValidForName => "the server's certificate is for another name; connect under a name that the \
                                   certificate holds, or have one issued for this name"
            .to_owned(),
        Fault::ExpiredContext { not_after, .. } => {
            format!("the server's certificate expired{}; {issue_new}", at(*not_after))
        }
        Fault::Expired => format!("the server's certificate expired; {issue_new}"),
        Fault::NotValidYetContext { not_before, .. } => {
            format!("the server's certificate is not valid yet, but only from{}; {issue_new}", at(*not_before))
        }
        Fault::NotValidYet => format!("the server's certificate is not valid yet; {issue_new}"),
        Fault::Revoked => "the server's certificate was revoked; have a new one issued".to_owned(),
        Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => {
            "the server's certificate is not for servers; have one issued that is".to_owned()
        }
        Fault::Other(reason) if reason.to_string() == "CaUsedAsEndEntity" => {
            "the server presents the certificate of an authority as its own; have one issued for the server".to_owned()
        }
        Fault::Other(reason) => {
            format!("the server's certificate is not valid ({}); have one issued that is", words(&reason.to_string()))
        }
        other => {
            format!("the server's certificate is not valid ({}); have one issued that is", words(&format!("{other:?}")))
        }
    }
}

/// Returns the value in the text `Kind("value")` or `Kind(value)`.
fn inner(text: &str) -> Cow<'_, str> {
    match text.split_once('(') {
        Some((_, value)) => value.trim_end_matches(')').trim_matches('"').to_owned().into(),
        None => text.into(),
    }
}

fn at(time: UnixTime) -> String {
    let time = DateTime::UNIX_EPOCH
        .checked_add_signed(chrono::TimeDelta::from_std(Duration::from_secs(time.as_secs())).unwrap_or_default());
    time.map(|time| time.format(" %Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default()
}

/// Splits the name of a value into words: `HandshakeFailure` becomes `handshake failure`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for character in name.chars().take_while(|character| character.is_alphanumeric() || *character == ' ') {
        if character.is_uppercase() && words.ends_with(char::is_alphanumeric) {
            words.push(' ');
        }
        words.extend(character.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{AlertDescription, InvalidMessage, OtherError, PeerIncompatible};

    use super::*;

    const REMEDIES: Remedies = Remedies { authority: "name it with X", plain: "use Y" };

    #[test]
    fn errors_are_described_in_words() {
        let expired = CertificateError::ExpiredContext {
            time: UnixTime::since_unix_epoch(Duration::from_secs(100)),
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(60)),
        };
        let other = |name: &'static str| {
            CertificateError::Other(OtherError(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(name))))
        };
        for (error, text) in [
            (rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), "use Y"),
            (rustls::Error::AlertReceived(AlertDescription::HandshakeFailure), "(handshake failure)"),
            (rustls::Error::AlertReceived(AlertDescription::Unknown(7)), "(0x7)"),
            (rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), "(no cipher suites in common)"),
            (expired.into(), "expired 1970-01-01 00:01:00 UTC"),
            (CertificateError::UnknownIssuer.into(), "name it with X"),
            (other("CaUsedAsEndEntity").into(), "certificate of an authority"),
            (other("UnsupportedCertVersion").into(), "(unsupported cert version)"),
            (CertificateError::BadEncoding.into(), "(bad encoding)"),
        ] {
            let words = describe(&error, REMEDIES);
            assert!(words.contains(text), "{words}");
            assert!(!words.contains("Error") && !words.contains("Other") && !words.contains('{'), "{words}");
        }
    }

    #[test]
    fn names_are_shown_without_their_kind() {
        assert_eq!(inner("DnsName(\"localhost\")"), "localhost");
        assert_eq!(inner("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(inner("localhost"), "localhost");
    }
}
