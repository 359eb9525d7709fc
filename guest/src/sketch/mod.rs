//! The unique set: how many different ids, without keeping any of them.
//!
//! A set is a [Theta sketch] of Apache DataSketches with `lg_k = 14`: it keeps the 16,384 least of its ids' hashes, and theta, the
//! least of those that it does not keep. So it is exact up to 16,384 ids, beyond that an estimate with a relative standard
//! error of 1/√16,384 = 0.78 %, in bounded memory, and mergeable without loss of accuracy. An id enters as its keyed hash: in
//! its exact range a sketch holds a hash of every id, and without a key anyone who has a list of ids could test which of them
//! are in it.
//!
//! The sketches are our own, though there is a library: what it brings along (error texts, sorting, other forms) would be a
//! third of the component, and to merge sketches that are in order is a walk along both. The tests compare them with the
//! library's, byte by byte.
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

/// The most hashes that a sketch keeps, 2 to the power of `lg_k`; up to as many ids, its count is exact.
const RETAINED_MAX: usize = 1 << 14;

/// The theta of a sketch that has dropped nothing. All hashes are below.
const THETA_MAX: u64 = i64::MAX as u64;

/// The least theta that ids can lead to: that of about 2^40 of them, which no replica sees in a period.
const THETA_MIN: u64 = THETA_MAX >> 26;

/// How far the hashes of ids may be from evenly spread, as the square of standard deviations. Six of them: chance exceeds that
/// once in 10^31 sketches.
const UNEVENNESS_MAX: f64 = 36.0;

/// A set that ids are put into.
#[derive(Default)]
pub struct UniqueSet(Table);

impl UniqueSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an id in.
    pub fn insert(&mut self, key: HashingKey, id: u128) {
        self.0.insert(key.hash(id));
    }

    /// Whether no id was put in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Freezes what the set holds.
    pub fn freeze(self) -> UniqueSketch {
        let (hashes, theta) = self.0.freeze();
        UniqueSketch { hashes, theta }
    }
}

/// A frozen set: to be counted, merged, stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueSketch {
    /// At most [`RETAINED_MAX`], in ascending order, above 0 and below theta.
    hashes: Vec<u64>,
    theta: u64,
}

impl UniqueSketch {
    /// The set without ids.
    pub const fn empty() -> Self {
        Self { hashes: Vec::new(), theta: THETA_MAX }
    }

    fn is_empty(&self) -> bool {
        self.hashes.is_empty() && self.theta == THETA_MAX
    }

    /// How many ids: exact up to 16,384, an estimate beyond.
    pub fn count(&self) -> u64 {
        let kept = self.hashes.len() as f64;
        (kept / (self.theta as f64 / THETA_MAX as f64) + 0.5) as u64
    }

    /// Whether ids can have led to this sketch. A sketch that was made up would falsify every union that it enters.
    ///
    /// A sketch that has dropped hashes keeps exactly as many as it may. Hashes of ids are spread evenly below theta: that is
    /// judged by their largest distance from it (the test of Kolmogorov and Smirnov).
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

    /// Whether the union with another one is this one itself: it keeps every hash that the other one keeps below its theta.
    pub(crate) fn holds_all(&self, other: &Self) -> bool {
        let below = other.hashes_below(self.theta);
        // Without a branch on hashes, which no processor can predict. Both are in order: what is passed by does not come again.
        let mut held = 0;
        for_each(self.hashes.iter(), |hash| held += usize::from(below.get(held) == Some(hash)));
        self.theta <= other.theta && held == below.len()
    }

    /// The ids of both sets.
    pub fn union(&self, other: &Self) -> Self {
        let mut theta = self.theta.min(other.theta);
        let (mut left, mut right) = (self.hashes_below(theta), other.hashes_below(theta));
        let mut hashes = vec![0; left.len() + right.len()];
        let mut len = 0;
        // As many as that come before the end of either.
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

    fn hashes_below(&self, theta: u64) -> &[u64] {
        &self.hashes[..self.hashes.partition_point(|hash| *hash < theta)]
    }
}

/// Acts on each item, eight of them for each time that the loop goes back: there, compiled WebAssembly looks whether its time
/// is over, which takes longer than what is done with an item.
#[inline(always)]
fn for_each<I: Iterator>(mut items: I, mut act: impl FnMut(I::Item)) {
    let mut step = || items.next().map(&mut act).is_some();
    while step() && step() && step() && step() && step() && step() && step() && step() {}
}

/// Drops what is beyond what a sketch keeps of hashes in ascending order; answers theta then.
fn shrink(hashes: &mut Vec<u64>, theta: u64) -> u64 {
    let Some(first_dropped) = hashes.get(RETAINED_MAX).copied() else { return theta };
    hashes.truncate(RETAINED_MAX);
    first_dropped
}

#[cfg(test)]
mod tests {
    use datasketches::hash::value::raw_bytes;
    use datasketches::theta::{CompactThetaSketch, ThetaSketchBuilder, ThetaUnionBuilder};

    use super::*;

    const KEY: HashingKey = HashingKey(1, 2);

    pub(super) fn sketch_of(ids: impl IntoIterator<Item = u128>) -> UniqueSketch {
        let mut set = UniqueSet::new();
        ids.into_iter().for_each(|id| set.insert(KEY, id));
        set.freeze()
    }

    /// The same, made by the library.
    fn library_sketch_of(ids: impl IntoIterator<Item = u128>) -> CompactThetaSketch {
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
        for one in ranges.clone() {
            for other in ranges.clone() {
                let union = sketch_of(one.clone()).union(&sketch_of(other.clone()));
                let mut library = ThetaUnionBuilder::default().lg_k(14).build().unwrap();
                library.update(&library_sketch_of(one.clone())).unwrap();
                library.update(&library_sketch_of(other.clone())).unwrap();
                let library = library.to_sketch(true);
                assert_eq!(union.to_bytes(), library.serialize(), "{one:?} and {other:?}");
                assert_eq!(union.count(), library.estimate().round() as u64, "{one:?} and {other:?}");
                let held = sketch_of(one.clone()).holds_all(&sketch_of(other.clone()));
                assert_eq!(held, union == sketch_of(one.clone()), "{one:?} and {other:?}");
            }
        }
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
    fn a_union_is_the_sketch_of_all_ids_in_whatever_order_they_come() {
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
    fn sketches_that_no_ids_lead_to_are_implausible() {
        let full = || 1..=RETAINED_MAX as u64;
        let step = THETA_MAX / (RETAINED_MAX as u64 + 1);
        let made_up = [
            ("no hash and the least theta", vec![], 1),
            ("one hash below the least theta", vec![1], 2),
            ("no hash, and theta says that some were dropped", vec![], THETA_MAX - 1),
            ("one hash, and theta says that others were dropped", vec![THETA_MAX / 4], THETA_MAX / 2),
            ("one hash too few", full().skip(1).map(|hash| hash * step).collect(), THETA_MAX - 1),
            ("the least hashes, and the least theta above them", full().collect(), RETAINED_MAX as u64 + 1),
            ("the least hashes, and nothing dropped", full().collect(), THETA_MAX),
            ("a hundred of the least hashes", (1..=100).collect(), THETA_MAX),
            ("only great hashes", full().map(|hash| THETA_MAX / 2 + hash * (step / 2)).collect(), THETA_MAX),
            ("theta of more ids than there are", full().map(|hash| hash * 4).collect(), RETAINED_MAX as u64 * 4 + 4),
        ];
        for (what, hashes, theta) in made_up {
            let sketch = UniqueSketch { hashes, theta };
            let read = UniqueSketch::from_bytes(&sketch.to_bytes()).expect(what);
            assert!(!read.is_plausible(), "{what}, which counts {}", read.count());
        }
        let even = UniqueSketch { hashes: full().map(|hash| hash * step).collect(), theta: THETA_MAX };
        assert!(even.is_plausible(), "evenly spread hashes");
    }

    #[test]
    fn the_estimate_of_an_extreme_theta_is_a_number_that_the_database_holds() {
        for (hashes, theta) in [(vec![], 1), (vec![1], 2), ((1..=16_384).collect(), 16_385), (vec![], THETA_MAX - 1)] {
            let count = UniqueSketch { hashes, theta }.count();
            assert!(count <= i64::MAX as u64, "theta {theta} counts {count}");
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
