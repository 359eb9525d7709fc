//! Arguments that several commands share, and the parsers of their values.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use chrono::{Datelike, NaiveDate};
use clap::ArgAction;
use uuid::Uuid;

use crate::failure::UsageError;
use crate::output::Format;
use crate::printable::{self, printable};

/// The options of all commands.
// This type is not `Debug`, because a database URL may contain a password.
#[derive(clap::Args)]
pub struct Global {
    /// Database URL: `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST/DATABASE` for several replicas.
    ///
    /// Prefer the environment variable if the URL contains a password: every user of the machine can read arguments.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "BOUNDARY_USAGE_DATABASE",
        hide_env_values = true,
        default_value = "sqlite:boundary-usage.db"
    )]
    pub database: String,

    /// Output format.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: Format,

    /// More log lines on stderr: -v for events, -vv for details. RUST_LOG overrides this option.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The longest time between two flushes.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest period.
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The longest age of what is kept.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// An age at which something is deleted, or `None` to keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeLimit(pub Option<Duration>);

/// The length limit of a unix socket's path. The address has room for 108 bytes, of which the last is 0.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Parses a wait of at most an hour.
///
/// # Errors
///
/// Returns an error if the text is not a duration from 1ms to 1h.
pub fn parse_wait(text: &str) -> Result<Duration, String> {
    parse_duration(text, Duration::from_secs(60 * 60), "from 1ms to 1h")
}

/// Parses the wait after the first failed delivery.
///
/// # Errors
///
/// Returns an error if the text is not a duration from 1ms to 5m.
pub fn parse_retry(text: &str) -> Result<Duration, String> {
    parse_duration(text, Duration::from_secs(5 * 60), "from 1ms to 5m")
}

/// Parses the time between two flushes.
///
/// # Errors
///
/// Returns an error if the text is not a duration from 1ms to 1day.
pub fn parse_flush_interval(text: &str) -> Result<Duration, String> {
    parse_duration(text, DAY, "from 1ms to 1day")
}

/// Parses the length of a period.
///
/// # Errors
///
/// Returns an error if the text is not a duration from 1ms to 366days.
pub fn parse_period(text: &str) -> Result<Duration, String> {
    parse_duration(text, YEAR, "from 1ms to 366days")
}

/// Parses the age of what is deleted.
///
/// # Errors
///
/// Returns an error if the text is not a duration from 1day to 100years.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    parse_within(text, DAY, CENTURY, "from 1day to 100years")
}

/// Parses the age of what is deleted, or `none`.
///
/// # Errors
///
/// Returns an error if the text is neither `none` nor a duration from 1day to 100years.
pub fn parse_age_limit(text: &str) -> Result<AgeLimit, String> {
    match text {
        "none" => Ok(AgeLimit(None)),
        _ => parse_within(text, DAY, CENTURY, "from 1day to 100years, or none").map(|age| AgeLimit(Some(age))),
    }
}

fn parse_duration(text: &str, longest: Duration, range: &str) -> Result<Duration, String> {
    parse_within(text, Duration::from_millis(1), longest, range)
}

fn parse_within(text: &str, shortest: Duration, longest: Duration, range: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if (shortest..=longest).contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("must be {range}")),
        Err(error) => Err(format!("{error}; write it like 60s, 30m or 1h 30m, {range}")),
    }
}

/// Parses a date.
///
/// # Errors
///
/// Returns an error if the text is not a date in the years 1 to 9999.
pub fn parse_date(text: &str) -> Result<NaiveDate, String> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let date = date.filter(|date| (1..=9_999).contains(&date.year()));
    date.ok_or_else(|| "not a date; write it like 2026-01-31".to_owned())
}

/// Checks a range of dates. `to` is exclusive.
///
/// # Errors
///
/// Returns a [`UsageError`] if the range has no day.
pub fn check_range(from: Option<NaiveDate>, to: Option<NaiveDate>) -> Result<(), UsageError> {
    match (from, to) {
        (Some(from), Some(to)) if from >= to => {
            Err(UsageError(format!("the range from {from} to {to} has no day; --to is the date after the last one")))
        }
        _ => Ok(()),
    }
}

/// Parses the id of a workspace, user or replica.
///
/// # Errors
///
/// Returns an error if the text is not a UUID, or if it is the nil UUID.
pub fn parse_id(text: &str) -> Result<Uuid, String> {
    match Uuid::try_parse(text) {
        Ok(id) if id.is_nil() => Err("the nil UUID is not a valid id".into()),
        Ok(id) => Ok(id),
        Err(error) => Err(format!("not a UUID: {}", printable(error))),
    }
}

/// Parses an address to listen on.
///
/// # Errors
///
/// Returns an error if the text is not an IP address with a port. Host names are refused, because a name may stand for
/// several addresses.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an IP address and a port; write it like 127.0.0.1:9464 or [::1]:9464".to_owned())
}

/// Checks the path of a unix socket.
///
/// # Errors
///
/// Returns an error if the path is empty or too long.
pub fn check_socket_path(path: &Path) -> Result<(), String> {
    match path.as_os_str().len() {
        0 => Err("the socket path is empty".into()),
        1..=MAX_SOCKET_PATH_BYTES => Ok(()),
        length => {
            let path = printable::path(path);
            Err(format!("the socket path {path} has {length} bytes; the limit is {MAX_SOCKET_PATH_BYTES}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_outside_the_range_are_rejected_with_the_range() {
        assert_eq!(parse_period("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_period("366d"), Ok(YEAR));
        for invalid in ["0s", "999us", "60", "soon", "366d 1ms", "8000y", "99999999999999999999y"] {
            let message = parse_period(invalid).unwrap_err();
            assert!(message.contains("from 1ms to 366days"), "{invalid}: {message}");
        }
        assert!(parse_wait("61m").unwrap_err().contains("from 1ms to 1h"));
        assert!(parse_flush_interval("25h").unwrap_err().contains("from 1ms to 1day"));
    }

    #[test]
    fn an_age_is_at_least_a_day_or_none() {
        assert_eq!((parse_age("1d"), parse_age("100years").is_ok()), (Ok(DAY), true));
        assert_eq!(
            (parse_age_limit("none"), parse_age_limit("90d")),
            (Ok(AgeLimit(None)), Ok(AgeLimit(Some(90 * DAY))))
        );
        for invalid in ["23h 59m", "0s", "102years", "none at all", ""] {
            assert!(parse_age(invalid).unwrap_err().contains("from 1day to 100years"), "{invalid}");
            assert!(parse_age_limit(invalid).unwrap_err().contains("or none"), "{invalid}");
        }
        assert!(parse_age("none").is_err());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_rejected() {
        assert_eq!(check_socket_path(Path::new(&"a".repeat(107))), Ok(()));
        assert!(check_socket_path(Path::new(&"a".repeat(108))).unwrap_err().contains("108 bytes"));
        assert!(check_socket_path(Path::new("")).is_err());
    }
}
