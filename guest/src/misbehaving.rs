//! A component that breaks on cue, so that the tests of a host can see what the host does then.
//!
//! The cue is an activity whose workspace has [`CUE`] as its first half; the second half says what to do. The activity is
//! recorded all the same: what a broken component had accepted must be counted too.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::hint::black_box;

use crate::component::OneThread;
use crate::component::concurrent::types::{Error, Lock, Mode, UniqueSet, Uniques, UniquesUpdate, Update, Uuid};
use crate::component::concurrent::{Transaction, acquire};
use crate::{Activity, Stored, UniqueSketch};

/// "misbehav".
const CUE: u64 = 0x6d69_7362_6568_6176;

/// What to do at the next flush.
static AT_FLUSH: OneThread<Cell<u64>> = OneThread(Cell::new(0));
/// What to do at the next update, or after its commit.
static AT_WRITE: OneThread<Cell<u64>> = OneThread(Cell::new(0));

pub(crate) fn on_track(activity: &Activity) {
    if (activity.workspace >> 64) as u64 != CUE {
        return;
    }
    match activity.workspace as u64 {
        1 => panic!("on cue"),
        2 => loop {
            black_box(());
        },
        3 => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(black_box(vec![1_u8; 1 << 16]));
            }
        }
        4 => {
            black_box(overflow(1));
        }
        cue @ 30.. => AT_WRITE.0.set(cue),
        cue => AT_FLUSH.0.set(cue),
    }
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    black_box(overflow(black_box(depth) + 1)) + 1
}

/// Does what the cue says; a refusal of the host ends the flush.
pub(crate) async fn on_flush(replica: Uuid) -> Result<(), Error> {
    match AT_FLUSH.0.replace(0) {
        10 => {
            let _transaction = Transaction::begin(replica).await?;
            panic!("on cue, in a transaction");
        }
        11 => loop {
            Transaction::begin(replica).await?;
        },
        12 => {
            core::mem::forget(committed(replica).await?);
            panic!("on cue, after the commit");
        }
        13 => {
            let _transaction = locked(replica).await?;
            core::future::pending().await
        }
        14 => {
            let transaction = locked(replica).await?;
            loop {
                let _ = transaction.read().await;
            }
        }
        15 => {
            let transaction = locked(replica).await?;
            let ended = forged(&transaction);
            drop(transaction);
            ended.read().await.map(drop)
        }
        16 => Transaction::commit(committed(replica).await?).await,
        17 => {
            core::mem::forget(committed(replica).await?);
            Transaction::begin(replica).await.map(drop)
        }
        20 => Transaction::begin(Uuid { high: 1, low: 1 }).await.map(drop),
        21 => {
            let _transaction = Transaction::begin(replica).await?;
            Transaction::begin(replica).await.map(drop)
        }
        22 => {
            let transaction = Transaction::begin(replica).await?;
            acquire(&transaction, Lock::Cutover, Mode::Exclusive).await
        }
        23 => Transaction::begin(replica).await?.read().await.map(drop),
        24 => Transaction::begin(replica).await?.upsert(update()).await.map(drop),
        25 => locked(replica).await?.upsert(update()).await.map(drop),
        26 => {
            let transaction = locked(replica).await?;
            transaction.read().await?;
            transaction.upsert(update()).await?;
            transaction.upsert(update()).await.map(drop)
        }
        27 => Transaction::commit(locked(replica).await?).await,
        18 => upsert(replica, Update { uniques: UniquesUpdate::Unchanged, ..update() }).await,
        19 => upsert(replica, Update { uniques: UniquesUpdate::Cumulative(uniques()), ..update() }).await,
        28 => upsert(replica, Update { allowed: u64::MAX, ..update() }).await,
        29 => {
            let mut damaged = uniques();
            damaged.users.sketch = vec![7; 64];
            upsert(replica, Update { uniques: UniquesUpdate::Delta(damaged), ..update() }).await
        }
        _ => Ok(()),
    }
}

/// A second handle of the same transaction, which the types of the bindings rule out and the numbers behind them do not.
#[allow(unsafe_code)]
fn forged(transaction: &Transaction) -> Transaction {
    // SAFETY: handles are checked by the host's runtime; what it does with a false one is what the test is about.
    unsafe { Transaction::from_handle(transaction.handle()) }
}

/// Commits an update, and answers the handle as it was before.
async fn committed(replica: Uuid) -> Result<Transaction, Error> {
    let transaction = locked(replica).await?;
    transaction.read().await?;
    transaction.upsert(update()).await?;
    let ended = forged(&transaction);
    Transaction::commit(transaction).await?;
    Ok(ended)
}

/// 30: numbers the update as if an earlier flush were sent again. 32: has it begin a row where there is one.
pub(crate) fn on_update(mut update: Box<crate::Update>, stored: &Stored) -> Box<crate::Update> {
    match (AT_WRITE.0.get(), &stored.uniques) {
        (30, _) => update.flush = stored.last_flush,
        (32, Some(stored)) => update.uniques = crate::UniquesUpdate::Delta(crate::mutations::read(stored)),
        _ => return update,
    }
    AT_WRITE.0.set(0);
    update
}

/// Breaks when the commit has been answered and the caller has not.
pub(crate) fn on_committed() {
    if AT_WRITE.0.replace(0) == 31 {
        panic!("on cue, after the commit");
    }
}

async fn locked(replica: Uuid) -> Result<Transaction, Error> {
    let transaction = Transaction::begin(replica).await?;
    acquire(&transaction, Lock::Cutover, Mode::Shared).await?;
    acquire(&transaction, Lock::Replica, Mode::Exclusive).await?;
    Ok(transaction)
}

/// Upserts after all that has to come before it.
async fn upsert(replica: Uuid, update: Update) -> Result<(), Error> {
    let transaction = locked(replica).await?;
    transaction.read().await?;
    transaction.upsert(update).await.map(drop)
}

/// An update of nobody, for a replica that has not flushed.
fn update() -> Update {
    Update { flush: 1, uniques: UniquesUpdate::Delta(uniques()), allowed: 0, denied: 0 }
}

fn uniques() -> Uniques {
    let set = || UniqueSet { count: 0, sketch: UniqueSketch::empty().to_bytes() };
    Uniques { workspaces: set(), users: set() }
}
