//! The thread primitives of the intake: locks, atomics, wake-ups, time and thread numbers.
//!
//! The intake imports these primitives only from here, so that the model checker in `tests/intake_model` can substitute
//! its own.

use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

pub(crate) use tokio::sync::Notify;
pub(crate) use tokio::time::{Instant, timeout_at};

/// Returns the number of shards: four per processor, because threads that share a shard contend for its lock.
pub(crate) fn shard_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (4 * processors).next_power_of_two().min(64)
    })
}

/// Returns the number of the calling thread. Threads are numbered in the order of their first calls.
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}
