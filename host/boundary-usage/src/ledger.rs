//! What the component must not lose: the host's own account of the activity that is not in the database for certain.
//!
//! A component that breaks takes its memory with it. So the host keeps the same account beside it, by the same rules:
//! this is the tracker of the `guest` crate, run natively, told what the component is told and what the database answers.
//! A new instance starts from it. In memory it is as large as the component's: two sketches, and a snapshot or two.
//!
//! The same account tells what the component must write and how its flush must end. Any difference is a fault of the component.

use boundary_usage_tracker::{
    Activity, CompactThetaSketch, Flush, HashingKey, Outcome, Plan, Snapshot, StoredUniques, Tracker, Unflushed,
};

use crate::error::Error;
use crate::records::{Flushed, Sketch, StoredUsage, Uniques, UniquesUpdate, Update};

pub(crate) struct Ledger {
    key: HashingKey,
    tracker: Tracker,
    flush: Option<OpenFlush>,
    /// The number of the last flush known to be applied.
    last_flush: u64,
    /// How many flushes the database had confirmed and later no longer had.
    forgotten_flushes: u64,
    /// Changes whenever the account does.
    revision: u64,
}

/// The account at one moment: what a checkpoint keeps.
#[derive(Clone, Debug, Default)]
pub(crate) struct LedgerState {
    pub(crate) last_flush: u64,
    pub(crate) unflushed: Unflushed,
}

/// The flush that the component is at.
struct OpenFlush {
    flush: Flush,
    stage: Stage,
    /// What it has to write, once the database has been read.
    planned: Option<Box<boundary_usage_tracker::Update>>,
    /// Whether the planned write begins a row.
    new_period: bool,
}

/// Flushes that the database had confirmed and no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// The number of the last flush that was confirmed.
    pub(crate) confirmed: u64,
    /// The number of the last flush that the database has.
    pub(crate) stored: u64,
}

/// How a flush ended by the host's own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushEnd {
    /// It began no transaction.
    NotBegun,
    /// It found an earlier flush applied, and had nothing to write.
    Confirmed(u64),
    /// Its commit was applied.
    Committed { flush: u64, new_period: bool },
    /// Nothing was applied.
    RolledBack,
    /// Its commit has no reply.
    Unknown,
}

impl FlushEnd {
    /// Whether the component's result says the same. `due` tells whether there was anything to flush.
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

/// ```text
/// Begun ──▶ Read ──▶ Sent ──▶ Answered
/// ```
#[derive(Clone, Copy)]
enum Stage {
    /// To end the flush now rolls it back.
    Begun,
    /// The same, unless all it had to do was to find this earlier one applied.
    Read {
        confirmed: Option<u64>,
    },
    /// The commit is on its way: to end the flush now leaves its outcome unknown.
    Sent,
    Answered(Outcome),
}

impl Stage {
    /// What becomes of a flush that ends at this stage.
    fn outcome(self) -> Outcome {
        match self {
            Self::Read { confirmed: Some(_) } => Outcome::Committed,
            Self::Begun | Self::Read { confirmed: None } => Outcome::RolledBack,
            Self::Sent => Outcome::Unknown,
            Self::Answered(outcome) => outcome,
        }
    }
}

impl Ledger {
    /// A ledger that holds this activity, which no flush has carried yet.
    pub(crate) fn new(key: HashingKey, unflushed: Option<Snapshot>) -> Self {
        let tracker = Tracker::new(key, Unflushed { delta: unflushed, in_doubt: None });
        Self { key, tracker, flush: None, last_flush: 0, forgotten_flushes: 0, revision: 0 }
    }

    /// Adds the account of an earlier process. No flush may have begun.
    pub(crate) fn add(&mut self, earlier: LedgerState) {
        debug_assert!(self.flush.is_none(), "the account of an earlier process comes before the first flush");
        let LedgerState { last_flush, mut unflushed } = earlier;
        let recorded = self.tracker.unflushed().delta.clone();
        unflushed.delta = match (unflushed.delta, recorded) {
            (Some(earlier), Some(recorded)) => Some(earlier.merge(&recorded)),
            (earlier, recorded) => earlier.or(recorded),
        };
        self.tracker = Tracker::new(self.key, unflushed);
        self.last_flush = last_flush;
    }

    /// The component is about to be told of these.
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

    /// Whether a flush that began now would have anything to write or to find out.
    pub(crate) fn has_to_flush(&self) -> bool {
        self.tracker.has_to_flush()
    }

    /// The component has taken its snapshot and begins a transaction. Returns whether it may: a flush reads and commits once,
    /// and there must be something to flush.
    pub(crate) fn flush_begins(&mut self) -> bool {
        if let Some(open) = &self.flush {
            return matches!(open.stage, Stage::Begun);
        }
        let flush = self.tracker.start_flush().expect("an open flush is in self.flush");
        self.flush = flush.map(|flush| OpenFlush { flush, stage: Stage::Begun, planned: None, new_period: false });
        self.flush.is_some()
    }

    /// The component has read what is stored, under the replica's lock. Returns what the database has forgotten.
    pub(crate) fn stored_read(&mut self, stored: &StoredUsage) -> Option<Forgotten> {
        let Some(open @ OpenFlush { stage: Stage::Begun, .. }) = &mut self.flush else { return None };
        let mut confirmed = None;
        match open.flush.plan(&stored.into()) {
            Ok(Plan::Confirmed(number)) => confirmed = Some(number),
            Ok(Plan::Write(update)) => {
                open.new_period = stored.uniques.is_none();
                open.planned = Some(update);
            }
            // What is stored is damaged. The component finds the same, and has nothing to write.
            Err(_) => {}
        }
        open.stage = Stage::Read { confirmed };
        self.revision += 1;
        let confirmed = std::mem::replace(&mut self.last_flush, stored.last_flush);
        let forgotten = confirmed.saturating_sub(stored.last_flush);
        self.forgotten_flushes = self.forgotten_flushes.saturating_add(forgotten);
        (forgotten > 0).then_some(Forgotten { confirmed, stored: stored.last_flush })
    }

    /// What the flush has to write. `None` if it has nothing to write, or if this was asked before.
    pub(crate) fn planned(&mut self) -> Option<Update> {
        self.flush.as_mut()?.planned.take().map(|update| (*update).into())
    }

    /// How many flushes the database had confirmed and later no longer had.
    pub(crate) fn forgotten_flushes(&self) -> u64 {
        self.forgotten_flushes
    }

    /// The commit of an update is on its way. The update comes after a read.
    pub(crate) fn commit_sent(&mut self) {
        self.advance(Stage::Sent);
    }

    /// The commit of an update has been answered.
    pub(crate) fn commit_answered(&mut self, outcome: Outcome) {
        self.advance(Stage::Answered(outcome));
    }

    fn advance(&mut self, stage: Stage) {
        if let Some(open) = &mut self.flush {
            open.stage = stage;
            self.revision += 1;
            if let (Stage::Answered(Outcome::Committed), Some(number)) = (stage, open.flush.number()) {
                self.last_flush = number;
            }
        }
    }

    /// The component has ended its flush, or has ended itself.
    pub(crate) fn flush_ends(&mut self) -> FlushEnd {
        let Some(OpenFlush { flush, stage, new_period, .. }) = self.flush.take() else { return FlushEnd::NotBegun };
        let end = match (stage, flush.number()) {
            (Stage::Read { confirmed: Some(number) }, _) => FlushEnd::Confirmed(number),
            (Stage::Answered(Outcome::Committed), Some(flush)) => FlushEnd::Committed { flush, new_period },
            (Stage::Sent | Stage::Answered(Outcome::Unknown), _) => FlushEnd::Unknown,
            _ => FlushEnd::RolledBack,
        };
        self.tracker.end_flush(flush, stage.outcome());
        end
    }

    /// Changes whenever the account does.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// All that is not in the database for certain, if the process died now.
    pub(crate) fn account(&mut self) -> LedgerState {
        let unflushed = match &mut self.flush {
            Some(OpenFlush { flush, stage, .. }) => self.tracker.unflushed_after(flush, stage.outcome()),
            None => self.tracker.unflushed().clone(),
        };
        LedgerState { last_flush: self.last_flush, unflushed }
    }

    /// What a new instance starts from. No flush may be open.
    pub(crate) fn unflushed(&mut self) -> &Unflushed {
        debug_assert!(self.flush.is_none(), "an open flush carries a part of what is left over");
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

    /// Runs a flush on a database that has applied this flush last, up to the read.
    fn read(ledger: &mut Ledger, last_flush: u64) -> Option<Forgotten> {
        ledger.record(&[activity()]);
        assert!(ledger.flush_begins());
        ledger.stored_read(&StoredUsage { last_flush, uniques: None })
    }

    #[test]
    fn flushes_that_the_database_forgot_are_reported_and_added_up() {
        let mut ledger = ledger(5);
        assert_eq!(read(&mut ledger, 3), Some(Forgotten { confirmed: 5, stored: 3 }));
        ledger.commit_sent();
        ledger.commit_answered(Outcome::Committed);
        assert_eq!(ledger.flush_ends(), FlushEnd::Committed { flush: 4, new_period: true });
        assert_eq!(ledger.forgotten_flushes(), 2);
        assert_eq!(read(&mut ledger, 1), Some(Forgotten { confirmed: 4, stored: 1 }));
        assert_eq!(ledger.forgotten_flushes(), 5);
    }

    #[test]
    fn a_database_with_all_flushes_or_later_ones_has_forgotten_none() {
        for last_flush in [5, 6] {
            let mut ledger = ledger(5);
            assert_eq!(read(&mut ledger, last_flush), None);
            assert_eq!(ledger.forgotten_flushes(), 0);
        }
    }

    #[test]
    fn the_revision_changes_at_every_step_and_not_without_one() {
        let mut ledger = ledger(0);
        let start = ledger.revision();
        ledger.record(&[]);
        let mut steps = vec![ledger.revision() - start];
        read(&mut ledger, 0);
        steps.push(ledger.revision() - start);
        ledger.commit_sent();
        steps.push(ledger.revision() - start);
        ledger.commit_answered(Outcome::Committed);
        steps.push(ledger.revision() - start);
        assert_eq!(steps, [0, 2, 3, 4]);
    }

    #[test]
    fn recorded_activity_is_there_to_flush() {
        let mut ledger = ledger(0);
        assert!(!ledger.has_to_flush() && !ledger.flush_begins());
        ledger.record(&[activity()]);
        assert!(ledger.has_to_flush() && ledger.flush_begins());
    }
}
