//! The host's ledger of the activity that the database has not confirmed.
//!
//! A component that crashes loses its memory. Therefore the host runs the tracker of the `guest` crate natively, beside
//! the component. This native tracker, the ledger, receives the same activity and the same replies from the database. A
//! new instance starts from the ledger. The ledger takes as much memory as the component: two sketches, and one or two
//! snapshots.
//!
//! The ledger also determines what the component must write and how its flush must end. Any difference is a fault of
//! the component.

use boundary_usage_tracker::{
    Activity, CompactThetaSketch, Flush, HashingKey, Outcome, Plan, Snapshot, StoredUniques, Tracker, Unflushed,
};

use crate::error::Error;
use crate::records::{Flushed, Sketch, StoredUsage, Uniques, UniquesUpdate, Update};

pub(crate) struct Ledger {
    key: HashingKey,
    tracker: Tracker,
    flush: Option<OpenFlush>,
    /// The number of the last confirmed flush.
    last_flush: u64,
    /// The number of flushes that the database had confirmed and has lost since.
    forgotten_flushes: u64,
    /// Increases with each change of the ledger.
    revision: u64,
}

/// The state of the ledger that a checkpoint stores.
#[derive(Clone, Debug, Default)]
pub(crate) struct LedgerState {
    pub(crate) last_flush: u64,
    pub(crate) unflushed: Unflushed,
}

/// The component's current flush.
struct OpenFlush {
    flush: Flush,
    stage: Stage,
    /// The update to write, which the ledger plans when the stored usage has been read.
    planned: Option<Box<boundary_usage_tracker::Update>>,
    /// Whether the planned update inserts a row.
    new_period: bool,
}

/// Flushes that the database had confirmed and has lost since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// The number of the last confirmed flush.
    pub(crate) confirmed: u64,
    /// The number of the last flush in the database.
    pub(crate) stored: u64,
}

/// The end of a flush according to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushEnd {
    /// The flush began no transaction.
    NotBegun,
    /// An earlier flush turned out to be applied, and there was nothing to write.
    Confirmed(u64),
    /// The commit was applied.
    Committed { flush: u64, new_period: bool },
    /// Nothing was applied.
    RolledBack,
    /// The commit has no reply.
    Unknown,
}

impl FlushEnd {
    /// Returns whether the component's result is consistent with this end.
    ///
    /// `due` is true if there was activity or a flush in doubt.
    pub(crate) fn agrees_with(self, flushed: &Result<Flushed, Error>, due: bool) -> bool {
        match (self, flushed) {
            (Self::NotBegun, Ok(Flushed::Idle)) => !due,
            (Self::Confirmed(number), Ok(Flushed::Confirmed { flush })) => number == *flush,
            (Self::Committed { flush, new_period }, Ok(written)) => *written == Flushed::Written { flush, new_period },
            (Self::Unknown, Err(Error::CommitUnknown { .. })) => true,
            (Self::NotBegun | Self::RolledBack, Err(error)) => !matches!(error, Error::CommitUnknown { .. }),
            _ => false,
        }
    }
}

/// The stage of a flush: `Begun`, `Read`, `Sent`, `Completed`, in this order.
#[derive(Clone, Copy)]
enum Stage {
    /// The transaction has begun. A flush that ends here is rolled back.
    Begun,
    /// The stored usage was read.
    Read {
        /// The number of an earlier flush that was applied, if there is nothing to write.
        ///
        /// A flush that ends at this stage succeeds if there is such a number, and is otherwise rolled back.
        confirmed: Option<u64>,
    },
    /// The commit was sent. The outcome of a flush that ends here is unknown.
    Sent,
    /// The commit has a result.
    Completed(Outcome),
}

impl Stage {
    /// Returns the outcome of a flush that ends at this stage.
    fn outcome(self) -> Outcome {
        match self {
            Self::Read { confirmed: Some(_) } => Outcome::Committed,
            Self::Begun | Self::Read { confirmed: None } => Outcome::RolledBack,
            Self::Sent => Outcome::Unknown,
            Self::Completed(outcome) => outcome,
        }
    }
}

impl Ledger {
    /// Creates a ledger with activity that no flush has carried yet.
    pub(crate) fn new(key: HashingKey, unflushed: Option<Snapshot>) -> Self {
        let tracker = Tracker::new(key, Unflushed { delta: unflushed, in_doubt: None });
        Self { key, tracker, flush: None, last_flush: 0, forgotten_flushes: 0, revision: 0 }
    }

    /// Adds the ledger state of an earlier process. The caller must do this before the first flush.
    pub(crate) fn add(&mut self, earlier: LedgerState) {
        debug_assert!(self.flush.is_none(), "the state of an earlier process is added before the first flush");
        let LedgerState { last_flush, mut unflushed } = earlier;
        let recorded = self.tracker.unflushed().delta.clone();
        unflushed.delta = match (unflushed.delta, recorded) {
            (Some(earlier), Some(recorded)) => Some(earlier.merge(&recorded)),
            (earlier, recorded) => earlier.or(recorded),
        };
        self.tracker = Tracker::new(self.key, unflushed);
        self.last_flush = last_flush;
    }

    /// Records activities that the component is about to receive.
    pub(crate) fn record(&mut self, activities: &[crate::Activity]) {
        self.revision += u64::from(!activities.is_empty());
        for activity in activities {
            self.tracker.record(Activity {
                workspace: activity.workspace.as_u128(),
                owner: activity.owner.as_u128(),
                allowed: activity.allowed,
                denied: activity.denied,
            });
        }
    }

    /// Returns whether there is new activity or a flush in doubt.
    pub(crate) fn has_to_flush(&self) -> bool {
        self.tracker.has_to_flush()
    }

    /// Records that the component begins a transaction. Returns whether it may.
    ///
    /// The component may begin a transaction if there is activity or a flush in doubt, and if this flush has not read
    /// the stored usage yet.
    pub(crate) fn flush_begins(&mut self) -> bool {
        if let Some(open) = &self.flush {
            return matches!(open.stage, Stage::Begun);
        }
        let flush = self.tracker.start_flush().expect("an open flush is in self.flush");
        self.flush = flush.map(|flush| OpenFlush { flush, stage: Stage::Begun, planned: None, new_period: false });
        self.flush.is_some()
    }

    /// Records the usage that the component has read under the replica's lock.
    ///
    /// Returns the flushes that the database has lost, if any.
    pub(crate) fn stored_read(&mut self, stored: &StoredUsage) -> Option<Forgotten> {
        let Some(open @ OpenFlush { stage: Stage::Begun, .. }) = &mut self.flush else { return None };
        let mut confirmed = None;
        match open.flush.plan(&stored.into()) {
            Ok(Plan::Confirmed(number)) => confirmed = Some(number),
            Ok(Plan::Write(update)) => {
                open.new_period = stored.uniques.is_none();
                open.planned = Some(update);
            }
            // The stored usage is damaged. The component detects the same damage and writes nothing.
            Err(_) => {}
        }
        open.stage = Stage::Read { confirmed };
        self.revision += 1;
        let confirmed = std::mem::replace(&mut self.last_flush, stored.last_flush);
        let forgotten = confirmed.saturating_sub(stored.last_flush);
        self.forgotten_flushes = self.forgotten_flushes.saturating_add(forgotten);
        (forgotten > 0).then_some(Forgotten { confirmed, stored: stored.last_flush })
    }

    /// Returns the update that the flush must write, and removes it. Returns `None` if there is none.
    pub(crate) fn planned(&mut self) -> Option<Update> {
        self.flush.as_mut()?.planned.take().map(|update| (*update).into())
    }

    /// Returns the number of flushes that the database had confirmed and has lost since.
    pub(crate) fn forgotten_flushes(&self) -> u64 {
        self.forgotten_flushes
    }

    /// Records that the commit was sent. The component must have read the stored usage before.
    pub(crate) fn commit_sent(&mut self) {
        self.advance(Stage::Sent);
    }

    /// Records the result of the commit.
    pub(crate) fn commit_completed(&mut self, outcome: Outcome) {
        self.advance(Stage::Completed(outcome));
    }

    fn advance(&mut self, stage: Stage) {
        if let Some(open) = &mut self.flush {
            open.stage = stage;
            self.revision += 1;
            if let (Stage::Completed(Outcome::Committed), Some(number)) = (stage, open.flush.number()) {
                self.last_flush = number;
            }
        }
    }

    /// Ends the current flush, because the component has ended it or has crashed.
    pub(crate) fn flush_ends(&mut self) -> FlushEnd {
        let Some(OpenFlush { flush, stage, new_period, .. }) = self.flush.take() else { return FlushEnd::NotBegun };
        let end = match (stage, flush.number()) {
            (Stage::Read { confirmed: Some(number) }, _) => FlushEnd::Confirmed(number),
            (Stage::Completed(Outcome::Committed), Some(flush)) => FlushEnd::Committed { flush, new_period },
            (Stage::Sent | Stage::Completed(Outcome::Unknown), _) => FlushEnd::Unknown,
            _ => FlushEnd::RolledBack,
        };
        self.tracker.end_flush(flush, stage.outcome());
        end
    }

    /// Returns a number that increases with each change of the ledger.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the state that a successor needs if the process ends now.
    pub(crate) fn state(&mut self) -> LedgerState {
        let unflushed = match &mut self.flush {
            Some(OpenFlush { flush, stage, .. }) => self.tracker.unflushed_after(flush, stage.outcome()),
            None => self.tracker.unflushed().clone(),
        };
        LedgerState { last_flush: self.last_flush, unflushed }
    }

    /// Returns the activity from which a new instance starts. No flush may be open.
    pub(crate) fn unflushed(&mut self) -> &Unflushed {
        debug_assert!(self.flush.is_none(), "an open flush carries a part of the unflushed activity");
        self.tracker.unflushed()
    }
}

impl From<&StoredUsage> for boundary_usage_tracker::StoredUsage {
    fn from(stored: &StoredUsage) -> Self {
        let uniques = stored.uniques.as_ref().map(|uniques| StoredUniques {
            workspaces: uniques.workspaces.bytes.clone(),
            users: uniques.users.bytes.clone(),
        });
        Self { last_flush: stored.last_flush, uniques }
    }
}

impl From<boundary_usage_tracker::Update> for Update {
    fn from(update: boundary_usage_tracker::Update) -> Self {
        use boundary_usage_tracker::UniquesUpdate as Planned;
        let uniques = match &update.uniques {
            Planned::Delta(uniques) => UniquesUpdate::Delta(uniques.into()),
            Planned::Cumulative(uniques) => UniquesUpdate::Cumulative(uniques.into()),
            Planned::Unchanged => UniquesUpdate::Unchanged,
        };
        Self { flush: update.flush, uniques, allowed: update.allowed, denied: update.denied }
    }
}

impl From<&boundary_usage_tracker::Uniques> for Uniques {
    fn from(uniques: &boundary_usage_tracker::Uniques) -> Self {
        Self { workspaces: (&uniques.workspaces).into(), users: (&uniques.users).into() }
    }
}

impl From<&CompactThetaSketch> for Sketch {
    fn from(sketch: &CompactThetaSketch) -> Self {
        Self { count: sketch.count(), bytes: sketch.to_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn ledger(last_flush: u64) -> Ledger {
        let mut ledger = Ledger::new(HashingKey(1, 2), None);
        ledger.add(LedgerState { last_flush, unflushed: Unflushed::default() });
        ledger
    }

    fn activity() -> crate::Activity {
        crate::Activity { workspace: Uuid::from_u128(1), owner: Uuid::from_u128(2), allowed: 1, denied: 0 }
    }

    /// Begins a flush and reads a database whose last applied flush has this number.
    fn read(ledger: &mut Ledger, last_flush: u64) -> Option<Forgotten> {
        ledger.record(&[activity()]);
        assert!(ledger.flush_begins());
        ledger.stored_read(&StoredUsage { last_flush, uniques: None })
    }

    #[test]
    fn flushes_that_the_database_has_lost_are_reported_and_added_up() {
        let mut ledger = ledger(5);
        assert_eq!(read(&mut ledger, 3), Some(Forgotten { confirmed: 5, stored: 3 }));
        ledger.commit_sent();
        ledger.commit_completed(Outcome::Committed);
        assert_eq!(ledger.flush_ends(), FlushEnd::Committed { flush: 4, new_period: true });
        assert_eq!(ledger.forgotten_flushes(), 2);
        assert_eq!(read(&mut ledger, 1), Some(Forgotten { confirmed: 4, stored: 1 }));
        assert_eq!(ledger.forgotten_flushes(), 5);
    }

    #[test]
    fn a_database_with_all_confirmed_flushes_has_lost_none() {
        for last_flush in [5, 6] {
            let mut ledger = ledger(5);
            assert_eq!(read(&mut ledger, last_flush), None);
            assert_eq!(ledger.forgotten_flushes(), 0);
        }
    }

    #[test]
    fn the_revision_increases_only_with_changes() {
        let mut ledger = ledger(0);
        let start = ledger.revision();
        ledger.record(&[]);
        let mut steps = vec![ledger.revision() - start];
        read(&mut ledger, 0);
        steps.push(ledger.revision() - start);
        ledger.commit_sent();
        steps.push(ledger.revision() - start);
        ledger.commit_completed(Outcome::Committed);
        steps.push(ledger.revision() - start);
        assert_eq!(steps, [0, 2, 3, 4]);
    }

    #[test]
    fn recorded_activity_is_due_to_be_flushed() {
        let mut ledger = ledger(0);
        assert!(!ledger.has_to_flush() && !ledger.flush_begins());
        ledger.record(&[activity()]);
        assert!(ledger.has_to_flush() && ledger.flush_begins());
    }

    #[test]
    fn the_state_contains_the_last_flush_and_the_recorded_activity() {
        let mut ledger = ledger(5);
        ledger.record(&[activity()]);
        let state = ledger.state();
        let allowed = state.unflushed.delta.map(|delta| delta.allowed);
        assert_eq!((state.last_flush, allowed), (5, Some(1)));
    }
}
