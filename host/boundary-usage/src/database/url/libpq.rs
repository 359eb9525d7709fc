//! The parser of PostgreSQL URLs, which follows libpq.
//!
//! Two rules are stricter: an `@` after the host is refused, and `/` or `?` in user and password must be encoded.
//! Otherwise a part of a password with such a character would be parsed as another part of the URL, and could appear in
//! logs.

use super::percent_decode;

/// The settings in a URL, in order. A later setting replaces an earlier one of the same name.
pub(super) type Settings = Vec<(String, String)>;

/// Parses a URL. Errors do not quote the URL.
pub(super) fn settings(url: &str) -> Result<Settings, String> {
    let after_scheme = url.split_once(':').and_then(|(_, rest)| rest.strip_prefix("//"));
    let after_scheme = after_scheme.ok_or("`//` is missing behind its scheme")?;
    let authority_end = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at(authority_end);
    if rest.contains('@') || authority.matches('@').count() > 1 {
        return Err("it has an `@` behind its host; percent-encode the characters `/ ? # @` in user and password \
                    (`/` is %2F)"
            .to_owned());
    }
    let mut settings = Settings::new();
    let (credentials, hosts) = authority.split_once('@').unwrap_or(("", authority));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    add(&mut settings, "user", user)?;
    add(&mut settings, "password", password)?;
    add_hosts(&mut settings, hosts)?;
    let (database, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    add(&mut settings, "dbname", database.strip_prefix('/').unwrap_or(database))?;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) =
            parameter.split_once('=').ok_or("a parameter has no `=`; write `&` in a password as %26")?;
        settings.push((decoded(name)?, decoded(value)?));
    }
    Ok(settings)
}

/// Adds hosts and ports, as comma-separated lists if there are several.
fn add_hosts(settings: &mut Settings, hosts: &str) -> Result<(), String> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(address) => {
                let (name, port) = address.split_once(']').ok_or("the `]` of an IPv6 address is missing")?;
                let is_end = port.is_empty() || port.starts_with(':');
                (name, is_end.then_some(port).ok_or("only a port can follow the `]` of an IPv6 address")?)
            }
            None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
        };
        names.push(name);
        ports.push(port.strip_prefix(':').unwrap_or(port));
    }
    add(settings, "host", &names.join(","))?;
    add(settings, "port", &ports.join(","))
}

/// Adds a setting unless it is empty.
fn add(settings: &mut Settings, name: &str, encoded: &str) -> Result<(), String> {
    if !encoded.is_empty() {
        settings.push((name.to_owned(), decoded(encoded)?));
    }
    Ok(())
}

fn decoded(encoded: &str) -> Result<String, String> {
    let decoded = percent_decode(encoded);
    if !decoded.is_well_formed {
        return Err("a `%` in it is not followed by two hexadecimal digits; write the sign itself as %25".to_owned());
    }
    let text = String::from_utf8(decoded.bytes).map_err(|_| "a part of it is not UTF-8 when it is decoded")?;
    if text.contains('\0') { Err("it contains a zero byte (%00)".to_owned()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> String {
        let settings = settings(url).unwrap();
        settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn urls_are_parsed_like_in_libpq() {
        for (url, expected) in [
            ("postgres://", ""),
            ("postgres://u:p@h:5433/d", "user=u password=p host=h port=5433 dbname=d"),
            ("postgres://u%40x:a:b%2F@[::1]:1/a%20b", "user=u@x password=a:b/ host=::1 port=1 dbname=a b"),
            ("postgres:///d?host=%2Frun&port=2&password=a+b", "dbname=d host=/run port=2 password=a+b"),
            ("postgres://u@/d?host=h", "user=u dbname=d host=h"),
            ("postgres://:5433", "port=5433"),
            ("postgres://a:1,b:2/d", "host=a,b port=1,2 dbname=d"),
            ("postgres://%2Frun%2Fpostgresql/d#x", "host=/run/postgresql dbname=d#x"),
        ] {
            assert_eq!(parsed(url), expected, "{url}");
        }
    }

    #[test]
    fn urls_that_libpq_refuses_are_refused() {
        for url in ["postgres:d", "postgres://[::1/d", "postgres://[::1]x/d", "postgres://h/d?x", "postgres://h/%zz"] {
            assert!(settings(url).is_err(), "{url}");
        }
    }
}
