//! The unique set: how many different ids, without keeping any of them.
//!
//! A set is a [Theta sketch] of Apache DataSketches with `lg_k = 14`: exact up to 16,384 ids, beyond that an estimate
//! with a relative standard error of 1/√16,384 = 0.78 %, in bounded memory, and mergeable without loss of accuracy.
//! An id enters as its keyed hash: in its exact range a sketch holds a hash of every id, and without a key anyone who
//! has a list of ids could test which of them are in it.
//!
//! [Theta sketch]: https://datasketches.apache.org/docs/Theta/ThetaSketches.html

use std::fmt;

use datasketches::common::ResizeFactor;
use datasketches::hash::value::raw_bytes;
use datasketches::theta::{CompactThetaSketch, ThetaSketch, ThetaSketchBuilder, ThetaUnion, ThetaUnionBuilder};
use siphasher::sip128::{Hasher128, SipHasher24};

/// log2 of the number of hashes that a full sketch keeps. Sketches of other sizes are not stored.
const LG_K: u8 = 14;

/// The most hashes that a stored sketch keeps; up to as many ids, its count is exact.
const RETAINED_MAX: usize = 1 << LG_K;

/// The serial version of the compact form, at a sketch's second byte. Only this one is read: the reader of another one,
/// which packs bits, would be a third of the component.
pub(crate) const SERIAL_VERSION: u8 = 3;

/// The longest serialized sketch, in bytes: a preamble of three words, then a word for each hash kept.
pub const SKETCH_BYTES_MAX: usize = 8 * (3 + RETAINED_MAX);

/// The key under which ids are hashed, one for each database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashingKey(pub u64, pub u64);

impl HashingKey {
    /// The pseudonym of an id: SipHash-2-4 with 128 bits of output, over the id's 16 big-endian bytes.
    fn pseudonym(self, id: u128) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_keys(self.0, self.1);
        std::hash::Hasher::write(&mut hasher, &id.to_be_bytes());
        hasher.finish128().as_bytes()
    }
}

impl fmt::Debug for HashingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HashingKey(..)")
    }
}

/// A sketch from outside that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SketchError {
    /// Longer than any sketch that a tracker writes.
    #[error("a sketch of {bytes} bytes is longer than the longest, {SKETCH_BYTES_MAX} bytes")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a compact Theta sketch with the default seed.
    #[error("not a compact Theta sketch with the default seed")]
    Malformed(#[source] datasketches::error::Error),
    /// Serialized in another form than the compact one, or cut off before it says in which.
    #[error("a sketch of serial version {version:?}, expected {SERIAL_VERSION}")]
    Version {
        /// Its serial version.
        version: Option<u8>,
    },
    /// Keeps more hashes than `lg_k = 14` allows.
    #[error("a sketch that keeps {retained} hashes is larger than lg_k = {LG_K} allows")]
    TooLarge {
        /// The hashes that it keeps.
        retained: usize,
    },
}

/// A set that ids are put into.
pub struct UniqueSet(ThetaSketch);

impl UniqueSet {
    /// An empty set.
    pub fn new() -> Self {
        // Twofold, not eightfold: whoever freezes the set walks the whole table.
        let sketch = ThetaSketchBuilder::default().lg_k(LG_K).resize_factor(ResizeFactor::X2).build();
        // Not `expect`, here and wherever no error can come: the code that would print it is a tenth of the component.
        let Ok(sketch) = sketch else { unreachable!("lg_k = 14 is in range") };
        Self(sketch)
    }

    /// Puts an id in.
    pub fn insert(&mut self, key: HashingKey, id: u128) {
        self.0.update(raw_bytes::from_slice(&key.pseudonym(id)));
    }

    /// Whether no id was put in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Freezes what the set holds.
    pub fn freeze(mut self) -> UniqueSketch {
        self.0.trim();
        UniqueSketch(self.0.compact(true))
    }

    /// Freezes what the set holds, its hashes in no order: sorting them is most of the work, and most flushes can do without.
    pub(crate) fn freeze_unordered(mut self) -> UniqueSketch {
        self.0.trim();
        UniqueSketch(self.0.compact(false))
    }
}

impl Default for UniqueSet {
    fn default() -> Self {
        Self::new()
    }
}

/// A frozen set: to be counted, merged, stored.
#[derive(Clone, Debug)]
pub struct UniqueSketch(CompactThetaSketch);

impl UniqueSketch {
    /// The set without ids.
    pub fn empty() -> Self {
        UniqueSet::new().freeze()
    }

    /// Reads a stored sketch, and trusts nothing in it.
    ///
    /// # Errors
    ///
    /// When the bytes are not a compact sketch as [`UniqueSketch::to_bytes`] writes it.
    #[inline(never)] // one copy: into it, the compiler inlines the reader of the one version that is left
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        if bytes.len() > SKETCH_BYTES_MAX {
            return Err(SketchError::TooLong { bytes: bytes.len() });
        }
        if bytes.get(1) != Some(&SERIAL_VERSION) {
            return Err(SketchError::Version { version: bytes.get(1).copied() });
        }
        let sketch = CompactThetaSketch::deserialize(bytes).map_err(SketchError::Malformed)?;
        if sketch.num_retained() > RETAINED_MAX {
            return Err(SketchError::TooLarge { retained: sketch.num_retained() });
        }
        Ok(Self(sketch))
    }

    /// The standard compact form, which other DataSketches tools read too.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.serialize()
    }

    /// How many ids: exact up to 16,384, an estimate beyond.
    pub fn count(&self) -> u64 {
        self.0.estimate().round() as u64
    }

    /// The same set, in order: as it is stored.
    pub(crate) fn ordered(&self) -> Self {
        if self.0.is_ordered() { self.clone() } else { UniqueSketch::empty().union(self) }
    }

    /// The ids of both sets.
    pub fn union(&self, other: &Self) -> Self {
        let mut union = UniqueUnion::new();
        union.add(self);
        union.add(other);
        union.finish()
    }

    /// The hashes that it keeps.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|entry| entry.hash())
    }

    /// The bound under which it keeps hashes.
    pub(crate) fn theta(&self) -> u64 {
        self.0.theta64()
    }

    /// Tells with which seed ids were hashed.
    pub(crate) fn seed_hash(&self) -> u16 {
        self.0.seed_hash()
    }
}

/// The union of any number of sets, in the memory of one.
pub struct UniqueUnion(ThetaUnion);

impl UniqueUnion {
    /// A union of no sets.
    pub fn new() -> Self {
        let union = ThetaUnionBuilder::default().lg_k(LG_K).build();
        let Ok(union) = union else { unreachable!("lg_k = 14 is in range") };
        Self(union)
    }

    /// Adds the ids of a set.
    pub fn add(&mut self, sketch: &UniqueSketch) {
        let Ok(()) = self.0.update(&sketch.0) else { unreachable!("every sketch here has the default seed") };
    }

    /// The union of what was added.
    pub fn finish(&self) -> UniqueSketch {
        UniqueSketch(self.0.to_sketch(true))
    }
}

impl Default for UniqueUnion {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashingKey = HashingKey(1, 2);

    fn sketch_of(ids: impl IntoIterator<Item = u128>) -> UniqueSketch {
        let mut set = UniqueSet::new();
        ids.into_iter().for_each(|id| set.insert(KEY, id));
        set.freeze()
    }

    #[test]
    fn counts_exactly_up_to_16_384_ids() {
        assert_eq!(UniqueSketch::empty().count(), 0);
        assert_eq!(sketch_of((1..=16_384).chain(1..=16_384)).count(), 16_384);
    }

    #[test]
    fn estimates_beyond_that_within_four_standard_errors() {
        let count = sketch_of(1..=1_000_000).count() as f64;
        assert!((count / 1e6 - 1.0).abs() < 4.0 * 0.0078, "estimated {count}");
    }

    #[test]
    fn a_union_counts_a_shared_id_once() {
        assert_eq!(sketch_of(1..=1_000).union(&sketch_of(501..=1_500)).count(), 1_500);
        assert_eq!(sketch_of(1..=8_192).union(&sketch_of(8_193..=16_384)).count(), 16_384);
    }

    #[test]
    fn a_stored_sketch_reads_back_the_same_and_never_exceeds_its_bound() {
        for ids in [0, 1, 2, 16_384, 16_385, 30_000, 1_000_000] {
            let sketch = sketch_of(1..=ids);
            let bytes = sketch.to_bytes();
            assert!(bytes.len() <= SKETCH_BYTES_MAX, "{ids} ids take {} bytes", bytes.len());
            let read = UniqueSketch::from_bytes(&bytes).expect("what was written can be read");
            assert_eq!(read.count(), sketch.count());
            assert_eq!(read.to_bytes(), bytes);
        }
    }

    #[test]
    fn damaged_sketches_are_errors_and_never_panics() {
        let bytes = sketch_of(1..=100).to_bytes();
        for length in 0..bytes.len() {
            assert!(UniqueSketch::from_bytes(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert!(matches!(UniqueSketch::from_bytes(&vec![0; SKETCH_BYTES_MAX + 1]), Err(SketchError::TooLong { .. })));
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0xff;
            // Damage to a hash gives another valid sketch; what matters is that it stays usable or is refused.
            if let Ok(sketch) = UniqueSketch::from_bytes(&damaged) {
                sketch.union(&sketch).count();
            }
        }
    }

    #[test]
    fn a_sketch_depends_on_the_key() {
        let mut other = UniqueSet::new();
        other.insert(HashingKey(3, 4), 1);
        assert_ne!(sketch_of([1]).to_bytes(), other.freeze().to_bytes());
        assert_eq!(format!("{KEY:?}"), "HashingKey(..)");
    }
}
