//! The thread primitives of the intake, from the model checker.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::ops::Add;
use std::task::{Poll, Waker};
use std::time::Duration;

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

loom::thread_local! {
    static SHARDS: Cell<usize> = Cell::new(1);
    static NUMBER: Cell<usize> = Cell::new(0);
}

pub(crate) fn set_shard_count(shards: usize) {
    SHARDS.with(|count| count.set(shards));
}

pub(crate) fn shard_count() -> usize {
    SHARDS.with(Cell::get)
}

pub(crate) fn set_thread_number(number: usize) {
    NUMBER.with(|current| current.set(number));
}

pub(crate) fn thread_number() -> usize {
    NUMBER.with(Cell::get)
}

/// A wake-up for one waiter, which is kept until there is one, like Tokio's `Notify`.
///
/// A lock replaces Tokio's atomic operations.
pub(crate) struct Notify(Mutex<State>);

#[derive(Default)]
struct State {
    is_pending: bool,
    waiter: Option<Waker>,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::default()))
    }

    pub(crate) fn notify_one(&self) {
        let waiter = {
            let mut state = self.0.lock().expect("no holder of this lock panics");
            state.is_pending = true;
            state.waiter.take()
        };
        waiter.into_iter().for_each(Waker::wake);
    }

    pub(crate) async fn notified(&self) {
        poll_fn(|context| {
            let mut state = self.0.lock().expect("no holder of this lock panics");
            if std::mem::take(&mut state.is_pending) {
                return Poll::Ready(());
            }
            state.waiter = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// An empty point in time, because the model has no clock.
#[derive(Clone, Copy)]
pub(crate) struct Instant;

impl Instant {
    pub(crate) fn now() -> Self {
        Self
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, _: Duration) -> Self {
        self
    }
}

/// Returns immediately, as if the time had passed.
///
/// The worker then drains immediately, and only a wake-up can resume it afterwards.
pub(crate) async fn timeout_at<F: Future>(_: Instant, _: F) -> Result<F::Output, ()> {
    Err(())
}
