//! The cues: activities that make the component misbehave once.

crate::enumeration! {
    /// An action that the component takes once, in `track`, its next flush, or the next flush that writes.
    ///
    /// The cue is an activity of a certain workspace. The component records it like any other activity, because a host
    /// must also count what a component accepted before it crashed.
    pub enum Cue {
        // In `track`.
        /// Traps.
        TrapInTrack,
        /// Computes without an end.
        LoopForever,
        /// Allocates memory until it traps.
        ExhaustMemory,
        /// Overflows its stack.
        OverflowStack,
        /// Begins a transaction outside a flush.
        BeginOutsideFlush,

        // At the beginning of the next flush.
        /// Keeps a transaction open and continues with the flush.
        KeepTransactionOpen,
        /// Keeps a transaction open and returns an error.
        KeepTransactionOpenAndFail,
        /// Traps while a transaction is open.
        TrapInTransaction,
        /// Begins and drops transactions without an end.
        BeginForever,
        /// Holds both locks and waits for nothing.
        HoldLocksForever,
        /// Reads without an end.
        ReadForever,
        /// Reads with the handle of a transaction that has ended.
        UseEndedTransaction,
        /// Begins a transaction of another replica.
        BeginForOtherReplica,
        /// Begins a second transaction while the first one is open.
        BeginTwice,
        /// Acquires the cutover lock in exclusive mode.
        AcquireExclusiveCutover,
        /// Reads without the replica's lock.
        ReadWithoutLock,
        /// Upserts without a lock.
        UpsertWithoutLocks,
        /// Upserts without a read.
        UpsertWithoutRead,
        /// Commits a transaction without an upsert.
        CommitWithoutUpsert,
        /// Writes an update without activity and traps after its commit.
        CommitEmptyUpdateAndTrap,
        /// Writes an update without activity and begins another transaction after its commit.
        CommitEmptyUpdateAndBegin,
        /// Writes `unchanged` for a replica that has no row.
        UpsertUnchangedWithoutRow,
        /// Writes `cumulative` for a replica that has no row.
        UpsertCumulativeWithoutRow,
        /// Writes more allowed requests than a row can hold.
        UpsertTooManyRequests,
        /// Writes a damaged sketch.
        UpsertDamagedSketch,

        // In the next flush that writes.
        /// Writes the number of the last applied flush.
        RepeatFlushNumber,
        /// Writes the largest number that a flush can have.
        SkipToLastFlushNumber,
        /// Writes `delta` for a replica that has a row.
        UpsertDeltaForExistingRow,
        /// Writes one more allowed request than it recorded.
        AddAllowedRequest,
        /// Writes one denied request less than it recorded.
        OmitDeniedRequest,
        /// Writes no users.
        OmitUsers,
        /// Writes the users as workspaces.
        WriteUsersAsWorkspaces,
        /// Upserts a second time in the same transaction.
        UpsertTwice,
        /// Traps after its commit.
        TrapAfterCommit,
        /// Returns an error after its commit.
        FailAfterCommit,
        /// Commits the same transaction again.
        CommitTwice,
        /// Begins another transaction after its commit.
        BeginAfterCommit,
        /// Returns that there was nothing to flush.
        ReturnIdle,
        /// Returns a false flush number.
        ReturnOtherFlushNumber,
    }
}

/// The first half of a cue's workspace: "misbehav".
const MARK: u64 = 0x6d69_7362_6568_6176;

impl Cue {
    /// Returns the workspace whose activity is this cue.
    pub fn workspace(self) -> u128 {
        u128::from(MARK) << 64 | self as u128
    }

    /// Returns the cue that an activity of this workspace is.
    #[cfg(target_family = "wasm")]
    pub(crate) fn of(workspace: u128) -> Option<Self> {
        let (mark, index) = ((workspace >> 64) as u64, workspace as u64);
        if mark == MARK { Self::at(index) } else { None }
    }
}
