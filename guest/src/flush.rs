//! The decisions of one flush, from what the database answers to what is written next.
//!
//! ```text
//!            start_flush              plan                  commit
//!  recorded ────────────▶ taken ────────────▶ to be written ──────▶ Committed   it is in the database
//!                           │                      │          ├───▶ RolledBack  put back, goes out with the next flush
//!                           └──────────────────────┴──────────┘
//!                                                             └───▶ Unknown     in doubt: the next flush finds out
//! ```
//!
//! Flushes of a replica are numbered, and the database keeps the number of the last one applied. So a flush in doubt is
//! resolved by one comparison, made under the replica's lock, when the transaction in doubt is certainly over (D3).

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::recording::Recording;
use crate::sketch::{SketchError, UniqueSketch};
use crate::snapshot::{Snapshot, Uniques};

/// What the database holds of a replica.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The number of the last flush applied; 0 when there was none.
    pub last_flush: u64,
    /// The ids of the open period; `None` when the replica has no row in it.
    pub uniques: Option<StoredUniques>,
}

/// The two sets, as the database holds them: serialized, and perhaps damaged.
#[derive(Clone, Debug)]
pub struct StoredUniques {
    /// The workspaces that were active.
    pub workspaces: Vec<u8>,
    /// The users who own them.
    pub users: Vec<u8>,
}

/// What a flush writes.
#[derive(Clone, Debug)]
pub struct Update {
    /// Its number, greater than that of any flush applied before.
    pub flush: u64,
    /// What becomes of the unique sets.
    pub uniques: UniquesUpdate,
    /// Requests let through since the last flush.
    pub allowed: u64,
    /// Requests blocked since the last flush.
    pub denied: u64,
}

/// What an update makes of the unique sets in the replica's row (R5).
#[derive(Clone, Debug)]
pub enum UniquesUpdate {
    /// There is no row in the open period: a new one takes the ids since the last flush.
    Delta(Uniques),
    /// The ids of the open period, with these, replace those of the row (D1).
    Cumulative(Uniques),
    /// The row holds these ids already, and keeps its sets.
    Unchanged,
}

/// How a flush goes on once the database has been read.
#[derive(Clone, Debug)]
pub enum Plan {
    /// The flush of this number, which was in doubt, was applied, and nothing else waits: roll back and be done.
    Confirmed(u64),
    /// Write this and commit.
    Write(Box<Update>),
}

/// How the transaction of a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was planned is in the database.
    Committed,
    /// Nothing was applied.
    RolledBack,
    /// The commit was sent and brought no reply.
    Unknown,
}

/// A snapshot that may or may not be in the database.
#[derive(Clone, Debug)]
pub struct InDoubt {
    /// The number of the flush that carried it.
    pub flush: u64,
    /// What it carried.
    pub snapshot: Snapshot,
}

/// What is not in the database for certain: all that a tracker must not forget.
#[derive(Clone, Debug, Default)]
pub struct LeftOver {
    /// Goes out with the next flush.
    pub delta: Option<Snapshot>,
    /// The next flush finds out whether it was applied.
    pub in_doubt: Option<InDoubt>,
}

/// One attempt to write what a tracker has gathered.
pub struct Flush {
    /// Part of the delta, until it is frozen.
    recorded: Option<Recording>,
    delta: Option<Snapshot>,
    in_doubt: Option<InDoubt>,
    /// The number under which the delta goes out, once the database has been read.
    number: Option<u64>,
}

impl StoredUniques {
    /// Reads both.
    ///
    /// # Errors
    ///
    /// As [`UniqueSketch::from_bytes`].
    pub fn read(&self) -> Result<Uniques, SketchError> {
        Ok(Uniques {
            workspaces: UniqueSketch::from_bytes(&self.workspaces)?,
            users: UniqueSketch::from_bytes(&self.users)?,
        })
    }
}

impl Flush {
    pub(crate) fn new(recorded: Option<Recording>, left_over: LeftOver) -> Self {
        Self { recorded, delta: left_over.delta, in_doubt: left_over.in_doubt, number: None }
    }

    /// Freezes what the flush carries. Whatever needs it frozen does that; earlier, it can be done while waiting.
    pub fn freeze(&mut self) {
        let recorded = self.recorded.take().map(Recording::freeze);
        self.delta = Snapshot::merge_some(self.delta.take(), recorded);
    }

    /// Decides what to write. `stored` must have been read while the transaction held the replica's lock.
    ///
    /// # Errors
    ///
    /// When what is stored is damaged.
    pub fn plan(&mut self, stored: &Stored) -> Result<Plan, SketchError> {
        if let Some(confirmed) = self.last_flush_read(stored.last_flush) {
            return Ok(Plan::Confirmed(confirmed));
        }
        self.freeze();
        let (Some(delta), Some(flush)) = (&self.delta, self.number) else {
            unreachable!("what is not confirmed carries a delta, and has a number");
        };
        let uniques = match &stored.uniques {
            None => UniquesUpdate::Delta(delta.uniques.clone()),
            Some(stored) => match stored.read()? {
                stored if stored.hold_all(&delta.uniques) => UniquesUpdate::Unchanged,
                stored => UniquesUpdate::Cumulative(stored.union(&delta.uniques)),
            },
        };
        Ok(Plan::Write(Box::new(Update { flush, uniques, allowed: delta.allowed, denied: delta.denied })))
    }

    /// What it carries.
    #[cfg(all(target_family = "wasm", feature = "misbehaving"))]
    pub(crate) fn delta(&self) -> &Snapshot {
        self.delta.as_ref().expect("a planned write carries a delta")
    }

    /// Resolves a doubt, and numbers the delta. Returns the number of the flush in doubt if it was applied and nothing else
    /// waits.
    fn last_flush_read(&mut self, last_flush: u64) -> Option<u64> {
        let confirmed = self.resolve_doubt(last_flush);
        if self.recorded.is_none() && self.delta.is_none() {
            return Some(confirmed.expect("a flush carries a delta or a doubt; a doubt disproved is a delta"));
        }
        self.number = Some(last_flush.saturating_add(1));
        None
    }

    /// The number under which it writes, once the database has been read.
    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// Drops the snapshot in doubt if it was applied, and makes it part of the delta if it was not. Answers the number
    /// of the flush that was applied.
    fn resolve_doubt(&mut self, last_flush: u64) -> Option<u64> {
        let in_doubt = self.in_doubt.take()?;
        if last_flush >= in_doubt.flush {
            return Some(in_doubt.flush);
        }
        self.delta = Snapshot::merge_some(Some(in_doubt.snapshot), self.delta.take());
        None
    }

    /// What the tracker gets back.
    pub(crate) fn left_over(&mut self, outcome: Outcome) -> LeftOver {
        if outcome == Outcome::Committed {
            assert!(self.in_doubt.is_none(), "a commit follows a plan, and a plan resolves the doubt");
            return LeftOver::default();
        }
        self.freeze();
        match (outcome, self.delta.clone(), self.number) {
            (Outcome::Unknown, Some(snapshot), Some(flush)) => {
                LeftOver { delta: None, in_doubt: Some(InDoubt { flush, snapshot }) }
            }
            // Without a number there was nothing to commit, so that nothing can have been applied.
            (_, delta, _) => LeftOver { delta, in_doubt: self.in_doubt.clone() },
        }
    }
}
