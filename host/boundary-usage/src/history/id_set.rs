//! Sets of ids as Theta sketches: union, intersection, difference, and counts with bounds.
//!
//! The [set operations of DataSketches] first reduce both sketches to the smaller theta. Below that theta, both
//! sketches have the hashes of all their ids, so the operations are those of plain sets. The results are the same as
//! those of the `datasketches` crate, which the tests compare. Here, each operation is one pass over two ordered lists.
//! The crate's operations take three to ten times as long, and a report of three years performs twenty thousand of
//! them. The tracker's code computes the unions.
//!
//! The crate computes the estimates and their bounds.
//!
//! [set operations of DataSketches]: https://datasketches.apache.org/docs/Theta/ThetaSketchSetOps.html

use boundary_usage_tracker::{CompactThetaSketch, SketchError};
use datasketches::common::NumStdDev;
use datasketches::theta::CompactThetaSketch as LibrarySketch;

/// A set of ids.
#[derive(Clone, Debug)]
pub(super) struct IdSet(CompactThetaSketch);

/// The ids of two sets: those in both sets, and those in only one of them.
pub(super) struct Compared {
    pub(super) only_first: IdSet,
    pub(super) both: IdSet,
    pub(super) only_second: IdSet,
}

/// The number of ids of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) estimate: u64,
    /// The lower bound of the 95 % confidence interval.
    pub(super) low: u64,
    /// The upper bound of the 95 % confidence interval.
    pub(super) high: u64,
    /// Whether the number is exact, so that both bounds are equal to it.
    pub(super) is_exact: bool,
}

impl IdSet {
    /// Returns the empty set.
    pub(super) fn empty() -> Self {
        Self(CompactThetaSketch::empty())
    }

    /// Reads a stored sketch and validates all of it.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        CompactThetaSketch::from_bytes(bytes).map(Self)
    }

    /// Returns the ids of both sets.
    pub(super) fn union(&self, other: &Self) -> Self {
        // Empty sets are frequent, because many days have no activity and each window starts with an empty set.
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            (false, false) => Self(self.0.union(&other.0)),
        }
    }

    /// Returns the ids that are not in the other set.
    pub(super) fn without(&self, other: &Self) -> Self {
        self.compare(other).only_first
    }

    /// Returns the ids that are in both sets.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.compare(other).both
    }

    /// Determines which ids are in both sets, and which are in only one of them.
    pub(super) fn compare(&self, other: &Self) -> Compared {
        // The empty set is exact, so the result keeps the theta of the other set.
        if self.is_empty() || other.is_empty() {
            let (only_first, only_second) = (self.clone(), other.clone());
            return Compared { only_first, both: Self::empty(), only_second };
        }
        let theta = self.0.theta().min(other.0.theta());
        let (first, second) = (self.0.hashes_below(theta), other.0.hashes_below(theta));
        let (mut only_first, mut both, mut only_second) =
            (vec![0; first.len()], vec![0; first.len().min(second.len())], vec![0; second.len()]);
        let [mut in_first, mut in_both, mut in_second] = [0; 3];
        let (mut at_first, mut at_second) = (0, 0);
        // The processor would often mispredict a branch on hashes. So each step writes to all three lists, and advances
        // one.
        while let (Some(&left), Some(&right)) = (first.get(at_first), second.get(at_second)) {
            only_first[in_first] = left;
            only_second[in_second] = right;
            if let Some(place) = both.get_mut(in_both) {
                *place = left;
            }
            in_first += usize::from(left < right);
            in_both += usize::from(left == right);
            in_second += usize::from(right < left);
            at_first += usize::from(left <= right);
            at_second += usize::from(right <= left);
        }
        only_first.truncate(in_first);
        only_first.extend_from_slice(&first[at_first..]);
        only_second.truncate(in_second);
        only_second.extend_from_slice(&second[at_second..]);
        both.truncate(in_both);
        let [only_first, both, only_second] =
            [only_first, both, only_second].map(|hashes| Self(CompactThetaSketch::from_hashes(hashes, theta)));
        Compared { only_first, both, only_second }
    }

    fn is_empty(&self) -> bool {
        self.0.is_exact() && self.0.hashes().is_empty()
    }

    /// Returns the number of ids.
    pub(super) fn count(&self) -> Count {
        if self.0.is_exact() {
            let number = self.0.hashes().len() as u64;
            return Count { estimate: number, low: number, high: number, is_exact: true };
        }
        let library = LibrarySketch::deserialize(&self.0.to_bytes()).expect("the tracker writes the crate's form");
        let estimate = library.estimate().round() as u64;
        let low = library.lower_bound(NumStdDev::Two).floor() as u64;
        let high = library.upper_bound(NumStdDev::Two).ceil() as u64;
        Count { estimate, low: low.min(estimate), high: high.max(estimate), is_exact: false }
    }

    #[cfg(test)]
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }
}
