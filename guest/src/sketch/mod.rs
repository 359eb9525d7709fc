//! Theta sketches: sets that count unique ids without storing them.
//!
//! A [Theta sketch] of Apache DataSketches with `lg_k = 14` retains the 16,384 smallest hashes of its ids. Theta is the
//! smallest hash that the sketch has dropped. The count is exact up to 16,384 ids. Beyond that it is an estimate with a
//! relative standard error of 1/√16,384 = 0.78 %. Memory is bounded, and a union loses no accuracy.
//!
//! An id is stored as a keyed hash. Up to 16,384 ids, a sketch contains the hash of every id. If the hashes had no key,
//! a reader with a list of ids could test which of them are in the sketch.
//!
//! These sketches replace the `datasketches` crate in the component. The crate's error texts, sorting and other sketch
//! forms would make up a third of the component's size. The sketches here keep their hashes in order, so they merge in
//! one pass without sorting. The tests compare the bytes of these sketches with those of the crate.
//!
//! [Theta sketch]: https://datasketches.apache.org/docs/Theta/ThetaSketches.html

mod bytes;
mod hash;
mod table;

use alloc::vec;
use alloc::vec::Vec;

pub use bytes::{SKETCH_BYTES_MAX, SketchError};
pub use hash::HashingKey;
use table::Table;

/// The maximum number of retained hashes, 2 to the power of `lg_k`. Up to this number of ids, the count is exact.
const RETAINED_MAX: usize = 1 << 14;

/// The theta of an exact sketch, which is greater than every hash.
const THETA_MAX: u64 = i64::MAX as u64;

/// The smallest theta that real ids can produce. This theta corresponds to about 2^40 ids, more than a replica sees in
/// a period.
const THETA_MIN: u64 = THETA_MAX >> 26;

/// The limit for the unevenness of hashes: the square of six standard deviations. About one in 10^31 sketches of random
/// hashes exceeds this limit.
const UNEVENNESS_MAX: f64 = 36.0;

/// A growing set of ids.
#[derive(Default)]
pub struct ThetaSketch(Table);

impl ThetaSketch {
    /// Creates an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Inserts an id.
    pub fn insert(&mut self, key: HashingKey, id: u128) {
        self.0.insert(key.hash(id));
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Converts the set to its compact form.
    pub fn compact(self) -> CompactThetaSketch {
        let (hashes, theta) = self.0.compact();
        CompactThetaSketch { hashes, theta }
    }
}

/// A set of ids in compact form, which can be counted, merged and serialized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactThetaSketch {
    /// At most [`RETAINED_MAX`] hashes in ascending order, greater than 0 and less than theta.
    hashes: Vec<u64>,
    theta: u64,
}

impl CompactThetaSketch {
    /// Returns the empty set.
    pub const fn empty() -> Self {
        Self { hashes: Vec::new(), theta: THETA_MAX }
    }

    fn is_empty(&self) -> bool {
        self.hashes.is_empty() && self.theta == THETA_MAX
    }

    /// Creates a sketch from the hashes that a set operation has computed.
    ///
    /// # Panics
    ///
    /// Panics if a hash is not below theta. The caller passes the hashes in ascending order.
    #[cfg(not(target_family = "wasm"))]
    pub fn from_hashes(hashes: Vec<u64>, theta: u64) -> Self {
        assert!(hashes.last().is_none_or(|last| *last < theta), "a hash is not below theta");
        Self { hashes, theta }
    }

    /// Returns the retained hashes, in ascending order.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// Returns theta. All retained hashes are smaller than theta.
    ///
    /// An exact sketch has the largest possible theta.
    pub fn theta(&self) -> u64 {
        self.theta
    }

    /// Returns the number of ids: exact up to 16,384, an estimate beyond.
    pub fn count(&self) -> u64 {
        let kept = self.hashes.len() as f64;
        (kept / (self.theta as f64 / THETA_MAX as f64) + 0.5) as u64
    }

    /// Returns whether real ids can have produced this sketch.
    ///
    /// A forged sketch would falsify every union that contains it.
    ///
    /// A sketch whose count is an estimate retains exactly 16,384 hashes. Hashes of real ids are evenly distributed
    /// below theta. The Kolmogorov-Smirnov test measures how far the sketch's hashes deviate from an even distribution.
    pub fn is_plausible(&self) -> bool {
        let kept = self.hashes.len();
        if self.theta < THETA_MIN || (self.theta < THETA_MAX && kept != RETAINED_MAX) {
            return false;
        }
        let (kept, theta) = (kept as f64, self.theta as f64);
        let mut least = 0.0_f64;
        let mut most = 0.0_f64;
        for (rank, hash) in self.hashes.iter().enumerate() {
            let distance = rank as f64 - *hash as f64 / theta * kept;
            least = least.min(distance);
            most = most.max(distance + 1.0);
        }
        let distance = most.max(-least);
        distance * distance <= UNEVENNESS_MAX * kept
    }

    /// Returns whether the union with `other` equals this sketch.
    pub(crate) fn holds_all(&self, other: &Self) -> bool {
        let below = other.hashes_below(self.theta);
        // The processor would often mispredict a branch per hash, so this loop has no branch. The loop relies on the
        // ascending order of both sides.
        let mut held = 0;
        for_each(self.hashes.iter(), |hash| held += usize::from(below.get(held) == Some(hash)));
        self.theta <= other.theta && held == below.len()
    }

    /// Returns the union of both sets.
    pub fn union(&self, other: &Self) -> Self {
        let mut theta = self.theta.min(other.theta);
        let (mut left, mut right) = (self.hashes_below(theta), other.hashes_below(theta));
        let mut hashes = vec![0; left.len() + right.len()];
        let mut len = 0;
        // Neither side can end within this many steps.
        while let certain @ 1.. = left.len().min(right.len()) {
            let (mut next_left, mut next_right) = (0, 0);
            for_each(hashes[len..len + certain].iter_mut(), |next| {
                let (first_left, first_right) = (left[next_left], right[next_right]);
                *next = first_left.min(first_right);
                next_left += usize::from(first_left <= first_right);
                next_right += usize::from(first_right <= first_left);
            });
            (left, right) = (&left[next_left..], &right[next_right..]);
            len += certain;
        }
        hashes.truncate(len);
        hashes.extend_from_slice(left);
        hashes.extend_from_slice(right);
        theta = shrink(&mut hashes, theta);
        Self { hashes, theta }
    }

    /// Returns whether the sketch retains the hashes of all its ids.
    pub fn is_exact(&self) -> bool {
        self.theta == THETA_MAX
    }

    /// Returns the retained hashes below a theta.
    pub fn hashes_below(&self, theta: u64) -> &[u64] {
        &self.hashes[..self.hashes.partition_point(|hash| *hash < theta)]
    }
}

/// Calls `act` for each item, eight items per loop iteration.
///
/// Compiled WebAssembly checks its deadline at every loop iteration, and that takes longer than `act`.
#[inline(always)]
fn for_each<I: Iterator>(mut items: I, mut act: impl FnMut(I::Item)) {
    let mut step = || items.next().map(&mut act).is_some();
    while step() && step() && step() && step() && step() && step() && step() && step() {}
}

/// Drops all hashes beyond [`RETAINED_MAX`] and returns the new theta. The hashes are in ascending order.
fn shrink(hashes: &mut Vec<u64>, theta: u64) -> u64 {
    let Some(first_dropped) = hashes.get(RETAINED_MAX).copied() else { return theta };
    hashes.truncate(RETAINED_MAX);
    first_dropped
}

#[cfg(test)]
mod tests {
    use datasketches::hash::value::raw_bytes;
    use datasketches::theta::{CompactThetaSketch as LibrarySketch, ThetaSketchBuilder, ThetaUnionBuilder};

    use super::*;

    const KEY: HashingKey = HashingKey(1, 2);

    pub(super) fn sketch_of(ids: impl IntoIterator<Item = u128>) -> CompactThetaSketch {
        let mut set = ThetaSketch::new();
        ids.into_iter().for_each(|id| set.insert(KEY, id));
        set.compact()
    }

    /// Makes the same sketch with the `datasketches` crate.
    fn library_sketch_of(ids: impl IntoIterator<Item = u128>) -> LibrarySketch {
        let mut sketch = ThetaSketchBuilder::default().lg_k(14).build().unwrap();
        ids.into_iter().for_each(|id| sketch.update(raw_bytes::from_slice(&KEY.pseudonym(id))));
        sketch.trim();
        sketch.compact(true)
    }

    #[test]
    fn d1_a_sketch_is_byte_by_byte_that_of_the_library() {
        for ids in [0..0, 0..1, 5..7, 0..100, 0..16_384, 0..16_385, 9..24_577, 0..24_578, 0..50_000, 1..1_000_000] {
            let sketch = sketch_of(ids.clone());
            let library = library_sketch_of(ids.clone());
            assert_eq!(sketch.to_bytes(), library.serialize(), "{ids:?}");
            assert_eq!(sketch.count(), library.estimate().round() as u64, "{ids:?}");
        }
    }

    #[test]
    fn d1_a_union_is_byte_by_byte_that_of_the_library() {
        let ranges = [0..0, 0..1, 0..100, 50..20_000, 0..16_384, 8_192..24_576, 16_384..32_768, 40_000..400_000];
        let sketches = ranges.map(|ids| (ids.clone(), sketch_of(ids.clone()), library_sketch_of(ids)));
        for (one_range, one, one_of_library) in &sketches {
            for (other_range, other, other_of_library) in &sketches {
                let union = one.union(other);
                let mut library = ThetaUnionBuilder::default().lg_k(14).build().unwrap();
                library.update(one_of_library).unwrap();
                library.update(other_of_library).unwrap();
                let library = library.to_sketch(true);
                assert_eq!(union.to_bytes(), library.serialize(), "{one_range:?} and {other_range:?}");
                assert_eq!(union.count(), library.estimate().round() as u64, "{one_range:?} and {other_range:?}");
                assert_eq!(one.holds_all(other), union == *one, "{one_range:?} and {other_range:?}");
            }
        }
    }

    #[test]
    fn counts_exactly_up_to_16_384_ids() {
        assert_eq!(CompactThetaSketch::empty().count(), 0);
        assert_eq!(sketch_of((1..=16_384).chain(1..=16_384)).count(), 16_384);
    }

    #[test]
    fn estimates_beyond_16_384_ids_within_four_standard_errors() {
        let count = sketch_of(1..=1_000_000).count() as f64;
        assert!((count / 1e6 - 1.0).abs() < 4.0 * 0.0078, "estimated {count}");
    }

    #[test]
    fn a_union_counts_a_shared_id_once() {
        assert_eq!(sketch_of(1..=1_000).union(&sketch_of(501..=1_500)).count(), 1_500);
        assert_eq!(sketch_of(1..=8_192).union(&sketch_of(8_193..=16_384)).count(), 16_384);
    }

    #[test]
    fn a_union_does_not_depend_on_the_order_of_ids_and_sketches() {
        let all = sketch_of(0..60_000);
        let parts = [0..20_000, 10_000..40_000, 30_000..60_000].map(sketch_of);
        assert_eq!(parts[0].union(&parts[1]).union(&parts[2]), all);
        assert_eq!(parts[2].union(&parts[1].union(&parts[0])), all);
        assert_eq!(sketch_of((0..60_000).rev().chain(0..60_000)), all);
        assert_eq!(all.union(&parts[1]), all);
    }

    #[test]
    fn sketches_of_ids_and_their_unions_are_plausible() {
        for ids in [0..0, 0..1, 0..2, 5..40, 0..16_384, 0..16_385, 0..50_000, 1..1_000_000] {
            let sketch = sketch_of(ids.clone());
            assert!(sketch.is_plausible(), "{ids:?}");
            assert!(sketch.union(&sketch_of(0..30_000)).is_plausible(), "{ids:?}");
        }
    }

    #[test]
    fn forged_sketches_are_implausible() {
        let full = || 1..=RETAINED_MAX as u64;
        let step = THETA_MAX / (RETAINED_MAX as u64 + 1);
        let forged = [
            ("no hash and the least theta", vec![], 1),
            ("one hash below the least theta", vec![1], 2),
            ("no hash, and a theta of dropped hashes", vec![], THETA_MAX - 1),
            ("one hash, and a theta of dropped hashes", vec![THETA_MAX / 4], THETA_MAX / 2),
            ("one hash too few", full().skip(1).map(|hash| hash * step).collect(), THETA_MAX - 1),
            ("the least hashes, and the least theta above them", full().collect(), RETAINED_MAX as u64 + 1),
            ("the least hashes, and nothing dropped", full().collect(), THETA_MAX),
            ("a hundred of the least hashes", (1..=100).collect(), THETA_MAX),
            ("only great hashes", full().map(|hash| THETA_MAX / 2 + hash * (step / 2)).collect(), THETA_MAX),
            ("theta of more ids than there are", full().map(|hash| hash * 4).collect(), RETAINED_MAX as u64 * 4 + 4),
        ];
        for (what, hashes, theta) in forged {
            let sketch = CompactThetaSketch { hashes, theta };
            let read = CompactThetaSketch::from_bytes(&sketch.to_bytes()).expect(what);
            assert!(!read.is_plausible(), "{what}, which counts {}", read.count());
        }
        let even = CompactThetaSketch { hashes: full().map(|hash| hash * step).collect(), theta: THETA_MAX };
        assert!(even.is_plausible(), "evenly spread hashes");
    }

    #[test]
    fn the_smallest_theta_of_real_ids_is_plausible() {
        let step = THETA_MIN / (RETAINED_MAX as u64 + 1);
        let hashes = (1..=RETAINED_MAX as u64).map(|hash| hash * step).collect();
        assert!(CompactThetaSketch { hashes, theta: THETA_MIN }.is_plausible());
    }

    #[test]
    fn at_most_sixty_of_a_hundred_hashes_may_be_the_smallest() {
        // The limit is six standard deviations, which is sixty ranks for a hundred hashes.
        for (least, expected) in [(60, true), (61, false)] {
            let hashes = (0..100).map(|rank| if rank < least { rank + 1 } else { THETA_MAX / 100 * rank });
            let sketch = CompactThetaSketch { hashes: hashes.collect(), theta: THETA_MAX };
            assert_eq!(sketch.is_plausible(), expected, "{least} of the least hashes");
        }
    }

    #[test]
    fn a_sketch_holds_another_one_whose_only_hash_it_has_dropped() {
        let estimating = sketch_of(0..20_000);
        let dropped = CompactThetaSketch { hashes: vec![estimating.theta], theta: THETA_MAX };
        assert_eq!(estimating.union(&dropped), estimating);
        assert!(estimating.holds_all(&dropped));
    }

    #[test]
    fn the_estimate_of_an_extreme_theta_fits_into_a_bigint() {
        for (hashes, theta) in [(vec![], 1), (vec![1], 2), ((1..=16_384).collect(), 16_385), (vec![], THETA_MAX - 1)] {
            let count = CompactThetaSketch { hashes, theta }.count();
            assert!(count <= i64::MAX as u64, "theta {theta} counts {count}");
        }
    }

    #[test]
    fn a_sketch_depends_on_the_key() {
        let mut other = ThetaSketch::new();
        other.insert(HashingKey(3, 4), 1);
        assert_ne!(sketch_of([1]).to_bytes(), other.compact().to_bytes());
        assert_eq!(format!("{KEY:?}"), "HashingKey(..)");
    }
}
