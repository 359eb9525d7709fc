//! The tracker, which records activity, passes it to a flush, and keeps it if the flush fails.
//!
//! The tracker keeps nothing of a flush that succeeded. The tracker's memory is two sketches, plus one snapshot while a
//! flush runs or after a flush failed. The size of this memory depends neither on the number of ids nor on the length
//! of an outage (R6).

use crate::flush::{Flush, Outcome, Unflushed};
use crate::recording::{Activity, Recording};
use crate::sketch::HashingKey;
use crate::snapshot::Snapshot;

/// The error of a flush that starts while another one runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another flush of this replica is running")]
pub struct AlreadyFlushing;

/// The usage of one replica since its last flush.
pub struct Tracker {
    key: HashingKey,
    recording: Recording,
    /// Activity of flushes that failed (D2) or whose commit had no reply (D3).
    unflushed: Unflushed,
    flushing: bool,
}

impl Tracker {
    /// Creates a tracker with the unflushed activity of its predecessor.
    pub fn new(key: HashingKey, unflushed: Unflushed) -> Self {
        Self { key, recording: Recording::default(), unflushed, flushing: false }
    }

    /// Records an activity for the next flush.
    pub fn record(&mut self, activity: Activity) {
        self.recording.record(self.key, activity);
    }

    /// Takes all unflushed activity and resets the recording, in one step (R3).
    ///
    /// Returns `None` if there is nothing to flush and nothing in doubt (R2). The caller must end every flush with
    /// [`Tracker::end_flush`].
    ///
    /// # Errors
    ///
    /// Returns [`AlreadyFlushing`] while another flush runs, because that flush holds the snapshot.
    pub fn start_flush(&mut self) -> Result<Option<Flush>, AlreadyFlushing> {
        if self.flushing {
            return Err(AlreadyFlushing);
        }
        if !self.has_to_flush() {
            return Ok(None);
        }
        self.flushing = true;
        Ok(Some(Flush::new(self.recording.take(), core::mem::take(&mut self.unflushed))))
    }

    /// Returns whether there is anything to flush or anything in doubt.
    pub fn has_to_flush(&self) -> bool {
        !self.recording.is_empty() || self.unflushed.delta.is_some() || self.unflushed.in_doubt.is_some()
    }

    /// Ends a flush.
    ///
    /// Activity that may be missing in the database returns to the tracker for the next flush.
    pub fn end_flush(&mut self, mut flush: Flush, outcome: Outcome) {
        assert!(self.flushing, "a flush is ended once");
        self.flushing = false;
        // If `gather` ran during the flush, the gathered delta is newer than what the flush returns.
        let gathered = self.unflushed.delta.take();
        self.unflushed = flush.unflushed(outcome);
        self.unflushed.delta = Snapshot::merge_options(self.unflushed.delta.take(), gathered);
    }

    /// Returns all unflushed activity except what a running flush carries.
    pub fn unflushed(&mut self) -> &Unflushed {
        self.gather();
        &self.unflushed
    }

    /// Returns the unflushed activity as if the running flush ended with `outcome` now.
    ///
    /// The running flush continues.
    pub fn unflushed_after(&mut self, flush: &mut Flush, outcome: Outcome) -> Unflushed {
        self.gather();
        let mut unflushed = flush.unflushed(outcome);
        unflushed.delta = Snapshot::merge_options(unflushed.delta, self.unflushed.delta.clone());
        unflushed
    }

    /// Moves the recording into the delta of the next flush.
    fn gather(&mut self) {
        let recorded = self.recording.take().map(Recording::compact);
        self.unflushed.delta = Snapshot::merge_options(self.unflushed.delta.take(), recorded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flush::{Plan, StoredUniques, StoredUsage, UniquesUpdate, Update};
    use crate::snapshot::{REQUESTS_MAX, Uniques};

    const NEVER_FLUSHED: StoredUsage = StoredUsage { last_flush: 0, uniques: None };

    fn tracker() -> Tracker {
        Tracker::new(HashingKey(1, 2), Unflushed::default())
    }

    fn activity(id: u128, allowed: u64, denied: u64) -> Activity {
        Activity { workspace: id, owner: id, allowed, denied }
    }

    /// Runs a flush against a stored row, ends it with `outcome`, and returns its update.
    fn flush(tracker: &mut Tracker, stored: &StoredUsage, outcome: Outcome) -> Update {
        let mut flush = tracker.start_flush().unwrap().expect("there is something to flush");
        let Plan::Write(update) = flush.plan(stored).unwrap() else { panic!("nothing to write") };
        tracker.end_flush(flush, outcome);
        *update
    }

    /// Returns the uniques of the first update of a period.
    fn delta(update: &Update) -> &Uniques {
        let UniquesUpdate::Delta(delta) = &update.uniques else { panic!("{update:?}") };
        delta
    }

    fn stored(uniques: &Uniques) -> StoredUniques {
        StoredUniques { workspaces: uniques.workspaces.to_bytes(), users: uniques.users.to_bytes() }
    }

    #[test]
    fn r1_counts_of_zero_still_record_the_ids() {
        let mut tracker = tracker();
        tracker.record(activity(1, 0, 0));
        let update = flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed);
        assert_eq!((delta(&update).workspaces.count(), update.allowed), (1, 0));
    }

    #[test]
    fn requests_with_nil_ids_are_counted_and_the_ids_are_not() {
        let mut tracker = tracker();
        tracker.record(activity(0, 0, 0));
        assert!(!tracker.has_to_flush(), "there is nothing to flush");
        tracker.record(activity(0, 5, 2));
        let first = flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed);
        assert_eq!((delta(&first).workspaces.count(), delta(&first).users.count()), (0, 0));
        assert_eq!((first.allowed, first.denied), (5, 2));
        tracker.record(activity(0, 1, 0));
        let stored = StoredUsage { last_flush: 1, uniques: Some(stored(delta(&first))) };
        let second = flush(&mut tracker, &stored, Outcome::Committed);
        assert!(matches!(second.uniques, UniquesUpdate::Unchanged), "{second:?}");
        tracker.record(Activity { workspace: 7, owner: 0, allowed: 0, denied: 0 });
        let UniquesUpdate::Cumulative(sets) = flush(&mut tracker, &stored, Outcome::Committed).uniques else {
            panic!("a workspace is new")
        };
        assert_eq!((sets.workspaces.count(), sets.users.count()), (1, 0));
    }

    #[test]
    fn r2_nothing_to_flush_starts_no_flush() {
        let mut tracker = tracker();
        assert!(tracker.start_flush().unwrap().is_none());
        tracker.record(activity(1, 1, 1));
        flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed);
        assert!(tracker.start_flush().unwrap().is_none());
    }

    #[test]
    fn r3_activity_during_a_flush_belongs_to_the_next_one() {
        let mut tracker = tracker();
        tracker.record(activity(1, 10, 5));
        let mut first = tracker.start_flush().unwrap().unwrap();
        tracker.record(activity(2, 20, 10));
        let Plan::Write(update) = first.plan(&NEVER_FLUSHED).unwrap() else { panic!("nothing to write") };
        assert_eq!((delta(&update).users.count(), update.allowed, update.denied), (1, 10, 5));
        tracker.end_flush(first, Outcome::Committed);
        let second = flush(&mut tracker, &StoredUsage { last_flush: 1, uniques: None }, Outcome::Committed);
        assert_eq!((second.flush, delta(&second).users.count(), second.allowed, second.denied), (2, 1, 20, 10));
    }

    #[test]
    fn a_second_flush_during_the_first_is_refused() {
        let mut tracker = tracker();
        tracker.record(activity(1, 1, 0));
        let first = tracker.start_flush().unwrap().unwrap();
        tracker.record(activity(2, 1, 0));
        assert!(matches!(tracker.start_flush(), Err(AlreadyFlushing)));
        tracker.end_flush(first, Outcome::RolledBack);
        assert_eq!(flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed).allowed, 2);
    }

    #[test]
    fn r5_and_d1_the_cumulative_sketch_contains_the_whole_period() {
        let mut tracker = tracker();
        (1..=3).for_each(|id| tracker.record(activity(id, 1, 0)));
        let first = flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed);
        assert_eq!(delta(&first).workspaces.count(), 3);
        (3..=5).for_each(|id| tracker.record(activity(id, 1, 0)));
        let stored = StoredUsage { last_flush: 1, uniques: Some(stored(delta(&first))) };
        let second = flush(&mut tracker, &stored, Outcome::Committed);
        let UniquesUpdate::Cumulative(cumulative) = second.uniques else { panic!("{second:?}") };
        assert_eq!((cumulative.workspaces.count(), second.allowed), (5, 3));
    }

    #[test]
    fn r5_ids_already_in_the_period_leave_its_sketches_unchanged() {
        let mut tracker = tracker();
        (1..=3).for_each(|id| tracker.record(activity(id, 1, 0)));
        let first = flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed);
        let stored = StoredUsage { last_flush: 1, uniques: Some(stored(delta(&first))) };
        // The first flush carries a recording, the second a snapshot, and the third both.
        tracker.record(activity(1, 1, 0));
        let recorded = flush(&mut tracker, &stored, Outcome::RolledBack);
        let compacted = flush(&mut tracker, &stored, Outcome::RolledBack);
        tracker.record(activity(2, 2, 0));
        let both = flush(&mut tracker, &stored, Outcome::Committed);
        for (update, allowed) in [(recorded, 1), (compacted, 1), (both, 3)] {
            assert!(matches!(update.uniques, UniquesUpdate::Unchanged), "{update:?}");
            assert_eq!(update.allowed, allowed);
        }
        // The period has this workspace, but not this user.
        tracker.record(Activity { workspace: 1, owner: 9, allowed: 0, denied: 0 });
        let UniquesUpdate::Cumulative(cumulative) = flush(&mut tracker, &stored, Outcome::Committed).uniques else {
            panic!("a user is new")
        };
        assert_eq!((cumulative.workspaces.count(), cumulative.users.count()), (3, 4));
    }

    #[test]
    fn a_flush_has_a_number_after_it_has_read_the_database() {
        let mut tracker = tracker();
        tracker.record(activity(1, 1, 0));
        let mut flush = tracker.start_flush().unwrap().unwrap();
        assert_eq!(flush.number(), None);
        flush.plan(&StoredUsage { last_flush: 6, uniques: None }).unwrap();
        assert_eq!(flush.number(), Some(7));
    }

    #[test]
    fn d2_the_next_flush_carries_the_activity_of_a_failed_one() {
        let mut tracker = tracker();
        tracker.record(activity(1, 1, 2));
        for id in 2..=4 {
            flush(&mut tracker, &NEVER_FLUSHED, Outcome::RolledBack);
            tracker.record(activity(id, 1, 2));
        }
        let update = flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed);
        assert_eq!((delta(&update).workspaces.count(), update.allowed, update.denied), (4, 4, 8));
        assert!(tracker.start_flush().unwrap().is_none());
    }

    #[test]
    fn d3_a_commit_without_reply_that_was_applied_is_not_sent_again() {
        let mut tracker = tracker();
        tracker.record(activity(1, 1, 0));
        flush(&mut tracker, &NEVER_FLUSHED, Outcome::Unknown);
        let mut next = tracker.start_flush().unwrap().expect("the doubt must be resolved");
        assert!(matches!(next.plan(&StoredUsage { last_flush: 1, uniques: None }).unwrap(), Plan::Confirmed(1)));
        tracker.end_flush(next, Outcome::Committed);
        assert!(tracker.start_flush().unwrap().is_none());
    }

    #[test]
    fn d3_a_commit_without_reply_that_was_not_applied_is_sent_again() {
        let mut tracker = tracker();
        tracker.record(activity(1, 1, 0));
        flush(&mut tracker, &NEVER_FLUSHED, Outcome::Unknown);
        tracker.record(activity(2, 1, 0));
        let update = flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed);
        assert_eq!((update.flush, delta(&update).workspaces.count(), update.allowed), (1, 2, 2));
    }

    #[test]
    fn d3_a_flush_stays_in_doubt_until_the_database_is_read() {
        let mut tracker = tracker();
        tracker.record(activity(1, 1, 0));
        flush(&mut tracker, &NEVER_FLUSHED, Outcome::Unknown);
        tracker.record(activity(2, 1, 0));
        let unread = tracker.start_flush().unwrap().unwrap();
        tracker.end_flush(unread, Outcome::RolledBack);
        let update = flush(&mut tracker, &StoredUsage { last_flush: 1, uniques: None }, Outcome::Committed);
        assert_eq!((update.flush, update.allowed), (2, 1), "flush 1 was applied, so only the second activity remains");
    }

    #[test]
    fn d3_a_confirmed_flush_stays_confirmed_if_the_next_one_fails() {
        let mut tracker = tracker();
        tracker.record(activity(1, 1, 0));
        flush(&mut tracker, &NEVER_FLUSHED, Outcome::Unknown);
        tracker.record(activity(2, 1, 0));
        let applied = StoredUsage { last_flush: 1, uniques: None };
        assert_eq!(flush(&mut tracker, &applied, Outcome::RolledBack).allowed, 1);
        assert_eq!(flush(&mut tracker, &applied, Outcome::Committed).allowed, 1);
    }

    #[test]
    fn a_new_tracker_continues_with_unflushed_activity() {
        let mut broken = tracker();
        broken.record(activity(1, 1, 0));
        flush(&mut broken, &NEVER_FLUSHED, Outcome::Unknown);
        broken.record(activity(2, 2, 0));
        let mut tracker = Tracker::new(HashingKey(1, 2), broken.unflushed().clone());
        tracker.record(activity(3, 4, 0));
        let update = flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed);
        assert_eq!((delta(&update).workspaces.count(), update.allowed), (3, 7));
    }

    #[test]
    fn activity_gathered_during_a_flush_survives_its_end() {
        for (outcome, allowed) in [(Outcome::Committed, 2), (Outcome::RolledBack, 3)] {
            let mut tracker = tracker();
            tracker.record(activity(1, 1, 0));
            let running = tracker.start_flush().unwrap().unwrap();
            tracker.record(activity(2, 2, 0));
            assert_eq!(tracker.unflushed().delta.as_ref().unwrap().allowed, 2);
            tracker.end_flush(running, outcome);
            assert_eq!(flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed).allowed, allowed);
        }
    }

    #[test]
    fn unflushed_activity_can_be_read_during_a_flush() {
        let mut tracker = tracker();
        tracker.record(activity(1, 1, 0));
        let mut running = tracker.start_flush().unwrap().unwrap();
        tracker.record(activity(2, 2, 0));
        assert_eq!(tracker.unflushed_after(&mut running, Outcome::RolledBack).delta.unwrap().allowed, 3);
        running.plan(&NEVER_FLUSHED).unwrap();
        let unknown = tracker.unflushed_after(&mut running, Outcome::Unknown);
        let in_doubt = unknown.in_doubt.unwrap();
        assert_eq!((in_doubt.flush, in_doubt.snapshot.allowed, unknown.delta.unwrap().allowed), (1, 1, 2));
        tracker.end_flush(running, Outcome::Committed);
        assert_eq!(tracker.unflushed().delta.as_ref().unwrap().allowed, 2);
    }

    #[test]
    fn counts_saturate_at_the_largest_bigint() {
        let mut tracker = tracker();
        tracker.record(activity(1, u64::MAX, REQUESTS_MAX));
        tracker.record(activity(1, u64::MAX, 1));
        flush(&mut tracker, &NEVER_FLUSHED, Outcome::RolledBack);
        tracker.record(activity(1, 1, 1));
        let update = flush(&mut tracker, &NEVER_FLUSHED, Outcome::Committed);
        assert_eq!((update.allowed, update.denied), (REQUESTS_MAX, REQUESTS_MAX));
    }
}
