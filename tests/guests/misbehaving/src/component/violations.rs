//! The actions of the component on cue that are not a step of an ordinary flush.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::hint::black_box;

use boundary_usage_tracker::CompactThetaSketch;
use boundary_usage_tracker::component::types::{Error, Lock, Mode, Sketch, Uniques, UniquesUpdate, Update, Uuid};
use boundary_usage_tracker::component::{OneThread, Transaction, acquire};

use super::{CUE, is_cued};
use crate::Cue;

/// Acts on a cue for `track`.
pub(super) fn in_track() {
    assert!(!is_cued(Cue::TrapInTrack), "on cue");
    if is_cued(Cue::LoopForever) {
        loop {
            black_box(());
        }
    }
    if is_cued(Cue::ExhaustMemory) {
        let mut hoard = Vec::new();
        loop {
            hoard.push(black_box(vec![1_u8; 1 << 16]));
        }
    }
    if is_cued(Cue::OverflowStack) {
        black_box(overflow(1));
    }
    if is_cued(Cue::BeginOutsideFlush) {
        begin_outside_flush();
    }
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    black_box(overflow(black_box(depth) + 1)) + 1
}

/// The buffer for the result of a `begin` that the component does not await.
static BEGIN_RESULT: OneThread<UnsafeCell<[u64; 4]>> = OneThread(UnsafeCell::new([0; 4]));

/// Begins a transaction in `track`.
///
/// The bindings await the import, which a synchronous export cannot. The raw import returns immediately.
#[allow(unsafe_code)]
fn begin_outside_flush() {
    #[link(wasm_import_module = "boundary:usage/transactions@0.1.0")]
    unsafe extern "C" {
        #[link_name = "[async-lower][static]transaction.begin"]
        fn begin(high: u64, low: u64, result: *mut u8) -> i32;
    }
    // SAFETY: The flat parameters are the halves of a UUID and a static buffer of the result's size.
    unsafe { begin(0, 0xaa, BEGIN_RESULT.0.get().cast()) };
}

/// Acts on a cue for the beginning of a flush.
pub(super) async fn before_begin(replica: Uuid) -> Result<(), Error> {
    let Some(cue) = CUE.0.take() else { return Ok(()) };
    match cue {
        Cue::KeepTransactionOpen => {
            core::mem::forget(locked(replica).await?);
            Ok(())
        }
        Cue::KeepTransactionOpenAndFail => {
            core::mem::forget(locked(replica).await?);
            Err(Error::Unavailable("on cue".into()))
        }
        Cue::TrapInTransaction => {
            let _transaction = Transaction::begin(replica).await?;
            panic!("on cue, in a transaction");
        }
        Cue::BeginForever => loop {
            Transaction::begin(replica).await?;
        },
        Cue::HoldLocksForever => {
            let _transaction = locked(replica).await?;
            core::future::pending().await
        }
        Cue::ReadForever => {
            let transaction = locked(replica).await?;
            loop {
                let _ = transaction.read().await;
            }
        }
        Cue::UseEndedTransaction => {
            let transaction = locked(replica).await?;
            let ended = forged(transaction.handle());
            drop(transaction);
            ended.read().await.map(drop)
        }
        Cue::BeginForOtherReplica => Transaction::begin(Uuid { high: 1, low: 1 }).await.map(drop),
        Cue::BeginTwice => {
            let _transaction = Transaction::begin(replica).await?;
            Transaction::begin(replica).await.map(drop)
        }
        Cue::AcquireExclusiveCutover => {
            let transaction = Transaction::begin(replica).await?;
            acquire(&transaction, Lock::Cutover, Mode::Exclusive).await
        }
        Cue::ReadWithoutLock => Transaction::begin(replica).await?.read().await.map(drop),
        Cue::UpsertWithoutLocks => Transaction::begin(replica).await?.upsert(empty_update()).await.map(drop),
        Cue::UpsertWithoutRead => locked(replica).await?.upsert(empty_update()).await.map(drop),
        Cue::CommitWithoutUpsert => Transaction::commit(locked(replica).await?).await,
        Cue::CommitEmptyUpdateAndTrap => {
            commit_empty_update(replica).await?;
            panic!("on cue, after the commit");
        }
        Cue::CommitEmptyUpdateAndBegin => {
            commit_empty_update(replica).await?;
            Transaction::begin(replica).await.map(drop)
        }
        Cue::UpsertUnchangedWithoutRow => upsert(replica, with_uniques(UniquesUpdate::Unchanged)).await,
        Cue::UpsertCumulativeWithoutRow => upsert(replica, with_uniques(UniquesUpdate::Cumulative(no_uniques()))).await,
        Cue::UpsertTooManyRequests => upsert(replica, Update { allowed: u64::MAX, ..empty_update() }).await,
        Cue::UpsertDamagedSketch => {
            let mut damaged = no_uniques();
            damaged.users.bytes = vec![7; 64];
            upsert(replica, with_uniques(UniquesUpdate::Delta(damaged))).await
        }
        for_a_later_step => {
            CUE.0.set(Some(for_a_later_step));
            Ok(())
        }
    }
}

/// Returns a transaction with this handle, which the types of the bindings rule out.
#[allow(unsafe_code)]
pub(super) fn forged(handle: u32) -> Transaction {
    // SAFETY: The host's runtime checks handles. Its reaction to a false one is the subject of the test.
    unsafe { Transaction::from_handle(handle) }
}

async fn locked(replica: Uuid) -> Result<Transaction, Error> {
    let transaction = Transaction::begin(replica).await?;
    acquire(&transaction, Lock::Cutover, Mode::Shared).await?;
    acquire(&transaction, Lock::Replica, Mode::Exclusive).await?;
    Ok(transaction)
}

/// Upserts after all calls that must precede it.
async fn upsert(replica: Uuid, update: Update) -> Result<(), Error> {
    let transaction = locked(replica).await?;
    transaction.read().await?;
    transaction.upsert(update).await.map(drop)
}

async fn commit_empty_update(replica: Uuid) -> Result<(), Error> {
    let transaction = locked(replica).await?;
    transaction.read().await?;
    transaction.upsert(empty_update()).await?;
    Transaction::commit(transaction).await
}

/// Returns an update without activity, for a replica that has not flushed.
pub(super) fn empty_update() -> Update {
    with_uniques(UniquesUpdate::Delta(no_uniques()))
}

fn with_uniques(uniques: UniquesUpdate) -> Update {
    Update { flush: 1, uniques, allowed: 0, denied: 0 }
}

pub(super) fn no_uniques() -> Uniques {
    let empty = || Sketch { count: 0, bytes: CompactThetaSketch::empty().to_bytes() };
    Uniques { workspaces: empty(), users: empty() }
}
