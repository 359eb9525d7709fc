//! Protections of the tracker, each broken on purpose: so that the simulation can prove that it would notice.
//!
//! Which one is broken is told by the hashing key, because a component asks for it before all else and its successors
//! do too: [`SIGN`] as its first half, the mutation's number as its second. `tests/src/simulation/mutations.rs` lists
//! them.

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

/// 1: what an earlier instance left over is forgotten.
pub(crate) fn on_restore((first, second): (u64, u64), unflushed: Unflushed) -> Unflushed {
    if first == SIGN {
        MUTATION.0.set(second);
    }
    if is(1) { Unflushed::default() } else { unflushed }
}

/// Whether the activity is dropped. 2: while a flush runs. 3: when it adds no requests.
pub(crate) fn on_track(activity: &Activity) -> bool {
    (is(2) && FLUSHING.0.get()) || (is(3) && activity.allowed == 0 && activity.denied == 0)
}

/// 9: memory grows by a MiB at every flush.
pub(crate) fn on_flush() {
    FLUSHING.0.set(true);
    if is(9) {
        core::mem::forget(core::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

/// 4: a flush that failed is not put back. 5: a doubt is taken for a failure, and sent again. 6: a doubt is taken for a
/// success, and dropped.
pub(crate) fn on_flush_end(outcome: Outcome) -> Outcome {
    FLUSHING.0.set(false);
    match outcome {
        Outcome::RolledBack if is(4) => Outcome::Committed,
        Outcome::Unknown if is(5) => Outcome::RolledBack,
        Outcome::Unknown if is(6) => Outcome::Committed,
        outcome => outcome,
    }
}

/// 7: the period's ids are replaced by those of the flush. 8: ids of earlier periods go out again. 10: ids that are new
/// in the period are taken for known ones.
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
    stored.read().expect("the tests' databases keep what they were given")
}
