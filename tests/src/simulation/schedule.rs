//! The random decisions of a run: its faults, when they strike, and all durations.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Cue;

/// A fault that a run can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No transaction can begin.
    BeginFails,
    /// A lock times out.
    LockTimesOut,
    /// The row cannot be read.
    ReadFails,
    /// The row cannot be written.
    UpsertFails,
    /// The rows of a collection end with an error.
    RowsBreakOff,
    /// The period's summary cannot be written.
    PeriodFails,
    /// The commit fails, and nothing is applied.
    CommitFails,
    /// The commit does not reach the server, and the client gets no reply.
    CommitLost,
    /// The commit is applied, and its reply is lost.
    ReplyLost,
    /// The reply is lost, and the server applies or rolls back the commit later.
    ///
    /// The server holds the locks until then.
    LateCommit,
    /// The connection ends during a transaction, and the server notices later.
    ConnectionDropped,
    /// A reply takes longer than the time limit of a flush.
    SlowReply,
    /// No transaction can begin for a long time.
    Outage,
    /// A replica shuts down and starts again.
    Restart,
    /// A replica is killed, and loses its memory.
    Kill,
    /// A replica's last handle is dropped without a shutdown.
    HandleDropped,
    /// The component traps in `track`.
    TrapInTrack,
    /// The component allocates more memory than its limit.
    MemoryBomb,
    /// The component's stack overflows.
    StackOverflow,
    /// The component traps during a transaction.
    TrapInFlush,
    /// The component traps after the reply to its commit.
    TrapAfterCommit,
    /// The component's flush does not end.
    FlushWithoutEnd,
    /// The component writes with the number of an earlier flush.
    OldNumber,
    /// The database's clock is set forward or back.
    ClockJump,
    /// All timers are late simultaneously, as after a suspension of the machine.
    TimeLeap,
    /// A collector is killed during its collection.
    CollectorKilled,
    /// The server crashes and loses its last commits.
    ///
    /// This is like a failover to a standby that was behind.
    CommitsForgotten,
    /// The database's clock is set forward by a year, and back later.
    ClockAheadAYear,
    /// A replica shuts down while a transaction holds the cutover lock.
    ShutdownWhileLocked,
    /// Another database replaces the file for a while, so every transaction is refused.
    FileReplaced,
    /// The intake is full.
    ///
    /// The schedule does not draw this fault, because small intakes cause it.
    IntakeFull,
}

impl Fault {
    /// All faults, in the order of their declaration.
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

    /// The faults of the component and their cues.
    pub(super) const OF_THE_COMPONENT: [(Self, Cue); 7] = [
        (Self::TrapInTrack, Cue::TrapInTrack),
        (Self::MemoryBomb, Cue::ExhaustMemory),
        (Self::StackOverflow, Cue::OverflowStack),
        (Self::TrapInFlush, Cue::TrapInTransaction),
        (Self::FlushWithoutEnd, Cue::BeginForever),
        (Self::OldNumber, Cue::RepeatFlushNumber),
        (Self::TrapAfterCommit, Cue::TrapAfterCommit),
    ];

    /// Returns the highest probability of this fault, for each point where it can strike.
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
    /// Selects about half of the faults, each with its own probability.
    ///
    /// A run with all faults would hide the effects of some behind those of others.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let is_calm = random.random_bool(0.05);
        let odds = Fault::ALL.map(|fault| match !is_calm && random.random_bool(0.5) {
            true => fault.odds() * random.random_range(0.1..1.0),
            false => 0.0,
        });
        Self { random, odds, fired: [0; Fault::ALL.len()] }
    }

    /// Returns whether a fault strikes now.
    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.random.random_bool(self.odds[fault as usize]);
        if strikes {
            self.struck(fault);
        }
        strikes
    }

    /// Records a strike that was not drawn.
    pub(super) fn struck(&mut self, fault: Fault) {
        self.fired[fault as usize] += 1;
    }

    /// Returns whether the fault is selected for this run.
    pub(super) fn knows(&self, fault: Fault) -> bool {
        self.odds[fault as usize] > 0.0
    }

    pub(super) fn fired(&self) -> [u64; Fault::ALL.len()] {
        self.fired
    }

    /// Stops all faults.
    pub(super) fn heal(&mut self) {
        self.odds = [0.0; Fault::ALL.len()];
    }

    /// Returns a random number less than the bound.
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

    /// Returns the duration of a reply of the database. Zero lets the other tasks run first.
    pub(super) fn reply_time(&mut self) -> Duration {
        match self.below(10) {
            0..5 => Duration::ZERO,
            5..9 => self.milliseconds(20),
            _ => self.milliseconds(1_000),
        }
    }

    /// Returns the time until the next action of the world.
    pub(super) fn next_action(&mut self) -> Duration {
        match self.below(20) {
            0..8 => Duration::ZERO,
            8..16 => self.milliseconds(50),
            16..19 => self.milliseconds(2_000),
            _ => self.milliseconds(90_000),
        }
    }
}
