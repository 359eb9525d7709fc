//! The hash table of a growing set, with its entries in ascending order.
//!
//! Hashes are evenly distributed. The table maps the range of hashes linearly to its slots, so a greater hash has the
//! same home slot or a later one. If a home is occupied, the hash moves to a later slot (linear probing) that keeps the
//! order. A scan of the table therefore yields the hashes in ascending order. Compaction, growth and the removal of the
//! greatest hashes need no sort.

use alloc::vec;
use alloc::vec::Vec;

use super::{RETAINED_MAX, THETA_MAX, for_each, shrink};

/// Hashes greater than 0 and less than a bound. The bound falls when the table is full.
#[derive(Default)]
pub(super) struct Table {
    /// The home slots and a few overflow slots. 0 marks a free slot. Empty before the first insertion.
    slots: Vec<u64>,
    /// The number of home slots: 0 or a power of two.
    homes: usize,
    /// The number of hashes.
    len: usize,
    /// The table drops hashes that are not less than this bound.
    theta: Theta,
}

/// The bound, and the mapping of smaller hashes to home slots.
struct Theta {
    bound: u64,
    /// The right shift that reduces every hash below the bound to 32 bits.
    shift: u32,
    /// The number of home slots divided by the range of shifted hashes, multiplied by 2^32.
    scale: u64,
}

/// The minimum number of home slots of a table that is not empty.
const HOMES_MIN: usize = 1 << 6;

/// The maximum number of home slots. A table of this size is full when it has three quarters as many hashes. That is
/// 1.5 times as many as a sketch retains, so the table seldom has to drop hashes.
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

    /// Inserts a hash.
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

    /// Writes a hash into `slot` and moves the greater hashes there by one slot.
    fn put(&mut self, mut hash: u64, slot: usize) {
        for occupied in &mut self.slots[slot..] {
            hash = core::mem::replace(occupied, hash);
            if hash == 0 {
                // The last slot stays free, because it ends every search.
                if self.slots.last() != Some(&0) {
                    self.slots.push(0);
                }
                return;
            }
        }
        unreachable!("the last slot is free");
    }

    /// Doubles the home slots, or lowers the bound if there already are [`HOMES_MAX`].
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
        // A few overflow slots follow the last home slot. If they do not suffice, which is unlikely, the table grows.
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

    /// Returns all hashes in ascending order.
    fn hashes(&self) -> Vec<u64> {
        // The processor would often mispredict a branch per slot. This loop therefore copies every slot, and the next
        // hash overwrites the copy of a free slot.
        let mut hashes = vec![0; self.len + 1];
        let mut len = 0;
        for_each(self.slots.iter(), |hash| {
            hashes[len] = *hash;
            len += usize::from(*hash != 0);
        });
        hashes.truncate(self.len);
        hashes
    }

    /// Returns the hashes that a sketch retains, and its theta.
    pub(super) fn compact(&self) -> (Vec<u64>, u64) {
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
        // The multiples of an odd number visit all residues in a seemingly random order.
        let hashes = (1..20_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1);
        let mut sorted: Vec<u64> = hashes.clone().collect();
        sorted.sort_unstable();
        let table = table_of(hashes.clone().chain(hashes));
        assert_eq!(table.hashes(), sorted);
        let first_dropped = sorted[RETAINED_MAX];
        sorted.truncate(RETAINED_MAX);
        assert_eq!(table.compact(), (sorted, first_dropped));
    }

    #[test]
    fn crowded_hashes_find_a_slot() {
        for hashes in [1..3_000, THETA_MAX - 3_000..THETA_MAX] {
            let table = table_of(hashes.clone().rev().chain(hashes.clone()));
            assert!(table.hashes().into_iter().eq(hashes));
        }
    }

    #[test]
    fn a_table_grows_with_its_hashes_and_no_further_than_its_bound() {
        assert!(table_of([5]).slots.len() < 2 * HOMES_MIN);
        let hashes = (1..20_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1);
        assert_eq!(table_of(hashes).slots.len(), HOMES_MAX + HOMES_MAX / 128 + 16);
    }

    #[test]
    fn hashes_out_of_range_are_not_kept() {
        assert!(table_of([0, THETA_MAX, u64::MAX]).is_empty());
    }
}
