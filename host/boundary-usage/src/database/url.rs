//! Database URLs: which kind of database one names, and what is wrong with one that cannot be used.
//!
//! A URL can hold a password, and a mistyped one can hold it anywhere. No message here shows more of a
//! PostgreSQL URL than the scheme, and the file of the root certificate when that cannot be read.

use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use url::Url;

use super::postgres::tls::{self, Asked};
use crate::error::Error;

const EXPECTED: &str = "expected `sqlite:PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";

/// What may stand behind the `?` of a PostgreSQL URL.
const PARAMETERS: [&str; 16] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
const MODE: [&str; 2] = ["sslmode", "ssl-mode"];
const ROOT: [&str; 2] = ["sslrootcert", "ssl-root-cert"];

/// The kind of database that a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Sqlite,
    Postgres,
}

impl Scheme {
    /// Tells the kind from what stands before the colon.
    pub(super) fn of(url: &str) -> Result<Self, Error> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Ok(Self::Sqlite),
            Some("postgres" | "postgresql") => Ok(Self::Postgres),
            // Only what looks like a scheme is shown: anything else could be a password.
            Some(scheme) if url.contains("://") && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Err(wrong(format!("databases of the kind `{scheme}` are not supported; {EXPECTED}")))
            }
            _ => Err(wrong(format!("the database URL names no kind of database; {EXPECTED}"))),
        }
    }
}

/// The file that a SQLite URL names, and how to open it.
pub(super) fn sqlite(url: &str) -> Result<(PathBuf, SqliteConnectOptions), Error> {
    let rest = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    // What was meant for PostgreSQL may hold a password, and no message below may show it.
    if url.starts_with("sqlite://") && path.split('/').next().is_some_and(|authority| authority.contains('@')) {
        return Err(wrong("a SQLite URL has no user, password or host; expected `sqlite:PATH`".to_owned()));
    }
    if path.is_empty() || path == ":memory:" || path.starts_with("file:") || parameters.contains("memory") {
        let message = "a SQLite database must be a file, or its connections would each have a database of their own";
        return Err(wrong(format!("the SQLite URL names none: {message}; expected `sqlite:PATH`")));
    }
    let create = match parameters {
        "" | "mode=rwc" => true,
        "mode=rw" => false,
        _ => {
            return Err(wrong(format!(
                "`sqlite:{path}`: the only parameters are `mode=rwc` (the default) and `mode=rw`"
            )));
        }
    };
    let options = SqliteConnectOptions::from_str(url).map_err(|error| wrong(format!("`sqlite:{path}`: {error}")))?;
    let path = options.get_filename().to_owned();
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        let directory = directory.display();
        return Err(wrong(format!("there is no directory `{directory}`; create it, or correct the path")));
    }
    Ok((path, options.create_if_missing(create)))
}

/// How to connect to what a PostgreSQL URL names.
pub(super) fn postgres(url: &str) -> Result<PgConnectOptions, Error> {
    // A raw `/`, `?` or `#` in a password ends the authority too early; the rest of the password would be taken for a
    // path or for parameters, and shown in logs and errors.
    let after_scheme = url.split_once(':').and_then(|(_, rest)| rest.strip_prefix("//"));
    let Some(after_scheme) = after_scheme else {
        return Err(invalid("`//` is missing behind its scheme"));
    };
    let authority_end = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
    if after_scheme[authority_end..].contains('@') {
        let encode = "percent-encode the characters `/ ? # @` in user and password (`/` is %2F)";
        return Err(wrong(format!("the PostgreSQL URL has an `@` behind its host; {encode}")));
    }
    // The parser's errors are fixed texts; they do not quote the URL.
    let mut parsed = Url::parse(url).map_err(|error| invalid(&error.to_string()))?;
    // The driver would pass over an unknown parameter, and log its value.
    if parsed.query_pairs().any(|(name, _)| !PARAMETERS.contains(&&*name)) {
        let encode = "write `&` in a password as %26";
        return Err(invalid(&format!("it has an unknown parameter; {encode}; known are {}", PARAMETERS.join(", "))));
    }
    let asked = asked(&parsed, |name| std::env::var(name).ok());
    if asked.root.as_deref() == Some(tls::SYSTEM) {
        // The driver would look for a file of this name; the machine's authorities are what it trusts anyway.
        let others: Vec<_> = parsed.query_pairs().into_owned().filter(|(name, _)| !ROOT.contains(&&**name)).collect();
        parsed.query_pairs_mut().clear().extend_pairs(others);
    }
    // Values are not shown: a parameter can hold what was meant for another place.
    let options = PgConnectOptions::from_str(parsed.as_str()).map_err(|_| invalid("a parameter has a bad value"))?;
    let options = tls::settle(options, &asked).map_err(|reason| invalid(&reason))?;
    Ok(match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("boundary-usage"),
    })
}

/// What is said about TLS, in the URL or else in the environment.
fn asked(url: &Url, environment: impl Fn(&str) -> Option<String>) -> Asked {
    let parameter = |names: [&str; 2]| {
        let named = url.query_pairs().filter(|(name, _)| names.contains(&&**name));
        named.last().map(|(_, value)| value.into_owned())
    };
    Asked {
        mode: parameter(MODE).or_else(|| environment("PGSSLMODE")),
        root: parameter(ROOT).or_else(|| environment("PGSSLROOTCERT")),
        machine_roots_replaced: ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| environment(name).is_some()),
    }
}

fn invalid(reason: &str) -> Error {
    wrong(format!("the PostgreSQL URL is not valid: {reason}; {EXPECTED}"))
}

fn wrong(message: String) -> Error {
    Error::Configuration { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_schemes_name_two_kinds() {
        assert_eq!(Scheme::of("sqlite:usage.db").unwrap(), Scheme::Sqlite);
        assert_eq!(Scheme::of("postgres://h/d").unwrap(), Scheme::Postgres);
        assert_eq!(Scheme::of("postgresql://h/d").unwrap(), Scheme::Postgres);
    }

    #[test]
    fn other_urls_are_refused_without_showing_a_password() {
        for url in ["mysql://u:hunter2@h/d", "hunter2", "", "u:hunter2@h", "hunter2://", "postgres//u:hunter2@h/d"] {
            let message = Scheme::of(url).unwrap_err().to_string();
            assert!(message.contains("sqlite:PATH"), "{message}");
            assert!(url == "hunter2://" || !message.contains("hunter2"), "{message}");
        }
        for url in [
            "postgres://u:hunter2/x@h/d",
            "postgres://u:1?hunter2@h/d",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h:99999/d",
            "postgres://u:hunter2@[h/d",
            "postgres://u@h/d?passwrod=hunter2",
            "postgres://u@h/d?password=1&hunter2",
            "postgres://u@h/d?sslmode=hunter2",
            "postgres://u@h/d?port=hunter2",
            "postgres://u@h/d?hostaddr=hunter2",
            "postgres:/d?sslmode=verify-full&sslrootcert=ca:hunter2@h",
            "postgres:/d?sslmode=verify-full&sslrootcert=ca:hunter2@h://d",
            "postgres:u:hunter2@h/d",
        ] {
            let message = postgres(url).unwrap_err().to_string();
            assert!(!message.contains("hunter2"), "{message}");
        }
        for url in ["sqlite://u:hunter2@h/d", "sqlite://u:hunter2@h", "sqlite:x.db?key=hunter2"] {
            let message = sqlite(url).unwrap_err().to_string();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn sqlite_paths_are_relative_or_absolute_with_and_without_slashes() {
        for (url, path) in [
            ("sqlite:usage.db", "usage.db"),
            ("sqlite://usage.db", "usage.db"),
            ("sqlite:/tmp/usage.db", "/tmp/usage.db"),
            ("sqlite:///tmp/usage.db", "/tmp/usage.db"),
            ("sqlite:usage.db?mode=rwc", "usage.db"),
        ] {
            assert_eq!(sqlite(url).unwrap().0, PathBuf::from(path), "{url}");
        }
    }

    #[test]
    fn databases_in_memory_and_missing_directories_are_refused() {
        let refused = ["sqlite:", "sqlite::memory:", "sqlite://:memory:", "sqlite:x?mode=memory", "sqlite:x?mode=ro"];
        for url in refused.into_iter().chain(["sqlite:file:x?mode=rwc", "sqlite:no/such/directory/usage.db"]) {
            assert!(matches!(sqlite(url), Err(Error::Configuration { .. })), "{url}");
        }
    }

    #[test]
    fn the_url_decides_about_tls_before_the_environment() {
        let asked = |url: &str| {
            let environment = |name: &str| (name == "PGSSLMODE").then(|| "verify-ca".to_owned());
            let asked = super::asked(&Url::parse(url).unwrap(), environment);
            (asked.mode.unwrap_or_default(), asked.root.unwrap_or_default())
        };
        assert_eq!(asked("postgres://h/d"), ("verify-ca".into(), String::new()));
        assert_eq!(asked("postgres://h/d?ssl%6Dode=require&sslrootcert=x"), ("require".into(), "x".into()));
        assert_eq!(asked("postgres://h/d?sslmode=prefer&ssl-mode=disable").0, "disable");
        let system = postgres("postgres://h/d?sslrootcert=system&application_name=x").unwrap();
        assert_eq!(system.get_application_name(), Some("x"));
    }

    #[test]
    fn connections_say_whose_they_are() {
        assert_eq!(postgres("postgres://h/d").unwrap().get_application_name(), Some("boundary-usage"));
        assert_eq!(postgres("postgres://h/d?application_name=x").unwrap().get_application_name(), Some("x"));
    }
}
