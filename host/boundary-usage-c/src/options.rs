//! The options of a tracker, as texts.

use std::path::PathBuf;
use std::time::Duration;

use boundary_usage::Database;
use uuid::Uuid;

use crate::status::Failure;

/// The options of a tracker. They have the names of the flags of `serve`.
#[derive(Clone, Default)]
pub struct Options {
    pub(crate) database: Option<String>,
    pub(crate) replica: Option<Uuid>,
    pub(crate) state_directory: Option<PathBuf>,
    pub(crate) has_slots: bool,
    pub(crate) component: Option<PathBuf>,
    pub(crate) tracker: boundary_usage::Options,
}

const NAMES: &str = "database, replica, state-dir, state-slots, checkpoint-interval, flush-interval, flush-timeout, \
                     shutdown-timeout, component";

impl Options {
    /// Sets an option.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let tracker = &mut self.tracker;
        match name {
            "database" => {
                // The message names no password, and neither does this context.
                Database::check_url(value)?;
                self.database = Some(value.to_owned());
            }
            "replica" => self.replica = Some(replica(value)?),
            "state-dir" => self.state_directory = Some(path(name, value)?),
            "state-slots" => self.has_slots = switch(name, value)?,
            "component" => self.component = Some(path(name, value)?),
            "checkpoint-interval" => tracker.checkpoint_interval = duration(name, value)?,
            "flush-interval" => tracker.flush_interval = duration(name, value)?,
            "flush-timeout" => tracker.flush_timeout = duration(name, value)?,
            "shutdown-timeout" => tracker.shutdown_timeout = duration(name, value)?,
            _ => return Err(Failure::argument(format!("unknown option {name:?}; the options are {NAMES}"))),
        }
        Ok(())
    }

    /// Checks that the options fit together.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.has_slots && self.state_directory.is_none() {
            return Err(Failure::argument("state-slots needs state-dir"));
        }
        if self.has_slots && self.replica.is_some() {
            return Err(Failure::argument("state-slots and replica exclude each other: each slot has its own replica"));
        }
        Ok(())
    }

    /// Returns the database URL.
    pub(crate) fn database(&self) -> Result<&str, Failure> {
        self.database.as_deref().ok_or_else(|| Failure::argument("the option database is not set"))
    }
}

fn replica(value: &str) -> Result<Uuid, Failure> {
    match Uuid::try_parse(value) {
        Ok(id) if !id.is_nil() => Ok(id),
        _ => Err(Failure::argument(format!("replica is {value:?}, must be a UUID and not the nil UUID"))),
    }
}

fn path(name: &str, value: &str) -> Result<PathBuf, Failure> {
    if value.is_empty() {
        return Err(Failure::argument(format!("{name} is empty, must be a path")));
    }
    Ok(PathBuf::from(value))
}

fn switch(name: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Failure::argument(format!("{name} is {value:?}, must be on or off"))),
    }
}

/// The longest time, as for the flags of `serve`.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn duration(name: &str, value: &str) -> Result<Duration, Failure> {
    let range = Duration::from_millis(1)..=DAY;
    let parsed = humantime::parse_duration(value).ok().filter(|duration| range.contains(duration));
    parsed.ok_or_else(|| {
        Failure::argument(format!("{name} is {value:?}, must be a time from 1ms to 1day, such as 60s or 1h 30m"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    #[test]
    fn options_are_set_by_the_names_of_flags() {
        let mut options = Options::default();
        for (name, value) in [
            ("database", "sqlite:usage.db"),
            ("replica", "0193a1b2-0000-7000-8000-000000000001"),
            ("state-dir", "/var/lib/usage"),
            ("component", "tracker.wasm"),
            ("flush-interval", "90s"),
            ("checkpoint-interval", "100ms"),
            ("flush-timeout", "3s"),
            ("shutdown-timeout", "4s"),
        ] {
            options.set(name, value).unwrap();
        }
        options.check().unwrap();
        assert_eq!(options.database().unwrap(), "sqlite:usage.db");
        let times = [options.tracker.flush_interval, options.tracker.checkpoint_interval];
        assert_eq!(times, [Duration::from_secs(90), Duration::from_millis(100)]);
        let limits = [options.tracker.flush_timeout, options.tracker.shutdown_timeout];
        assert_eq!(limits, [Duration::from_secs(3), Duration::from_secs(4)]);
    }

    #[test]
    fn invalid_options_are_refused_with_name_and_value() {
        for (name, value, part) in [
            ("databse", "sqlite:usage.db", "the options are database, replica"),
            ("database", "mysql://localhost/usage", "mysql"),
            ("replica", "7", "\"7\""),
            ("replica", "00000000-0000-0000-0000-000000000000", "nil"),
            ("state-dir", "", "empty"),
            ("state-slots", "yes", "must be on or off"),
            ("flush-interval", "60", "from 1ms to 1day"),
            ("flush-interval", "25h", "from 1ms to 1day"),
            ("checkpoint-interval", "0s", "from 1ms to 1day"),
        ] {
            let failure = Options::default().set(name, value).unwrap_err();
            assert_eq!(failure.status, Status::BoundaryUsageInvalidArgument);
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }

    #[test]
    fn contradictory_options_are_refused() {
        let mut options = Options::default();
        assert!(options.database().unwrap_err().message.contains("not set"));
        options.set("state-slots", "on").unwrap();
        assert!(options.check().unwrap_err().message.contains("needs state-dir"));
        options.set("state-dir", "state").unwrap();
        options.check().unwrap();
        options.set("replica", "0193a1b2-0000-7000-8000-000000000001").unwrap();
        assert!(options.check().unwrap_err().message.contains("exclude each other"));
    }
}
