//! The hashes of a set that still grows: a hash table whose entries lie in ascending order.
//!
//! A hash's home is the slot that it falls to when the range of all hashes is laid out over the table: they are spread evenly,
//! so that a greater hash has the same home or a later one. Who finds its home taken moves on to the next slot (linear probing)
//! and keeps the order there. So the table is walked in ascending order at any time: to freeze a set, to grow and to drop the
//! greatest hashes need no sorting, and no other code than this.

use alloc::vec;
use alloc::vec::Vec;

use super::{RETAINED_MAX, THETA_MAX, for_each, shrink};

/// Hashes from 1 up to, not including, a bound that falls as they get too many.
#[derive(Default)]
pub(super) struct Table {
    /// The homes, then what those behind the last home need. 0 is a free slot. Without any before the first insertion.
    slots: Vec<u64>,
    /// How many slots are homes: 0, or a power of two.
    homes: usize,
    /// How many hashes there are.
    len: usize,
    /// Hashes as large as that are dropped.
    theta: Theta,
}

/// The bound, and how the range below it is laid out over the homes.
struct Theta {
    bound: u64,
    /// Leaves of any hash below the bound as many bits as fit into 32.
    shift: u32,
    /// The homes there are for each of what is left, in units of 1/2^32.
    scale: u64,
}

/// The fewest homes of a table that holds anything.
const HOMES_MIN: usize = 1 << 6;

/// The most: room for half as many again as are kept, so that the greatest need not be dropped too often.
const HOMES_MAX: usize = 2 * RETAINED_MAX;

impl Theta {
    fn new(bound: u64, homes: usize) -> Self {
        let shift = 32_u32.saturating_sub(bound.leading_zeros());
        let scale = ((homes as u64) << 32) / ((bound >> shift) + 1);
        Self { bound, shift, scale }
    }

    fn home(&self, hash: u64) -> usize {
        (((hash >> self.shift) * self.scale) >> 32) as usize
    }
}

impl Default for Theta {
    fn default() -> Self {
        Self::new(THETA_MAX, 0)
    }
}

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a hash in.
    pub(super) fn insert(&mut self, hash: u64) {
        if hash == 0 || hash >= self.theta.bound {
            return;
        }
        if self.len >= self.homes / 4 * 3 {
            self.make_room();
            if hash >= self.theta.bound {
                return;
            }
        }
        let mut slot = self.theta.home(hash);
        while (1..hash).contains(&self.slots[slot]) {
            slot += 1;
        }
        if self.slots[slot] != hash {
            self.len += 1;
            self.put(hash, slot);
        }
    }

    /// Puts a hash into its slot. Those that are there, all greater, move on by one.
    fn put(&mut self, mut hash: u64, slot: usize) {
        for taken in &mut self.slots[slot..] {
            hash = core::mem::replace(taken, hash);
            if hash == 0 {
                // The last slot stays free: whoever looks for a hash ends there.
                if self.slots.last() != Some(&0) {
                    self.slots.push(0);
                }
                return;
            }
        }
        unreachable!("the last slot is free");
    }

    /// More homes, or a lower bound where there are as many as may be.
    fn make_room(&mut self) {
        let mut bound = self.theta.bound;
        let mut hashes = self.hashes();
        let homes = if self.homes < HOMES_MAX {
            (2 * self.homes).clamp(HOMES_MIN, HOMES_MAX)
        } else {
            bound = shrink(&mut hashes, bound);
            HOMES_MAX
        };
        self.homes = homes;
        self.len = hashes.len();
        self.theta = Theta::new(bound, homes);
        // Behind the last home there are a few slots more; where they do not suffice, which is next to impossible, it grows.
        self.slots = vec![0; homes + homes / 128 + 16];
        let mut free = 0;
        for hash in hashes {
            let slot = self.theta.home(hash).max(free);
            free = slot + 1;
            if self.slots.len() <= free {
                self.slots.push(0);
            }
            self.slots[slot] = hash;
        }
    }

    /// All of them, in ascending order.
    fn hashes(&self) -> Vec<u64> {
        // Without a branch on slots, which no processor can predict: each is copied, and stays unless it is free.
        let mut hashes = vec![0; self.len + 1];
        let mut len = 0;
        for_each(self.slots.iter(), |hash| {
            hashes[len] = *hash;
            len += usize::from(*hash != 0);
        });
        hashes.truncate(self.len);
        hashes
    }

    /// What a sketch keeps of them, and the bound below which it does.
    pub(super) fn freeze(&self) -> (Vec<u64>, u64) {
        let mut hashes = self.hashes();
        let bound = shrink(&mut hashes, self.theta.bound);
        (hashes, bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_of(hashes: impl IntoIterator<Item = u64>) -> Table {
        let mut table = Table::default();
        hashes.into_iter().for_each(|hash| table.insert(hash));
        table
    }

    #[test]
    fn hashes_come_out_once_and_in_order() {
        // Multiples of an odd number visit all remainders, in an order that looks like none.
        let hashes = (1..20_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1);
        let mut sorted: Vec<u64> = hashes.clone().collect();
        sorted.sort_unstable();
        let table = table_of(hashes.clone().chain(hashes));
        assert_eq!(table.hashes(), sorted);
        let first_dropped = sorted[RETAINED_MAX];
        sorted.truncate(RETAINED_MAX);
        assert_eq!(table.freeze(), (sorted, first_dropped));
    }

    #[test]
    fn crowded_hashes_find_a_slot() {
        for hashes in [1..3_000, THETA_MAX - 3_000..THETA_MAX] {
            let table = table_of(hashes.clone().rev().chain(hashes.clone()));
            assert!(table.hashes().into_iter().eq(hashes));
        }
    }

    #[test]
    fn hashes_out_of_range_are_not_kept() {
        assert!(table_of([0, THETA_MAX, u64::MAX]).is_empty());
    }
}
