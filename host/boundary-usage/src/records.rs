//! Plain data that several modules share: stored usage, the update of a flush, and a flush's result.

use boundary_usage_tracker::CompactThetaSketch;
use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

/// A serialized set of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// The estimated number of ids.
    pub count: u64,
    /// The compact Theta sketch.
    pub bytes: Vec<u8>,
}

impl Sketch {
    /// Returns the count that the bytes yield. `None` if they are damaged.
    ///
    /// It is exact up to 16,384, and else an estimate with a relative standard error of 0.78 %.
    pub fn estimate(&self) -> Option<u64> {
        CompactThetaSketch::from_bytes(&self.bytes).ok().map(|sketch| sketch.count())
    }
}

/// The unique workspaces and users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uniques {
    /// The workspaces that were active.
    pub workspaces: Sketch,
    /// The owners of the active workspaces.
    pub users: Sketch,
}

/// The stored usage of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUsage {
    /// The number of the last applied flush, or 0 before the first.
    pub last_flush: u64,
    /// The sketches of the open period. `None` if the replica has no row in that period.
    pub uniques: Option<Uniques>,
}

/// The update that one flush writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The number of the flush.
    pub flush: u64,
    /// The update of the unique sets.
    pub uniques: UniquesUpdate,
    /// Requests allowed since the last flush, at most 2^63 - 1.
    pub allowed: u64,
    /// Requests denied since the last flush, at most 2^63 - 1.
    pub denied: u64,
}

/// The update of the unique sets in a replica's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UniquesUpdate {
    /// The ids of this flush. These ids begin a new row, because the replica has no row in the open period.
    Delta(Uniques),
    /// All ids of the open period, including those of this flush. These ids replace those of the row.
    Cumulative(Uniques),
    /// The row keeps its ids, because it contains those of this flush already.
    Unchanged,
}

/// The period that a collection would close now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPeriod {
    /// The last cutover, or the creation of the schema before the first cutover.
    pub start: DateTime<Utc>,
    /// The current time of the database.
    pub now: DateTime<Utc>,
    /// Whether a replica has flushed in the period.
    pub has_usage: bool,
}

/// A UTC day of the history: the periods that started in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// The date.
    pub date: NaiveDate,
    /// The number of periods with usage.
    pub periods: u64,
    /// Whether a period ended clearly after midnight, so the day may contain activity of the next one.
    pub spans_midnight: bool,
    /// Allowed requests.
    pub allowed: u64,
    /// Denied requests.
    pub denied: u64,
    /// The unique workspaces and users.
    pub uniques: Uniques,
}

/// A replica's row that a collection deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedRow {
    /// The replica.
    pub replica: Uuid,
    /// The replica's unique workspaces and users.
    pub uniques: Uniques,
    /// Allowed requests.
    pub allowed: u64,
    /// Denied requests.
    pub denied: u64,
    /// The time of the replica's last flush in the period.
    pub updated_at: DateTime<Utc>,
}

/// The result of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// There was no new activity, so the flush opened no transaction.
    Idle,
    /// An earlier commit without a reply turned out to be applied. There was nothing else to write.
    Confirmed {
        /// The number of the earlier flush.
        flush: u64,
    },
    /// All activity since the last flush is in the database.
    Written {
        /// The number of the flush.
        flush: u64,
        /// Whether this is the replica's first flush of the period.
        new_period: bool,
    },
}
