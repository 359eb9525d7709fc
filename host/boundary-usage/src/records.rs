//! Plain data that several modules share: stored usage, the update of a flush, and a flush's result.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A unique set as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// How many ids it holds, as the sketch estimates.
    pub count: u64,
    /// A compact Theta sketch.
    pub bytes: Vec<u8>,
}

/// The two sets that are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uniques {
    /// The workspaces that were active.
    pub workspaces: Sketch,
    /// The users who own them.
    pub users: Sketch,
}

/// What is stored of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUsage {
    /// The number of the last flush applied; 0 when there was none.
    pub last_flush: u64,
    /// The sketches of the open period; `None` when the replica has no row in it. Their counts are those stored.
    pub uniques: Option<Uniques>,
}

/// What one flush writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The flush's number.
    pub flush: u64,
    /// What becomes of the unique sets.
    pub uniques: UniquesUpdate,
    /// Requests let through since the last flush, at most 2^63 - 1.
    pub allowed: u64,
    /// Requests blocked since the last flush, at most 2^63 - 1.
    pub denied: u64,
}

/// What an update makes of the unique sets in a replica's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UniquesUpdate {
    /// There is no row in the open period: a new one takes the ids of this flush alone.
    Delta(Uniques),
    /// The ids of the open period, this flush included, replace those of the row.
    Cumulative(Uniques),
    /// The row keeps its sets: it holds the ids of this flush already.
    Unchanged,
}

/// The period that a collection would close now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPeriod {
    /// The last cutover; before the first, when the schema was made.
    pub start: DateTime<Utc>,
    /// Now.
    pub now: DateTime<Utc>,
}

/// A replica's row, as a collection deleted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedRow {
    /// The replica.
    pub replica: Uuid,
    /// Its sketches and counts.
    pub uniques: Uniques,
    /// Requests let through.
    pub allowed: u64,
    /// Requests blocked.
    pub denied: u64,
    /// The replica's last flush of the period.
    pub updated_at: DateTime<Utc>,
}

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing was tracked since the last flush: no transaction was opened.
    Idle,
    /// A flush whose commit had brought no reply was found applied; nothing else was waiting.
    Confirmed {
        /// Its number.
        flush: u64,
    },
    /// The activity since the last flush is in the database.
    Written {
        /// The flush's number.
        flush: u64,
        /// Whether it is the replica's first of the period.
        new_period: bool,
    },
}
