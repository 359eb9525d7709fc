//! A collection: closes the period, and answers what it held.
//!
//! One transaction takes the cutover lock alone, so that no flush is half in this period and half in the next (R8),
//! deletes all rows, writes the summary of exactly those, and commits (C1, D7). From then on the summary waits in
//! the table of periods until its delivery is acknowledged.
//!
//! This is native code on purpose: the sandbox of a proxy never holds the power to delete other replicas' rows.

mod summary;

pub use summary::{Summary, TakenRow};

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::database::Database;
use crate::error::Error;

/// How to collect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectOptions {
    /// Leave out rows that were not updated for longer than this; the summary says how many. Default: leave out none.
    pub max_staleness: Option<Duration>,
    /// Close the period only if it is at least this old; so that of several collectors the first one closes it, and the
    /// others find it closed. Default: close it whatever its age.
    pub min_age: Option<Duration>,
}

/// What a collection did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    /// It closed the period; the summary waits for its delivery to be acknowledged.
    Closed(Summary),
    /// The period was younger than asked for: another collector has just closed the one before.
    NotDue {
        /// How old the open period is.
        age: Duration,
    },
}

impl Database {
    /// Closes the period and answers its summary: zeros when there was nothing.
    ///
    /// # Errors
    ///
    /// When the database is unavailable, when a flush holds the lock for too long, or when a stored sketch is damaged;
    /// nothing is deleted then.
    pub async fn collect(&self, _options: CollectOptions) -> Result<Collection, Error> {
        unimplemented!()
    }

    /// Collects whenever the period is `interval` old, until cancelled. Failures are logged as warnings; the loop goes on.
    pub async fn collect_every(&self, _interval: Duration, _options: CollectOptions, _clock: crate::Clock) {
        unimplemented!()
    }
}
