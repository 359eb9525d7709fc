//! How much may wait in all shards together: room that shards take in blocks, so that they hardly ever meet here.

use crate::threads::{AtomicUsize, Ordering};

pub(super) struct Capacity {
    capacity: usize,
    /// How much a shard takes at a time.
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

    /// Takes up to a block; 0 when there is none left.
    pub(super) fn take(&self) -> usize {
        let less = |free: usize| Some(free.saturating_sub(self.block));
        let before = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.unwrap_or_else(|free| free).min(self.block)
    }

    pub(super) fn give_back(&self, taken: usize) {
        let before = self.free.fetch_add(taken, Ordering::Relaxed);
        debug_assert!(before + taken <= self.capacity, "what is given back was taken");
    }

    /// Whether more than half of it is taken.
    pub(super) fn is_scarce(&self) -> bool {
        self.free.load(Ordering::Relaxed) < self.capacity / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_in_blocks_and_given_back_whole() {
        let room = Capacity::new(130);
        assert_eq!((0..66).map(|_| room.take()).sum::<usize>(), 130);
        assert!(room.take() == 0 && room.is_scarce());
        room.give_back(130);
        assert!(!room.is_scarce());
        assert_eq!(room.take(), 2);
    }

    #[test]
    fn the_smallest_room_has_one_place() {
        let room = Capacity::new(1);
        assert_eq!([room.take(), room.take()], [1, 0]);
    }
}
