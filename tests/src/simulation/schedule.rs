//! Everything random of a run: which faults it knows, when they strike, how long things take.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Cue;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No transaction can be opened.
    BeginFails,
    /// A lock is not granted in time.
    LockTimesOut,
    /// The row cannot be read.
    ReadFails,
    /// The row cannot be written.
    UpsertFails,
    /// The collection's rows break off half way.
    RowsBreakOff,
    /// The period's summary cannot be written.
    PeriodFails,
    /// The commit is answered with an error: nothing is applied.
    CommitFails,
    /// The commit is lost on its way, and nobody knows.
    CommitLost,
    /// The commit is applied, and its reply is lost.
    ReplyLost,
    /// The reply is lost, and the commit goes on, holding its locks: it is applied later, or rolled back.
    LateCommit,
    /// The connection is gone in the middle of a transaction; the server notices later.
    ConnectionDropped,
    /// A reply takes longer than a flush may.
    SlowReply,
    /// No transaction can be opened for a long time.
    Outage,
    /// A replica is shut down in order and started again.
    Restart,
    /// A replica is killed: what was only in its memory is lost.
    Kill,
    /// A replica's last handle is dropped without a shutdown.
    HandleDropped,
    /// The component breaks while it is told of activity.
    TrapInTrack,
    /// The component takes all the memory that it may have.
    MemoryBomb,
    /// The component's stack overflows.
    StackOverflow,
    /// The component breaks in a transaction.
    TrapInFlush,
    /// The component breaks after its commit was answered.
    TrapAfterCommit,
    /// The component's flush does not end.
    FlushWithoutEnd,
    /// The component writes under the number of an earlier flush.
    OldNumber,
    /// The database's clock is set, forward or back.
    ClockJump,
    /// All timers are late at once, as after a suspended machine.
    TimeLeap,
    /// A collector dies in the middle of its collection.
    CollectorKilled,
    /// The server crashes and has forgotten its last commits, as a standby that lagged behind.
    CommitsForgotten,
    /// The database's clock is set ahead by a year, and back after a while.
    ClockAheadAYear,
    /// A replica is shut down while the cutover lock is held.
    ShutdownWhileLocked,
    /// Another database's file stands in the place of ours for a while: every transaction is refused.
    FileReplaced,
    /// Activity comes faster than the component takes it. Not drawn: it comes of small intakes.
    IntakeFull,
}

impl Fault {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 31] = [
        Self::BeginFails,
        Self::LockTimesOut,
        Self::ReadFails,
        Self::UpsertFails,
        Self::RowsBreakOff,
        Self::PeriodFails,
        Self::CommitFails,
        Self::CommitLost,
        Self::ReplyLost,
        Self::LateCommit,
        Self::ConnectionDropped,
        Self::SlowReply,
        Self::Outage,
        Self::Restart,
        Self::Kill,
        Self::HandleDropped,
        Self::TrapInTrack,
        Self::MemoryBomb,
        Self::StackOverflow,
        Self::TrapInFlush,
        Self::TrapAfterCommit,
        Self::FlushWithoutEnd,
        Self::OldNumber,
        Self::ClockJump,
        Self::TimeLeap,
        Self::CollectorKilled,
        Self::CommitsForgotten,
        Self::ClockAheadAYear,
        Self::ShutdownWhileLocked,
        Self::FileReplaced,
        Self::IntakeFull,
    ];

    /// The faults of the component, each with its cue.
    pub(super) const OF_THE_COMPONENT: [(Self, Cue); 7] = [
        (Self::TrapInTrack, Cue::TrapInTrack),
        (Self::MemoryBomb, Cue::ExhaustMemory),
        (Self::StackOverflow, Cue::OverflowStack),
        (Self::TrapInFlush, Cue::TrapInTransaction),
        (Self::FlushWithoutEnd, Cue::BeginForever),
        (Self::OldNumber, Cue::RepeatFlushNumber),
        (Self::TrapAfterCommit, Cue::TrapAfterCommit),
    ];

    /// The highest odds of it in a run, at each occasion that it has.
    fn odds(self) -> f64 {
        match self {
            Self::CommitFails | Self::CommitLost | Self::ReplyLost | Self::LateCommit | Self::CollectorKilled => 0.3,
            Self::BeginFails | Self::UpsertFails | Self::RowsBreakOff | Self::PeriodFails => 0.2,
            Self::LockTimesOut | Self::ReadFails => 0.1,
            Self::ConnectionDropped | Self::TrapInTrack | Self::TrapInFlush | Self::TrapAfterCommit => 0.05,
            Self::OldNumber | Self::ClockJump | Self::Restart => 0.05,
            Self::SlowReply | Self::Kill | Self::HandleDropped | Self::TimeLeap | Self::Outage => 0.02,
            Self::CommitsForgotten | Self::ClockAheadAYear | Self::ShutdownWhileLocked | Self::FileReplaced => 0.02,
            Self::MemoryBomb | Self::StackOverflow | Self::FlushWithoutEnd => 0.01,
            Self::IntakeFull => 0.0,
        }
    }
}

/// The random numbers of a run.
pub(super) struct Schedule {
    random: StdRng,
    odds: [f64; Fault::ALL.len()],
    fired: [u64; Fault::ALL.len()],
}

impl Schedule {
    /// A run knows about half of the faults, each with odds of its own: all of them at once would hide one another.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let is_calm = random.random_bool(0.05);
        let odds = Fault::ALL.map(|fault| match !is_calm && random.random_bool(0.5) {
            true => fault.odds() * random.random_range(0.1..1.0),
            false => 0.0,
        });
        Self { random, odds, fired: [0; Fault::ALL.len()] }
    }

    /// Whether a fault strikes at this occasion.
    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.random.random_bool(self.odds[fault as usize]);
        if strikes {
            self.struck(fault);
        }
        strikes
    }

    /// A fault has struck by itself.
    pub(super) fn struck(&mut self, fault: Fault) {
        self.fired[fault as usize] += 1;
    }

    /// Whether a fault may still strike in this run.
    pub(super) fn knows(&self, fault: Fault) -> bool {
        self.odds[fault as usize] > 0.0
    }

    pub(super) fn fired(&self) -> [u64; Fault::ALL.len()] {
        self.fired
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.odds = [0.0; Fault::ALL.len()];
    }

    /// A number from 0 to below the bound.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    pub(super) fn chance(&mut self, odds: f64) -> bool {
        self.random.random_bool(odds)
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.random.random_range(0..choices.len())]
    }

    pub(super) fn milliseconds(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }

    /// How long the database takes for a reply; zero is "as soon as others have had their turn".
    pub(super) fn reply_time(&mut self) -> Duration {
        match self.below(10) {
            0..5 => Duration::ZERO,
            5..9 => self.milliseconds(20),
            _ => self.milliseconds(1_000),
        }
    }

    /// From one action of the world to the next.
    pub(super) fn next_action(&mut self) -> Duration {
        match self.below(20) {
            0..8 => Duration::ZERO,
            8..16 => self.milliseconds(50),
            16..19 => self.milliseconds(2_000),
            _ => self.milliseconds(90_000),
        }
    }
}
