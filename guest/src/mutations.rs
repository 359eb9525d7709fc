//! Mutations, each of which disables one protection of the tracker. The simulation must notice every one.
//!
//! The hashing key selects the mutation, because every instance reads the key first. [`SIGN`] is its first half, and
//! the mutation's number is its second half. `tests/src/simulation/mutations.rs` lists the mutations.

use alloc::boxed::Box;
use alloc::vec;
use core::cell::{Cell, RefCell};

use crate::component::OneThread;
use crate::{Activity, Flush, Outcome, StoredUniques, StoredUsage, Unflushed, Uniques, UniquesUpdate, Update};

/// "mutation".
const SIGN: u64 = 0x6d75_7461_7469_6f6e;

static MUTATION: OneThread<Cell<u64>> = OneThread(Cell::new(0));
static FLUSHING: OneThread<Cell<bool>> = OneThread(Cell::new(false));
static LEAKED: OneThread<RefCell<Option<Uniques>>> = OneThread(RefCell::new(None));

fn is(mutation: u64) -> bool {
    MUTATION.0.get() == mutation
}

/// Mutation 1: the unflushed activity of an earlier instance is dropped.
pub(crate) fn on_restore((first, second): (u64, u64), unflushed: Unflushed) -> Unflushed {
    if first == SIGN {
        MUTATION.0.set(second);
    }
    if is(1) { Unflushed::default() } else { unflushed }
}

/// Returns whether the activity is dropped. Mutation 2: while a flush runs. Mutation 3: if it adds no requests.
pub(crate) fn on_track(activity: &Activity) -> bool {
    (is(2) && FLUSHING.0.get()) || (is(3) && activity.allowed == 0 && activity.denied == 0)
}

/// Mutation 9: memory grows by 1 MiB at every flush.
pub(crate) fn on_flush() {
    FLUSHING.0.set(true);
    if is(9) {
        core::mem::forget(core::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

/// Falsifies the outcome of a flush.
///
/// - Mutation 4: a failed flush is dropped.
/// - Mutation 5: a flush in doubt is sent again without a check.
/// - Mutation 6: a flush in doubt is dropped without a check.
pub(crate) fn on_flush_end(outcome: Outcome) -> Outcome {
    FLUSHING.0.set(false);
    match outcome {
        Outcome::RolledBack if is(4) => Outcome::Committed,
        Outcome::Unknown if is(5) => Outcome::RolledBack,
        Outcome::Unknown if is(6) => Outcome::Committed,
        outcome => outcome,
    }
}

/// Falsifies the ids of an update.
///
/// - Mutation 7: the ids of the flush replace those of the period.
/// - Mutation 8: ids of earlier periods are sent again.
/// - Mutation 10: new ids of the period are treated as known ones.
pub(crate) fn on_update(mut update: Box<Update>, stored: &StoredUsage, flush: &Flush) -> Box<Update> {
    let delta = &flush.delta().uniques;
    match &stored.uniques {
        Some(_) if is(7) => update.uniques = UniquesUpdate::Cumulative(delta.clone()),
        Some(_) if is(10) => update.uniques = UniquesUpdate::Unchanged,
        stored if is(8) => {
            let mut leaked = LEAKED.0.borrow_mut();
            let all = leaked.as_ref().map_or_else(|| delta.clone(), |leaked| leaked.union(delta));
            update.uniques = match stored {
                Some(stored) => UniquesUpdate::Cumulative(read(stored).union(&all)),
                None => UniquesUpdate::Delta(all.clone()),
            };
            *leaked = Some(all);
        }
        _ => {}
    }
    update
}

pub(crate) fn read(stored: &StoredUniques) -> Uniques {
    stored.read().expect("the tests' databases store valid sketches")
}
