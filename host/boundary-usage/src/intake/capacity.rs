//! The capacity that all shards share.
//!
//! Shards reserve capacity in blocks, so their threads rarely contend for the shared counter.

use crate::threads::{AtomicUsize, Ordering};

pub(super) struct Capacity {
    capacity: usize,
    /// The number of activities that a shard reserves at a time.
    block: usize,
    free: AtomicUsize,
}

impl Capacity {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, block: (capacity / 64).max(1), free: AtomicUsize::new(capacity) }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Reserves up to one block. Returns 0 if the capacity is exhausted.
    pub(super) fn reserve(&self) -> usize {
        let less = |free: usize| Some(free.saturating_sub(self.block));
        let before = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.unwrap_or_else(|free| free).min(self.block)
    }

    pub(super) fn release(&self, reserved: usize) {
        let before = self.free.fetch_add(reserved, Ordering::Relaxed);
        debug_assert!(before + reserved <= self.capacity, "only reserved capacity is released");
    }

    /// Returns whether more than half of the capacity is reserved.
    pub(super) fn is_scarce(&self) -> bool {
        self.free.load(Ordering::Relaxed) < self.capacity / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_reserved_in_blocks_and_released_completely() {
        let capacity = Capacity::new(130);
        assert_eq!((0..66).map(|_| capacity.reserve()).sum::<usize>(), 130);
        assert!(capacity.reserve() == 0 && capacity.is_scarce());
        capacity.release(130);
        assert!(!capacity.is_scarce());
        assert_eq!(capacity.reserve(), 2);
    }

    #[test]
    fn the_smallest_capacity_is_one_activity() {
        let capacity = Capacity::new(1);
        assert_eq!([capacity.reserve(), capacity.reserve()], [1, 0]);
    }
}
