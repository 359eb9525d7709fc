//! Slots that bound the number of connections.
//!
//! If all slots are taken, a new client takes the place of the connection that has been idle the longest. Idle
//! connections therefore never keep others from being served.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The idle time before a connection may be closed for another one.
///
/// Without this minimum, each new connection would close another one under load.
const SHORTEST_IDLE: Duration = Duration::from_millis(50);

/// The `active_at` of a connection that must not be closed.
const BUSY: u64 = u64::MAX;

/// The slots of a server.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    next: AtomicU64,
    taken: Mutex<HashMap<u64, Arc<Holder>>>,
}

/// The state of a connection in a slot.
#[derive(Debug)]
struct Holder {
    /// Milliseconds after the start of the server, or [`BUSY`].
    active_at: AtomicU64,
    close: CancellationToken,
}

/// A slot of one connection. Dropping this value frees the slot.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u64,
    holder: Arc<Holder>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    pub(crate) fn new(limit: usize) -> Self {
        let shared = Shared { start: Instant::now(), next: AtomicU64::new(0), taken: Mutex::default() };
        Self { free: Arc::new(Semaphore::new(limit)), shared: Arc::new(shared) }
    }

    /// Takes a slot.
    ///
    /// If no slot is free, closes the connection that has been idle the longest, and waits.
    ///
    /// `close` is cancelled once another connection needs the slot. Dropping the future takes no slot.
    pub(crate) async fn take(&self, close: &CancellationToken) -> Slot {
        loop {
            if self.free.available_permits() == 0 {
                self.make_room();
            }
            // All connections may be active, so check again later whether one is idle.
            let permit = tokio::time::timeout(SHORTEST_IDLE, self.free.clone().acquire_owned()).await;
            let Ok(permit) = permit else { continue };
            let permit = permit.expect("the semaphore is never closed");
            let holder = Holder { active_at: AtomicU64::new(self.shared.now()), close: close.clone() };
            let (number, holder) = (self.shared.next.fetch_add(1, Ordering::Relaxed), Arc::new(holder));
            self.shared.taken().insert(number, holder.clone());
            return Slot { number, holder, shared: self.shared.clone(), _permit: permit };
        }
    }

    /// Closes the connection that has been idle the longest, if one is idle.
    pub(crate) fn make_room(&self) {
        let before = self.shared.now().saturating_sub(SHORTEST_IDLE.as_millis() as u64);
        let taken = self.shared.taken();
        let open = taken.values().filter(|holder| !holder.close.is_cancelled());
        let idle = open.map(|holder| (holder.active_at.load(Ordering::Relaxed), holder));
        if let Some((_, idlest)) = idle.filter(|(at, _)| *at <= before).min_by_key(|(at, _)| *at) {
            idlest.close.cancel();
        }
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, Arc<Holder>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Records that the connection is active now.
    pub(crate) fn set_active(&self) {
        self.holder.active_at.store(self.shared.now(), Ordering::Relaxed);
    }

    /// Records that the connection must stay open until [`set_active`](Self::set_active).
    pub(crate) fn set_busy(&self) {
        self.holder.active_at.store(BUSY, Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.taken().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_has_been_idle_the_longest_makes_room() {
        let (slots, close) = (Slots::new(3), [(); 4].map(|()| CancellationToken::new()));
        let first = slots.take(&close[0]).await;
        let second = slots.take(&close[1]).await;
        let third = slots.take(&close[2]).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        first.set_active();
        third.set_busy();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(slots.take(&close[3]).now_or_never().is_none());
        assert_eq!([0, 1, 2].map(|number| close[number].is_cancelled()), [false, true, false]);
        drop(second);
        slots.take(&close[3]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_is_not_closed() {
        let (slots, close, next) = (Slots::new(1), CancellationToken::new(), CancellationToken::new());
        let slot = slots.take(&close).await;
        slot.set_busy();
        assert!(tokio::time::timeout(Duration::from_secs(60), slots.take(&next)).await.is_err());
        assert!(!close.is_cancelled());
        slot.set_active();
        assert!(tokio::time::timeout(Duration::from_secs(1), slots.take(&next)).await.is_err());
        assert!(close.is_cancelled());
    }
}
