//! What the component must not lose: the host's own account of the activity that is not in the database for certain.
//!
//! A component that breaks takes its memory with it. So the host keeps the same account beside it, by the same rules:
//! this is the tracker of the `guest` crate, run natively, told what the component is told and what the database answers.
//! A new instance starts from it. In memory it is as large as the component's: two sketches, and a snapshot or two.

use boundary_usage_tracker::{Activity, Flush, HashingKey, LeftOver, Outcome, Tracker};

pub(crate) struct Ledger {
    tracker: Tracker,
    flush: Option<OpenFlush>,
    /// The number of the last flush known to be applied.
    last_flush: u64,
    /// Changes whenever the account does.
    revision: u64,
}

/// The account at one moment: what a checkpoint keeps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) last_flush: u64,
    pub(crate) left_over: LeftOver,
}

/// The flush that the component is at.
struct OpenFlush {
    flush: Flush,
    stage: Stage,
}

/// ```text
/// Begun ──▶ Read ──▶ Sent ──▶ Answered
/// ```
#[derive(Clone, Copy)]
enum Stage {
    /// To end the flush now rolls it back.
    Begun,
    /// The same, unless all it had to do was to find an earlier one applied.
    Read {
        confirmed: bool,
    },
    /// The commit is on its way: to end the flush now leaves its outcome unknown.
    Sent,
    Answered(Outcome),
}

impl Stage {
    /// What becomes of a flush that ends at this stage.
    fn outcome(self) -> Outcome {
        match self {
            Self::Read { confirmed: true } => Outcome::Committed,
            Self::Begun | Self::Read { confirmed: false } => Outcome::RolledBack,
            Self::Sent => Outcome::Unknown,
            Self::Answered(outcome) => outcome,
        }
    }
}

impl Ledger {
    pub(crate) fn new(key: HashingKey, account: Account) -> Self {
        let Account { last_flush, left_over } = account;
        Self { tracker: Tracker::new(key, left_over), flush: None, last_flush, revision: 0 }
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

    /// The component has taken its snapshot and begins a transaction. Answers whether it may: a flush commits once, and
    /// there must be something to flush.
    pub(crate) fn flush_begins(&mut self) -> bool {
        if let Some(open) = &self.flush {
            return matches!(open.stage, Stage::Begun | Stage::Read { .. });
        }
        let flush = self.tracker.start_flush().expect("an open flush is in self.flush");
        self.flush = flush.map(|flush| OpenFlush { flush, stage: Stage::Begun });
        self.flush.is_some()
    }

    /// The component has read, under the replica's lock, which flush was applied last.
    pub(crate) fn last_flush_read(&mut self, last_flush: u64) {
        if let Some(OpenFlush { flush, stage: stage @ Stage::Begun }) = &mut self.flush {
            *stage = Stage::Read { confirmed: flush.last_flush_read(last_flush).is_some() };
            self.last_flush = last_flush;
            self.revision += 1;
        }
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
    pub(crate) fn flush_ends(&mut self) {
        let Some(OpenFlush { flush, stage }) = self.flush.take() else { return };
        self.tracker.end_flush(flush, stage.outcome());
    }

    /// Changes whenever the account does.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// All that is not in the database for certain, if the process died now.
    pub(crate) fn account(&mut self) -> Account {
        let left_over = match &mut self.flush {
            Some(OpenFlush { flush, stage }) => self.tracker.left_over_after(flush, stage.outcome()),
            None => self.tracker.left_over().clone(),
        };
        Account { last_flush: self.last_flush, left_over }
    }

    /// What a new instance starts from. No flush may be open.
    pub(crate) fn left_over(&mut self) -> &LeftOver {
        debug_assert!(self.flush.is_none(), "an open flush carries a part of what is left over");
        self.tracker.left_over()
    }
}
