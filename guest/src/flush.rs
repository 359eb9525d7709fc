//! The decisions of one flush, which compares stored usage with new activity and plans the update.
//!
//! ```text
//!            start_flush            plan              commit
//!  recorded ────────────▶ started ───────▶ planned ───────────▶ Committed   the database has the activity
//!                            │                │          ├────▶ RolledBack  the next flush carries the activity
//!                            └────────────────┴──────────┘
//!                                                        └────▶ Unknown     in doubt; the next flush resolves it
//! ```
//!
//! A replica numbers its flushes, and the database keeps the number of the last applied one. The next flush compares
//! that number with the number of a flush in doubt, and so learns whether the database applied it (D3). The comparison
//! is made under the replica's lock, because the lock proves that the lost transaction has ended.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::recording::Recording;
use crate::sketch::{CompactThetaSketch, SketchError};
use crate::snapshot::{Snapshot, Uniques};

/// The replica's row and last flush number in the database.
#[derive(Clone, Debug)]
pub struct StoredUsage {
    /// The number of the last applied flush; 0 before the first one.
    pub last_flush: u64,
    /// The ids of the open period; `None` if the replica has no row in that period.
    pub uniques: Option<StoredUniques>,
}

/// The sets of workspaces and users in serialized form, not validated yet.
#[derive(Clone, Debug)]
pub struct StoredUniques {
    /// The workspaces that were active.
    pub workspaces: Vec<u8>,
    /// The owners of the active workspaces.
    pub users: Vec<u8>,
}

/// The update that a flush writes.
#[derive(Clone, Debug)]
pub struct Update {
    /// The number of the flush, greater than that of every applied flush.
    pub flush: u64,
    /// The change of the unique sets.
    pub uniques: UniquesUpdate,
    /// Allowed requests since the last flush.
    pub allowed: u64,
    /// Denied requests since the last flush.
    pub denied: u64,
}

/// The change of the unique sets in the replica's row (R5).
#[derive(Clone, Debug)]
pub enum UniquesUpdate {
    /// The open period has no row of the replica. The new row gets the ids since the last flush.
    Delta(Uniques),
    /// The union of the row's ids and the new ones replaces the row's sets (D1).
    Cumulative(Uniques),
    /// The row already contains all ids and keeps its sets.
    Unchanged,
}

/// The next step of a flush after it has read the database.
#[derive(Clone, Debug)]
pub enum Plan {
    /// The flush in doubt has this number and was applied. There is nothing else to write, so roll back.
    Confirmed(u64),
    /// Write this update and commit.
    Write(Box<Update>),
}

/// The end of a flush's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The database has applied the plan.
    Committed,
    /// The database has applied nothing.
    RolledBack,
    /// The commit was sent and had no reply.
    Unknown,
}

/// A flush whose commit had no reply.
#[derive(Clone, Debug)]
pub struct InDoubt {
    /// The number of the flush.
    pub flush: u64,
    /// The activity that the flush carried.
    pub snapshot: Snapshot,
}

/// Activity that may be missing in the database, and that a tracker must not lose.
#[derive(Clone, Debug, Default)]
pub struct Unflushed {
    /// The activity that the next flush carries.
    pub delta: Option<Snapshot>,
    /// The flush in doubt, whose outcome the next flush determines.
    pub in_doubt: Option<InDoubt>,
}

/// One attempt to write a tracker's unflushed activity.
pub struct Flush {
    /// The part of the delta that is not compacted yet.
    recorded: Option<Recording>,
    delta: Option<Snapshot>,
    in_doubt: Option<InDoubt>,
    /// The number of this flush. `None` before the flush has read the database.
    number: Option<u64>,
}

impl StoredUniques {
    /// Reads both sets.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`CompactThetaSketch::from_bytes`].
    pub fn read(&self) -> Result<Uniques, SketchError> {
        Ok(Uniques {
            workspaces: CompactThetaSketch::from_bytes(&self.workspaces)?,
            users: CompactThetaSketch::from_bytes(&self.users)?,
        })
    }
}

impl Flush {
    pub(crate) fn new(recorded: Option<Recording>, unflushed: Unflushed) -> Self {
        Self { recorded, delta: unflushed.delta, in_doubt: unflushed.in_doubt, number: None }
    }

    /// Compacts the delta.
    ///
    /// `plan` also compacts. A call before the transaction keeps that work out of the transaction.
    pub fn compact(&mut self) {
        let recorded = self.recorded.take().map(Recording::compact);
        self.delta = Snapshot::merge_options(self.delta.take(), recorded);
    }

    /// Decides what to write.
    ///
    /// The transaction must hold the replica's lock when it reads `stored`.
    ///
    /// # Errors
    ///
    /// Returns a [`SketchError`] if a stored sketch is damaged.
    pub fn plan(&mut self, stored: &StoredUsage) -> Result<Plan, SketchError> {
        if let Some(confirmed) = self.last_flush_read(stored.last_flush) {
            return Ok(Plan::Confirmed(confirmed));
        }
        self.compact();
        let (Some(delta), Some(flush)) = (&self.delta, self.number) else {
            unreachable!("a flush that is not confirmed has a delta and a number");
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

    /// Resolves the flush in doubt, if there is one, and numbers this flush.
    ///
    /// Returns the number of the flush in doubt if that flush was applied and there is nothing else to write.
    fn last_flush_read(&mut self, last_flush: u64) -> Option<u64> {
        let confirmed = self.resolve_doubt(last_flush);
        if self.recorded.is_none() && self.delta.is_none() {
            return Some(confirmed.expect("a flush has a delta or a doubt, and a disproved doubt becomes a delta"));
        }
        self.number = Some(last_flush.saturating_add(1));
        None
    }

    /// Returns the number of this flush; `None` before the flush has read the database.
    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// Drops the flush in doubt if it was applied, and otherwise merges it into the delta.
    ///
    /// Returns the number of the flush in doubt if it was applied.
    fn resolve_doubt(&mut self, last_flush: u64) -> Option<u64> {
        let in_doubt = self.in_doubt.take()?;
        if last_flush >= in_doubt.flush {
            return Some(in_doubt.flush);
        }
        self.delta = Snapshot::merge_options(Some(in_doubt.snapshot), self.delta.take());
        None
    }

    /// Returns the activity that the tracker keeps after `outcome`.
    pub(crate) fn unflushed(&mut self, outcome: Outcome) -> Unflushed {
        if outcome == Outcome::Committed {
            assert!(self.in_doubt.is_none(), "a commit follows a plan, which resolves the doubt");
            return Unflushed::default();
        }
        self.compact();
        match (outcome, self.delta.clone(), self.number) {
            (Outcome::Unknown, Some(snapshot), Some(flush)) => {
                Unflushed { delta: None, in_doubt: Some(InDoubt { flush, snapshot }) }
            }
            // A flush without a number has sent no commit, so the database cannot have applied it.
            (_, delta, _) => Unflushed { delta, in_doubt: self.in_doubt.clone() },
        }
    }
}
