//! The serialized sketch: the [compact form] of DataSketches.
//!
//! A preamble of one to three words comes before the hashes. All words have eight bytes and are little-endian.
//!
//! | word | bytes |
//! | --- | --- |
//! | 1 | preamble length in words (1), serial version (1), family (1), unused (2), flags (1), seed hash (2) |
//! | 2 | number of hashes (4), unused (4); absent if there is exactly one hash |
//! | 3 | theta (8); absent if the sketch is exact |
//!
//! [compact form]: https://github.com/apache/datasketches-cpp/blob/master/theta/include/compact_theta_sketch_parser.hpp

use alloc::vec;
use alloc::vec::Vec;

use super::hash::SEED_HASH;
use super::{CompactThetaSketch, RETAINED_MAX, THETA_MAX, for_each};

/// The maximum length of a serialized sketch, in bytes.
///
/// The longest sketch has three words of preamble and one word per retained hash.
pub const SKETCH_BYTES_MAX: usize = 8 * (3 + RETAINED_MAX);

/// The only supported version. Version 4 packs bits, and a decoder for it would make up a third of the component's
/// size.
const SERIAL_VERSION: u8 = 3;

/// The family id of Theta sketches.
const FAMILY: u8 = 3;

// The flags of the first word.
const READ_ONLY: u8 = 1 << 1;
const EMPTY: u8 = 1 << 2;
const COMPACT: u8 = 1 << 3;
const ORDERED: u8 = 1 << 4;

/// The serialized empty sketch, whose seed hash is 0.
const EMPTY_SKETCH: [u8; 8] = [1, SERIAL_VERSION, FAMILY, 0, 0, READ_ONLY | EMPTY | COMPACT | ORDERED, 0, 0];

/// The reason why a serialized sketch is refused.
///
/// The error texts contain no numbers, because code for number formatting would add about 3 % to the component's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SketchError {
    /// The sketch is longer than [`SKETCH_BYTES_MAX`].
    #[error("the sketch is longer than any sketch of a tracker")]
    TooLong,
    /// The sketch does not have the compact form of serial version 3.
    #[error("the sketch is not a compact Theta sketch of serial version 3")]
    Form,
    /// The sketch was built with another seed.
    #[error("the sketch does not have the default seed")]
    Seed,
    /// The sketch is truncated, or has bytes after its end.
    #[error("the length of the sketch differs from its preamble")]
    Length,
    /// The sketch has more hashes than `lg_k = 14` allows.
    #[error("the sketch has more hashes than lg_k = 14 allows")]
    TooLarge,
    /// The hashes are not in ascending order, or not between 0 and theta.
    #[error("the sketch has hashes that are out of order or out of range")]
    Hashes,
}

impl CompactThetaSketch {
    /// Reads a serialized sketch and validates all of it.
    ///
    /// # Errors
    ///
    /// Returns a [`SketchError`] if the bytes differ from what [`CompactThetaSketch::to_bytes`] writes.
    #[inline(never)] // One copy keeps the component small.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        if bytes.len() > SKETCH_BYTES_MAX {
            return Err(SketchError::TooLong);
        }
        let (words, rest) = bytes.as_chunks::<8>();
        let [[preamble, SERIAL_VERSION, FAMILY, _, _, flags, seed @ ..], words @ ..] = words else {
            return Err(SketchError::Form);
        };
        if flags & COMPACT == 0 {
            return Err(SketchError::Form);
        }
        if flags & EMPTY != 0 {
            return Ok(Self::empty());
        }
        if u16::from_le_bytes(*seed) != SEED_HASH {
            return Err(SketchError::Seed);
        }
        let number = |word: &[u8; 8]| u64::from_le_bytes(*word);
        let (count, theta, hashes) = match (preamble, words) {
            (1, hashes) => (1, THETA_MAX, hashes),
            (2, [count, hashes @ ..]) => (number(count), THETA_MAX, hashes),
            (3, [count, theta, hashes @ ..]) => (number(count), number(theta), hashes),
            _ => return Err(SketchError::Form),
        };
        // The upper half of this word is unused.
        let count = count as u32 as usize;
        if count > RETAINED_MAX {
            return Err(SketchError::TooLarge);
        }
        if count != hashes.len() || !rest.is_empty() {
            return Err(SketchError::Length);
        }
        let mut read = vec![0; count];
        let (mut last, mut in_order) = (0, true);
        for_each(read.iter_mut().zip(hashes), |(hash, word)| {
            *hash = number(word);
            in_order &= last < *hash;
            last = *hash;
        });
        if !in_order || last >= theta || !(1..=THETA_MAX).contains(&theta) {
            return Err(SketchError::Hashes);
        }
        Ok(Self { hashes: read, theta })
    }

    /// Serializes the sketch in the compact form, which other DataSketches tools read.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.is_empty() {
            return EMPTY_SKETCH.to_vec();
        }
        let preamble = match (self.hashes.len(), self.theta) {
            (1, THETA_MAX) => 1,
            (_, THETA_MAX) => 2,
            _ => 3,
        };
        let mut bytes = vec![0; 8 * (preamble + self.hashes.len())];
        let (words, _) = bytes.as_chunks_mut::<8>();
        let [seed, seed_too] = SEED_HASH.to_le_bytes();
        let flags = READ_ONLY | COMPACT | ORDERED;
        words[0] = [preamble as u8, SERIAL_VERSION, FAMILY, 0, 0, flags, seed, seed_too];
        for (word, number) in words[1..preamble].iter_mut().zip([self.hashes.len() as u64, self.theta]) {
            *word = number.to_le_bytes();
        }
        for_each(words[preamble..].iter_mut().zip(&self.hashes), |(word, hash)| *word = hash.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sketch_of;
    use super::*;

    #[test]
    fn serialized_sketches_survive_a_round_trip_within_their_bound() {
        for ids in [0, 1, 2, 16_384, 16_385, 30_000, 1_000_000] {
            let sketch = sketch_of(1..=ids);
            let bytes = sketch.to_bytes();
            assert!(bytes.len() <= SKETCH_BYTES_MAX, "{ids} ids take {} bytes", bytes.len());
            let read = CompactThetaSketch::from_bytes(&bytes).expect("a serialized sketch is valid");
            assert_eq!(read, sketch);
            assert_eq!(read.to_bytes(), bytes);
        }
    }

    #[test]
    fn the_longest_sketch_has_a_word_for_each_hash_and_three_more() {
        assert_eq!(SKETCH_BYTES_MAX, 131_096);
        assert_eq!(sketch_of(1..=16_385).to_bytes().len(), SKETCH_BYTES_MAX);
    }

    #[test]
    fn damaged_sketches_are_errors_and_never_panics() {
        for ids in [1_u128, 2, 100, 20_000] {
            let whole = sketch_of(1..=ids);
            let bytes = whole.to_bytes();
            for length in (0..bytes.len()).step_by(if ids > 100 { 1_001 } else { 1 }) {
                assert!(CompactThetaSketch::from_bytes(&bytes[..length]).is_err(), "{ids} ids, cut at {length}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(CompactThetaSketch::from_bytes(&longer).is_err(), "{ids} ids, and a byte");
            for position in (0..64.min(bytes.len())).chain((64..bytes.len()).step_by(1_001)) {
                for bit in 0..8 {
                    let mut damaged = bytes.clone();
                    damaged[position] ^= 1 << bit;
                    // A flipped bit may produce another valid sketch. That sketch must be usable.
                    if let Ok(sketch) = CompactThetaSketch::from_bytes(&damaged) {
                        assert!(sketch.union(&whole).to_bytes().len() <= SKETCH_BYTES_MAX);
                    }
                }
            }
        }
    }

    #[test]
    fn every_kind_of_damage_has_its_error() {
        let error = |change: fn(&mut Vec<u8>)| {
            let mut bytes = sketch_of(1..=3).to_bytes();
            change(&mut bytes);
            CompactThetaSketch::from_bytes(&bytes).expect_err("it is damaged")
        };
        assert_eq!(error(|bytes| bytes.resize(SKETCH_BYTES_MAX + 1, 0)), SketchError::TooLong);
        assert_eq!(error(|bytes| bytes.clear()), SketchError::Form);
        assert_eq!(error(|bytes| bytes[1] = 4), SketchError::Form);
        assert_eq!(error(|bytes| bytes[5] &= !COMPACT), SketchError::Form);
        assert_eq!(error(|bytes| bytes[6] ^= 1), SketchError::Seed);
        assert_eq!(error(|bytes| bytes.truncate(24)), SketchError::Length);
        assert_eq!(error(|bytes| bytes.push(0)), SketchError::Length);
        assert_eq!(error(|bytes| bytes[9] = 0x80), SketchError::TooLarge);
        assert_eq!(error(|bytes| bytes.copy_within(16..24, 24)), SketchError::Hashes);
        assert_eq!(error(|bytes| bytes[39] |= 0x80), SketchError::Hashes);
        assert_eq!(error(|bytes| bytes[16..24].fill(0)), SketchError::Hashes);
    }
}
