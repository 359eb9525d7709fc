//! The export of the tracker as a component.
//!
//! The guest is built for two worlds, which differ in how a call waits. The modules `concurrent` and `blocking` contain
//! that difference. This module is the same for both worlds.
//!
//! No borrow of the tracker lives across an await, because the host may call `track` on this instance while `flush`
//! waits for the database (R3).

#[cfg(feature = "tracker-blocking")]
mod blocking;
#[cfg(not(feature = "tracker-blocking"))]
mod concurrent;
mod hooks;
mod runtime;

use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::{
    Activity, CompactThetaSketch, Flush, HashingKey, InDoubt, Plan, SketchError, Snapshot, StoredUniques, StoredUsage,
    Tracker, Unflushed, Uniques, UniquesUpdate, Update,
};

#[cfg(feature = "tracker-blocking")]
use blocking as world;
#[cfg(not(feature = "tracker-blocking"))]
use concurrent as world;

pub use hooks::Hooks;
pub use runtime::OneThread;
pub use world::{Transaction, acquire, bindings, hashing_key, types};

use types::{Lock, Mode};

/// The type that implements the exports of the released component.
pub struct Component;

impl Hooks for Component {}

static TRACKER: OneThread<RefCell<Option<Tracker>>> = OneThread(RefCell::new(None));

/// Calls `act` with the instance's tracker. The first call creates the tracker, because the tracker's initial state
/// comes from the host.
fn with_tracker<H: Hooks, T>(act: impl FnOnce(&mut Tracker) -> T) -> T {
    act(TRACKER.0.borrow_mut().get_or_insert_with(|| {
        let (first, second) = hashing_key();
        Tracker::new(HashingKey(first, second), H::restore())
    }))
}

/// Implements the export `track`.
pub fn track<H: Hooks>(activities: Vec<types::Activity>) {
    with_tracker::<H, _>(|tracker| activities.into_iter().for_each(|activity| tracker.record(activity.into())));
}

/// Implements the export `flush`.
///
/// # Errors
///
/// Returns the errors of the transaction, and a `conflict` while another flush runs.
pub async fn flush<H: Hooks>(replica: types::Uuid) -> Result<types::Flushed, types::Error> {
    let started = with_tracker::<H, _>(Tracker::start_flush);
    let Some(mut flush) = started.map_err(|error| types::Error::Conflict(error.to_string()))? else {
        return Ok(types::Flushed::Idle);
    };
    let result = write::<H>(&mut flush, replica).await;
    with_tracker::<H, _>(|tracker| tracker.end_flush(flush, H::outcome(&result)));
    result
}

/// The start of an error message.
///
/// The text is a plain string, because code for formatting would add about 3 % to the component's size.
const STORED_SKETCH_IS_DAMAGED: &str = "the stored sketch of this replica is damaged: ";

/// Runs one transaction: both locks, the read, the upsert, the commit (R4).
///
/// An early return drops the transaction, which rolls it back.
async fn write<H: Hooks>(flush: &mut Flush, replica: types::Uuid) -> Result<types::Flushed, types::Error> {
    // Compaction needs no transaction, so it comes first and keeps the transaction short.
    flush.compact();
    let transaction = H::begin(replica).await?;
    acquire(&transaction, Lock::Cutover, Mode::Shared).await?;
    acquire(&transaction, Lock::Replica, Mode::Exclusive).await?;
    let stored = H::read(&transaction).await?;
    let stored = StoredUsage { last_flush: stored.last_flush, uniques: stored.uniques.map(Into::into) };
    let plan = flush
        .plan(&stored)
        .map_err(|error| types::Error::Refused(STORED_SKETCH_IS_DAMAGED.to_string() + &error.to_string()));
    match plan? {
        Plan::Confirmed(number) => Ok(types::Flushed::Confirmed(number)),
        Plan::Write(update) => {
            let flush = update.flush;
            let new_period = H::upsert(&transaction, *update).await?;
            H::commit(transaction).await?;
            Ok(types::Flushed::Written(types::Written { flush, new_period }))
        }
    }
}

impl From<types::Activity> for Activity {
    fn from(activity: types::Activity) -> Self {
        Self {
            workspace: activity.workspace.into(),
            owner: activity.owner.into(),
            allowed: activity.allowed,
            denied: activity.denied,
        }
    }
}

impl From<types::Uuid> for u128 {
    fn from(uuid: types::Uuid) -> Self {
        u128::from(uuid.high) << 64 | u128::from(uuid.low)
    }
}

impl From<types::Uniques> for StoredUniques {
    fn from(uniques: types::Uniques) -> Self {
        Self { workspaces: uniques.workspaces.bytes, users: uniques.users.bytes }
    }
}

impl TryFrom<types::Uniques> for Uniques {
    type Error = SketchError;

    fn try_from(uniques: types::Uniques) -> Result<Self, SketchError> {
        StoredUniques::from(uniques).read()
    }
}

impl TryFrom<types::Snapshot> for Snapshot {
    type Error = SketchError;

    fn try_from(snapshot: types::Snapshot) -> Result<Self, SketchError> {
        Ok(Self { uniques: snapshot.uniques.try_into()?, allowed: snapshot.allowed, denied: snapshot.denied })
    }
}

impl TryFrom<types::InDoubt> for InDoubt {
    type Error = SketchError;

    fn try_from(in_doubt: types::InDoubt) -> Result<Self, SketchError> {
        Ok(Self { flush: in_doubt.flush, snapshot: in_doubt.snapshot.try_into()? })
    }
}

impl TryFrom<types::Unflushed> for Unflushed {
    type Error = SketchError;

    fn try_from(unflushed: types::Unflushed) -> Result<Self, SketchError> {
        Ok(Self {
            delta: unflushed.delta.map(TryInto::try_into).transpose()?,
            in_doubt: unflushed.in_doubt.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&CompactThetaSketch> for types::Sketch {
    fn from(sketch: &CompactThetaSketch) -> Self {
        Self { count: sketch.count(), bytes: sketch.to_bytes() }
    }
}

impl From<&Uniques> for types::Uniques {
    fn from(uniques: &Uniques) -> Self {
        Self { workspaces: (&uniques.workspaces).into(), users: (&uniques.users).into() }
    }
}

impl From<UniquesUpdate> for types::UniquesUpdate {
    fn from(uniques: UniquesUpdate) -> Self {
        match uniques {
            UniquesUpdate::Delta(uniques) => Self::Delta((&uniques).into()),
            UniquesUpdate::Cumulative(uniques) => Self::Cumulative((&uniques).into()),
            UniquesUpdate::Unchanged => Self::Unchanged,
        }
    }
}

impl From<Update> for types::Update {
    fn from(update: Update) -> Self {
        Self { flush: update.flush, uniques: update.uniques.into(), allowed: update.allowed, denied: update.denied }
    }
}
