//! Allowed hosts: IP addresses, `localhost`, and names that the operator allows.
//!
//! The check prevents DNS rebinding, in which the owner of another web page makes the page's host name resolve to this
//! address. The page could then read the responses. The browser still sends the page's host name, and the check rejects
//! it. IP addresses are always allowed, because they cannot be rebound.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::HOST;
use hyper::{Request, Version};

/// The names that are allowed besides addresses and `localhost`, in lower case.
#[derive(Clone, Debug, Default)]
pub struct AllowedHosts(Vec<String>);

/// The reason why a host is rejected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HostError {
    /// The request names no host, several hosts, or an invalid host.
    Malformed,
    /// The host is not allowed.
    NotAllowed,
}

impl AllowedHosts {
    /// Allows these names, besides addresses and `localhost`.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Checks the host of the request line, if it has one, and of the `Host` header.
    ///
    /// Only HTTP/1.0, which no browser uses, may omit the header.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), HostError> {
        if let Some(authority) = request.uri().authority() {
            self.check_name(authority.as_str())?;
        }
        let mut headers = request.headers().get_all(HOST).iter();
        match (headers.next(), headers.next()) {
            (Some(host), None) => self.check_name(host.to_str().map_err(|_| HostError::Malformed)?),
            (None, _) if request.version() == Version::HTTP_10 => Ok(()),
            _ => Err(HostError::Malformed),
        }
    }

    fn check_name(&self, host: &str) -> Result<(), HostError> {
        let name = without_port(host).ok_or(HostError::Malformed)?;
        if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            return address.parse::<Ipv6Addr>().map(drop).map_err(|_| HostError::Malformed);
        }
        // A name may end with the dot of the root domain.
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if name.is_empty() {
            return Err(HostError::Malformed);
        }
        let is_allowed = name == "localhost" || name.parse::<Ipv4Addr>().is_ok() || self.0.contains(&name);
        if is_allowed { Ok(()) } else { Err(HostError::NotAllowed) }
    }
}

fn without_port(host: &str) -> Option<&str> {
    match host.rsplit_once(':') {
        // The colons of an IPv6 address are inside brackets.
        Some((name, port)) if !port.ends_with(']') => {
            let is_port = port.is_empty() || port.parse::<u16>().is_ok();
            (is_port && (name.starts_with('[') || !name.contains(':'))).then_some(name)
        }
        _ => Some(host),
    }
}

/// Parses a host name.
///
/// # Errors
///
/// Returns an error if the text contains anything except letters, digits, hyphens, underscores and dots.
pub fn parse_host(text: &str) -> Result<String, String> {
    let is_part = |part: &str| {
        (1..=63).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if text.len() <= 253 && text.split('.').all(is_part) {
        return Ok(text.to_owned());
    }
    Err("not a host name; write it without scheme and port, like usage.example.com".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_allowed_names_are_accepted_with_any_port() {
        let hosts = AllowedHosts::new(["Usage.Example.com".to_owned()]);
        for host in [
            "localhost",
            "LocalHost:80",
            "localhost.",
            "127.0.0.1",
            "10.0.0.1:9464",
            "[::1]",
            "[::1]:9464",
            "localhost:",
            "usage.example.com",
            "USAGE.EXAMPLE.COM:443",
            "usage.example.com.:443",
        ] {
            assert_eq!(hosts.check_name(host), Ok(()), "{host}");
        }
        for host in ["example.com", "127.1", "0x7f.1", "127.0.0.1.example.com", "x.usage.example.com", "localhost.x"] {
            assert_eq!(hosts.check_name(host), Err(HostError::NotAllowed), "{host}");
        }
        for host in ["", ".", ":80", "localhost:x", "localhost:99999", "::1", "::1:80", "[::1", "[localhost]", "[::1]x"]
        {
            assert!(hosts.check_name(host).is_err(), "{host}");
        }
    }

    #[test]
    fn a_host_name_with_scheme_or_port_is_rejected() {
        for name in ["localhost", "usage.example.com", "boundary_usage", "a-1"] {
            assert!(parse_host(name).is_ok(), "{name}");
        }
        for invalid in ["", "a:1", "http://a", "a/", "a b", "*", "*.example.com", "a..b", ".a", "[::1]", "ä"] {
            assert!(parse_host(invalid).is_err(), "{invalid}");
        }
    }
}
