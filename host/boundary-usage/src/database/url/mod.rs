//! Database URLs: parsing and validation.
//!
//! The rules are in `docs/operating.md`. A URL can contain a password, and a mistyped URL can contain it anywhere.
//! Therefore messages show only the scheme and the host of a PostgreSQL URL, and the names of unreadable files.

mod libpq;
mod parameters;
mod postgres_url;
mod sqlite_url;

pub(super) use self::postgres_url::{PostgresUrl, postgres};
pub(super) use self::sqlite_url::{SqliteUrl, sqlite};

use crate::error::Error;

const EXPECTED: &str = "expected `sqlite:PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";

/// The kind of database that a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Sqlite,
    Postgres,
}

impl Scheme {
    /// Determines the kind from the part before the colon.
    pub(super) fn of(url: &str) -> Result<Self, Error> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Ok(Self::Sqlite),
            Some("postgres" | "postgresql") => Ok(Self::Postgres),
            // The message shows only a text that looks like a scheme. Other texts could be a password.
            Some(scheme) if url.contains("://") && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Err(wrong(format!("databases of the kind `{scheme}` are not supported; {EXPECTED}")))
            }
            _ => Err(wrong(format!("the database URL names no kind of database; {EXPECTED}"))),
        }
    }
}

/// A text whose percent-encoded bytes are decoded.
struct Decoded {
    bytes: Vec<u8>,
    /// Whether two hexadecimal digits follow each percent sign.
    is_well_formed: bool,
}

/// Decodes `%XX` and keeps all other characters, including `+` and a percent sign without two digits.
fn percent_decode(text: &str) -> Decoded {
    let mut decoded = Decoded { bytes: Vec::with_capacity(text.len()), is_well_formed: true };
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (first, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                decoded.is_well_formed &= first != b'%';
                decoded.bytes.push(first);
                rest = behind;
            }
        }
    }
    decoded
}

fn wrong(message: String) -> Error {
    Error::Configuration { message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;

    #[test]
    fn schemes_determine_the_kind_of_database() {
        assert_eq!(Scheme::of("sqlite:usage.db").unwrap(), Scheme::Sqlite);
        assert_eq!(Scheme::of("postgres://h/d").unwrap(), Scheme::Postgres);
        assert_eq!(Scheme::of("postgresql://h/d").unwrap(), Scheme::Postgres);
    }

    #[test]
    fn other_kinds_are_refused_without_showing_a_password() {
        for url in ["mysql://u:hunter2@h/d", "hunter2", "", "u:hunter2@h", "hunter2://", "postgres//u:hunter2@h/d"] {
            let message = Scheme::of(url).unwrap_err().to_string();
            assert!(message.contains("sqlite:PATH"), "{message}");
            assert!(url == "hunter2://" || !message.contains("hunter2"), "{message}");
        }
        for (url, is_named) in [("mysql://h/d", true), ("mysql:h", false), ("my-sql://h/d", false)] {
            let message = Scheme::of(url).unwrap_err().to_string();
            assert_eq!(message.contains(url.split(':').next().unwrap()), is_named, "{message}");
        }
    }

    #[test]
    fn unusable_urls_are_refused_without_a_connection() {
        for (url, is_usable) in [
            ("sqlite:usage.db", true),
            ("postgres://u@localhost/d", true),
            ("mysql://h/d", false),
            ("sqlite:", false),
            ("postgres://u@localhost:0/d", false),
        ] {
            assert_eq!(Database::check_url(url).is_ok(), is_usable, "{url}");
        }
    }

    #[test]
    fn percent_encoding_is_decoded_once_and_plus_signs_are_kept() {
        for (text, bytes, is_well_formed) in
            [("a%20b+c", "a b+c", true), ("%2525", "%25", true), ("50%", "50%", false), ("%zz%41", "%zzA", false)]
        {
            let decoded = percent_decode(text);
            assert_eq!(
                (decoded.bytes.as_slice(), decoded.is_well_formed),
                (bytes.as_bytes(), is_well_formed),
                "{text}"
            );
        }
    }
}
