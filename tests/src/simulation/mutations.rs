//! The list of broken protections. The simulation must notice every one of them: that is its own test.
//!
//! Those of the component are in `guest/src/mutations.rs`, built into the component that misbehaves only, and told by the
//! hashing key; those of the database are in `database.rs` and `session.rs` beside this file.

use boundary_usage::HashingKey;

/// "mutation": the first half of a hashing key that tells the component which protection to break.
const SIGN: u64 = 0x6d75_7461_7469_6f6e;

/// A protection that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The successor of a component that broke starts from nothing.
    LedgerNotHandedOver,
    /// What is tracked while a flush runs is dropped.
    TrackBesideFlushDropped,
    /// Activity without requests does not count its ids.
    EmptyActivityDropped,
    /// A failed flush is not put back.
    NoPutBack,
    /// A flush in doubt is always sent again.
    DoubtSentAgain,
    /// A flush in doubt is always dropped.
    DoubtDropped,
    /// The period's ids are replaced by those of the last flush.
    CumulativeIsDelta,
    /// Ids of earlier periods go out again.
    UniquesLeak,
    /// Ids that are new in the period are taken for known ones.
    NewIdsTakenForKnown,
    /// The component's memory grows with every flush.
    MemoryGrows,
    /// A flush does not take the cutover lock.
    FlushNotLocked,
    /// A flush does not take the replica's lock: it does not wait for a commit that is still running.
    LateCommitNotAwaited,
    /// A collection sums the rows as they were before it had the lock, and deletes them as they are.
    RowsReadBeforeTheLock,
    /// A collection deletes rows that it did not sum.
    DeletesMoreThanItSums,
    /// Rows are deleted for good before the collection commits.
    DeletedOutsideTheTransaction,
    /// The summary is written for good before the collection commits.
    SummaryOutsideTheTransaction,
    /// A commit whose reply was lost is answered as one that failed.
    LostReplyCalledFailure,
    /// A commit that failed is answered as one that succeeded.
    FailureCalledSuccess,
    /// What was not committed is applied when the connection ends.
    RollbackApplies,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::LedgerNotHandedOver,
        Self::TrackBesideFlushDropped,
        Self::EmptyActivityDropped,
        Self::NoPutBack,
        Self::DoubtSentAgain,
        Self::DoubtDropped,
        Self::CumulativeIsDelta,
        Self::UniquesLeak,
        Self::NewIdsTakenForKnown,
        Self::MemoryGrows,
        Self::FlushNotLocked,
        Self::LateCommitNotAwaited,
        Self::RowsReadBeforeTheLock,
        Self::DeletesMoreThanItSums,
        Self::DeletedOutsideTheTransaction,
        Self::SummaryOutsideTheTransaction,
        Self::LostReplyCalledFailure,
        Self::FailureCalledSuccess,
        Self::RollbackApplies,
    ];

    /// The mutation of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name)
    }

    /// Its number in the component, if it is broken there.
    fn in_the_component(self) -> Option<u64> {
        Some(match self {
            Self::LedgerNotHandedOver => 1,
            Self::TrackBesideFlushDropped => 2,
            Self::EmptyActivityDropped => 3,
            Self::NoPutBack => 4,
            Self::DoubtSentAgain => 5,
            Self::DoubtDropped => 6,
            Self::CumulativeIsDelta => 7,
            Self::UniquesLeak => 8,
            Self::MemoryGrows => 9,
            Self::NewIdsTakenForKnown => 10,
            _ => return None,
        })
    }

    /// The database's key: with a mutation of the component, its cue.
    pub(super) fn hashing_key(mutation: Option<Self>) -> HashingKey {
        match mutation.and_then(Self::in_the_component) {
            Some(number) => HashingKey(SIGN, number),
            None => HashingKey(17, 4),
        }
    }
}
