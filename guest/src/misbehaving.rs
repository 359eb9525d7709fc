//! A component that misbehaves on cue, for tests of a host.
//!
//! The cue is an activity whose workspace has [`CUE`] as its first half. The second half is the number of the
//! misbehaviour. The activity is recorded nevertheless, because activity of a crashed component must count.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, UnsafeCell};
use core::hint::black_box;

use crate::component::OneThread;
use crate::component::concurrent::types::{
    self, Error, Flushed, Lock, Mode, Sketch, Uniques, UniquesUpdate, Update, Uuid,
};
use crate::component::concurrent::{Transaction, acquire};
use crate::{Activity, CompactThetaSketch, StoredUsage};

/// "misbehav".
const CUE: u64 = 0x6d69_7362_6568_6176;

/// The cue for the next flush.
static AT_FLUSH: OneThread<Cell<u64>> = OneThread(Cell::new(0));
/// The cue for the next update, for its commit, or for the end of the flush.
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
        5 => begin_without_a_flush(),
        cue @ (26 | 30..) => AT_WRITE.0.set(cue),
        cue => AT_FLUSH.0.set(cue),
    }
}

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    black_box(overflow(black_box(depth) + 1)) + 1
}

/// The memory into which the host writes the result of a `begin` that is not awaited.
static BEGIN_RESULT: OneThread<UnsafeCell<[u64; 4]>> = OneThread(UnsafeCell::new([0; 4]));

/// Begins a transaction during a call of `track`.
///
/// It calls the import directly, which returns as soon as the host has begun. The bindings would await the result, and
/// `track` is not async.
#[allow(unsafe_code)]
fn begin_without_a_flush() {
    #[link(wasm_import_module = "boundary:usage/transactions@0.1.0")]
    unsafe extern "C" {
        #[link_name = "[async-lower][static]transaction.begin"]
        fn begin(high: u64, low: u64, result: *mut u8) -> i32;
    }
    // SAFETY: The import's flat parameters are two halves of a UUID and the address of the result, which is static.
    unsafe { begin(0, 0xaa, BEGIN_RESULT.0.get().cast()) };
}

/// Follows the cue of a flush. If the host refuses a call, the flush ends.
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
        17 => {
            core::mem::forget(committed(replica).await?);
            Transaction::begin(replica).await.map(drop)
        }
        6 => {
            core::mem::forget(locked(replica).await?);
            Ok(())
        }
        7 => {
            core::mem::forget(locked(replica).await?);
            Err(Error::Unavailable("on cue".into()))
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
        27 => Transaction::commit(locked(replica).await?).await,
        18 => upsert(replica, Update { uniques: UniquesUpdate::Unchanged, ..update() }).await,
        19 => upsert(replica, Update { uniques: UniquesUpdate::Cumulative(uniques()), ..update() }).await,
        28 => upsert(replica, Update { allowed: u64::MAX, ..update() }).await,
        29 => {
            let mut damaged = uniques();
            damaged.users.bytes = vec![7; 64];
            upsert(replica, Update { uniques: UniquesUpdate::Delta(damaged), ..update() }).await
        }
        _ => Ok(()),
    }
}

/// Returns a second handle of the same transaction. The bindings' types prevent that, but handle numbers do not.
fn forged(transaction: &Transaction) -> Transaction {
    of_handle(transaction.handle())
}

#[allow(unsafe_code)]
fn of_handle(handle: u32) -> Transaction {
    // SAFETY: The host's runtime checks handles. The test examines its reaction to a false one.
    unsafe { Transaction::from_handle(handle) }
}

/// Commits a false update and returns a handle of the ended transaction.
async fn committed(replica: Uuid) -> Result<Transaction, Error> {
    let transaction = locked(replica).await?;
    transaction.read().await?;
    transaction.upsert(update()).await?;
    let ended = forged(&transaction);
    Transaction::commit(transaction).await?;
    Ok(ended)
}

/// Falsifies an update.
///
/// - 30: It has the number of an earlier flush.
/// - 32: It inserts a row although there is one.
/// - 33: It has one more allowed request.
/// - 34: It has one less denied request.
/// - 35: It has the largest possible number.
/// - 36: It has no users.
pub(crate) fn on_update(mut update: Box<crate::Update>, stored: &StoredUsage) -> Box<crate::Update> {
    match (AT_WRITE.0.get(), &stored.uniques, &mut update.uniques) {
        (30, ..) => update.flush = stored.last_flush,
        (32, Some(stored), _) => update.uniques = crate::UniquesUpdate::Delta(crate::mutations::read(stored)),
        (33, ..) => update.allowed += 1,
        (34, ..) => update.denied -= 1,
        (35, ..) => update.flush = crate::REQUESTS_MAX,
        (36, _, crate::UniquesUpdate::Delta(uniques) | crate::UniquesUpdate::Cumulative(uniques)) => {
            uniques.users = CompactThetaSketch::empty();
        }
        _ => return update,
    }
    AT_WRITE.0.set(0);
    update
}

/// 26: upserts a second time.
pub(crate) async fn on_upserted(transaction: &Transaction) -> Result<(), Error> {
    match AT_WRITE.0.get() {
        26 => {
            AT_WRITE.0.set(0);
            transaction.upsert(update()).await.map(drop)
        }
        _ => Ok(()),
    }
}

/// Misbehaves after a commit.
///
/// - 31: It panics.
/// - 37: It reports a failure.
/// - 40: It commits the same transaction again.
/// - 41: It begins another transaction.
pub(crate) async fn on_committed(replica: Uuid, handle: u32) -> Result<(), Error> {
    match AT_WRITE.0.replace(0) {
        31 => panic!("on cue, after the commit"),
        37 => Err(Error::Unavailable("on cue".into())),
        40 => Transaction::commit(of_handle(handle)).await,
        41 => Transaction::begin(replica).await.map(drop),
        cue => {
            AT_WRITE.0.set(cue);
            Ok(())
        }
    }
}

/// Falsifies the result of a flush.
///
/// - 38: It reports that there was nothing to flush.
/// - 39: It reports another number.
pub(crate) fn on_result(result: Result<Flushed, Error>) -> Result<Flushed, Error> {
    let false_result = match (AT_WRITE.0.get(), &result) {
        (38, Ok(_)) => Ok(Flushed::Idle),
        (39, Ok(Flushed::Written(written))) => Ok(Flushed::Written(types::Written { flush: 99, ..*written })),
        _ => return result,
    };
    AT_WRITE.0.set(0);
    false_result
}

async fn locked(replica: Uuid) -> Result<Transaction, Error> {
    let transaction = Transaction::begin(replica).await?;
    acquire(&transaction, Lock::Cutover, Mode::Shared).await?;
    acquire(&transaction, Lock::Replica, Mode::Exclusive).await?;
    Ok(transaction)
}

/// Begins a transaction, acquires both locks, reads, and upserts.
async fn upsert(replica: Uuid, update: Update) -> Result<(), Error> {
    let transaction = locked(replica).await?;
    transaction.read().await?;
    transaction.upsert(update).await.map(drop)
}

/// Returns an update without activity, for a replica that has not flushed yet.
fn update() -> Update {
    Update { flush: 1, uniques: UniquesUpdate::Delta(uniques()), allowed: 0, denied: 0 }
}

fn uniques() -> Uniques {
    let set = || Sketch { count: 0, bytes: CompactThetaSketch::empty().to_bytes() };
    Uniques { workspaces: set(), users: set() }
}
