//! What the intake needs of threads: locks, atomic numbers, wake-ups, time, and a number for each thread.
//!
//! The intake takes them from here alone, so that a model checker can put its own in their place: see `tests/intake_model`.

use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

pub(crate) use tokio::sync::Notify;
pub(crate) use tokio::time::{Instant, timeout_at};

/// Four for each processor: a proxy has more threads than one, and those that share a shard get in each other's way.
pub(crate) fn shard_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (4 * processors).next_power_of_two().min(64)
    })
}

/// The threads that track, in the order in which they came.
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}
