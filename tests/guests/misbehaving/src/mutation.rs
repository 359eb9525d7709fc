//! The mutations: protections that a test removes to prove that the other tests would notice.

crate::enumeration! {
    /// A protection that is removed.
    pub enum Mutation {
        // In the component.
        /// A component starts without the unflushed activity of its predecessor.
        LedgerNotHandedOver,
        /// Activity during a flush is dropped.
        TrackBesideFlushDropped,
        /// Activity without requests does not count its ids.
        EmptyActivityDropped,
        /// The activity of a failed flush is dropped.
        NoPutBack,
        /// A flush in doubt is always sent again.
        DoubtSentAgain,
        /// A flush in doubt is always dropped.
        DoubtDropped,
        /// The ids of a flush replace those of the period.
        CumulativeIsDelta,
        /// Ids of earlier periods are written again.
        UniquesLeak,
        /// The sets of an existing row never change.
        NewIdsTakenForKnown,
        /// Each flush leaks a MiB of memory.
        MemoryGrows,

        // In the simulated database.
        /// A flush does not acquire the cutover lock.
        FlushNotLocked,
        /// A flush does not acquire the replica's lock, so it does not wait for a commit that is still running.
        LateCommitNotAwaited,
        /// A collection sums the rows that existed before it acquired the lock, and deletes the current ones.
        RowsReadBeforeTheLock,
        /// A collection deletes a row that it does not sum.
        DeletesMoreThanItSums,
        /// A collection deletes the rows before its commit.
        DeletedOutsideTheTransaction,
        /// A collection writes the summary before its commit.
        SummaryOutsideTheTransaction,
        /// A collection writes the day before its commit.
        DayOutsideTheTransaction,
        /// A collection adds its period to the day as it was before the lock.
        DayReadBeforeTheLock,
        /// A collection does not write the day.
        DayNotWritten,
        /// A commit whose reply was lost returns a failure.
        LostReplyCalledFailure,
        /// A commit that failed returns a success.
        FailureCalledSuccess,
        /// A rollback applies the writes.
        RollbackApplies,
    }
}

/// The first half of the hashing key that selects a mutation: "mutation".
const MARK: u64 = 0x6d75_7461_7469_6f6e;

impl Mutation {
    /// Returns the halves of the hashing key that selects this mutation in the component.
    ///
    /// The key is what a component and all its successors have in common.
    pub fn hashing_key(self) -> (u64, u64) {
        (MARK, self as u64)
    }

    /// Returns the mutation that this hashing key selects.
    #[cfg(target_family = "wasm")]
    pub(crate) fn of((mark, index): (u64, u64)) -> Option<Self> {
        if mark == MARK { Self::at(index) } else { None }
    }
}
