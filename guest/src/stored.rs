//! A sketch as the database holds it: asked whether it has ids, and read only if it has not.
//!
//! Most flushes bring their period nothing new, and what tells that is in the way of every flush. Hashes are spread evenly, so
//! that a hash's place in their order follows from its value, nearly: their range is cut into as many pieces as there are hashes,
//! about one in each, and one look finds what a piece holds. Bisection takes ten looks for a thousand hashes, each of them a
//! branch that no processor can predict; a union inserts all of them into a table.

use crate::sketch::{SERIAL_VERSION, SKETCH_BYTES_MAX, SketchError, UniqueSketch};

/// A serialized sketch, which may be damaged.
#[derive(Clone, Debug)]
pub struct StoredSketch(Vec<u8>);

/// The number of the Theta sketches among the families of sketches.
const FAMILY: u8 = 3;

// Flags of the compact form.
const IS_EMPTY: u8 = 1 << 2;
const IS_ORDERED: u8 = 1 << 4;

/// The theta of a sketch that has dropped nothing; it is not stored.
const THETA_MAX: u64 = i64::MAX as u64;

impl StoredSketch {
    /// What was stored.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// As [`UniqueSketch::from_bytes`].
    pub fn read(&self) -> Result<UniqueSketch, SketchError> {
        UniqueSketch::from_bytes(&self.0)
    }

    /// Whether its union with another one is certainly itself: it keeps every hash that the other one keeps below its theta,
    /// the bound under which a sketch keeps hashes. Then it is not damaged either. `false` may also say that it is in another
    /// form than ours.
    pub(crate) fn holds_all(&self, other: &UniqueSketch) -> bool {
        let Some(kept) = Hashes::of(&self.0, other.seed_hash()) else { return false };
        kept.theta <= other.theta() && other.hashes().all(|hash| kept.hold(hash))
    }
}

/// The hashes in a serialized sketch.
struct Hashes<'a> {
    /// In ascending order, below theta.
    hashes: &'a [[u8; 8]],
    theta: u64,
    /// For each piece of the range that has hashes, where they end.
    ends: Vec<u32>,
    /// A hash without so many of its last bits is the number of its piece.
    shift: u32,
}

impl<'a> Hashes<'a> {
    /// `None` when it is not a compact sketch in ascending order, made with this seed. The [compact form] has a preamble of
    /// one to three words, then the hashes, all little-endian.
    ///
    /// [compact form]: https://github.com/apache/datasketches-cpp/blob/master/theta/include/compact_theta_sketch_parser.hpp
    fn of(bytes: &'a [u8], seed_hash: u16) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let ([preamble, SERIAL_VERSION, FAMILY, _, _, flags, seed @ ..], rest) = words.split_first()? else {
            return None;
        };
        if flags & (IS_EMPTY | IS_ORDERED) != IS_ORDERED || *seed != seed_hash.to_le_bytes() {
            return None;
        }
        let (count, theta, hashes) = match (preamble, rest) {
            (1, hashes) => (1, THETA_MAX, hashes),
            (2, [count, hashes @ ..]) => (u64::from_le_bytes(*count), THETA_MAX, hashes),
            (3, [count, theta, hashes @ ..]) => (u64::from_le_bytes(*count), u64::from_le_bytes(*theta), hashes),
            _ => return None,
        };
        // The upper half of the count's word is not used.
        if count as u32 as usize != hashes.len() || bytes.len() > SKETCH_BYTES_MAX || !(1..=THETA_MAX).contains(&theta)
        {
            return None;
        }
        let pieces = hashes.len().next_power_of_two().max(2);
        let shift = (u64::BITS - theta.leading_zeros()).saturating_sub(pieces.trailing_zeros());
        let mut ends = vec![0; pieces];
        let mut last = 0;
        for (end, hash) in (1..).zip(hashes) {
            let hash = u64::from_le_bytes(*hash);
            if hash <= last || hash >= theta {
                return None;
            }
            last = hash;
            ends[(hash >> shift) as usize] = end;
        }
        Some(Self { hashes, theta, ends, shift })
    }

    /// Whether a hash is among them, or would not be kept.
    fn hold(&self, hash: u64) -> bool {
        if hash >= self.theta {
            return true;
        }
        let end = self.ends[(hash >> self.shift) as usize] as usize;
        let mut until_there = self.hashes[..end].iter().rev().map(|kept| u64::from_le_bytes(*kept));
        until_there.find(|kept| *kept <= hash) == Some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::{HashingKey, UniqueSet};

    fn set_of(ids: impl IntoIterator<Item = u128>) -> UniqueSet {
        let mut set = UniqueSet::new();
        ids.into_iter().for_each(|id| set.insert(HashingKey(1, 2), id));
        set
    }

    #[test]
    fn a_sketch_holds_all_exactly_when_the_union_is_the_sketch_itself() {
        let ranges =
            [0..0, 0..1, 0..2, 0..100, 50..100, 99..101, 0..16_384, 0..16_385, 100..40_000, 0..40_000, 0..1_000_000];
        let mut held = 0;
        for one in ranges.clone() {
            let sketch = set_of(one.clone()).freeze();
            let stored = StoredSketch::new(sketch.to_bytes());
            for other in ranges.clone() {
                let unordered = set_of(other.clone()).freeze_unordered();
                let holds = stored.holds_all(&unordered);
                assert_eq!(stored.holds_all(&set_of(other.clone()).freeze()), holds, "{one:?} and {other:?}, in order");
                let is_union = sketch.union(&unordered).to_bytes() == sketch.to_bytes();
                // To the empty sketch nothing comes often enough to tell it in a shorter way.
                assert_eq!(holds, is_union && !one.is_empty(), "{one:?} and {other:?}");
                held += u32::from(holds);
            }
        }
        assert!((20..80).contains(&held), "{held} of 121");
    }

    #[test]
    fn what_cannot_be_read_holds_nothing() {
        for ids in [1_u128, 2, 100, 20_000] {
            let sketch = set_of(1..=ids).freeze();
            let bytes = sketch.to_bytes();
            assert!(StoredSketch::new(bytes.clone()).holds_all(&sketch));
            for length in (0..bytes.len()).step_by(7) {
                assert!(!StoredSketch::new(bytes[..length].to_vec()).holds_all(&sketch), "{ids} ids, cut at {length}");
            }
            for position in (0..64.min(bytes.len())).chain((64..bytes.len()).step_by(1_001)) {
                for bit in 0..8 {
                    let mut damaged = bytes.clone();
                    damaged[position] ^= 1 << bit;
                    let damaged = StoredSketch::new(damaged);
                    // A few bits say nothing, or can be otherwise; then it can be read, too.
                    let holds = damaged.holds_all(&sketch);
                    assert!(!holds || damaged.read().is_ok(), "{ids} ids, bit {bit} of byte {position}");
                }
            }
        }
    }

    #[test]
    fn crowded_hashes_are_found_too() {
        let mut bytes = set_of(1..=100).freeze().to_bytes();
        for (number, hash) in (1_u64..).zip(bytes.as_chunks_mut::<8>().0[2..].iter_mut()) {
            *hash = number.to_le_bytes();
        }
        let same = UniqueSketch::from_bytes(&bytes).expect("these are hashes, if unlikely ones");
        assert!(StoredSketch::new(bytes).holds_all(&same));
    }
}
