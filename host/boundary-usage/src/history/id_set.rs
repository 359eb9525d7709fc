//! Sets of ids as Theta sketches: union, intersection, difference, and counts with bounds.
//!
//! The `datasketches` crate computes differences, intersections and bounds. Unions are those of the tracker: they merge
//! ordered sketches in one pass, which takes a tenth of the crate's time, and their result is byte by byte the same. A
//! report has thousands of unions. Each set therefore has up to two forms, and converts between them if it must.

use std::cell::OnceCell;

use boundary_usage_tracker::{CompactThetaSketch as TrackerSketch, SketchError};
use datasketches::common::NumStdDev;
use datasketches::theta::{CompactThetaSketch as LibrarySketch, ThetaANotB};

/// A set of ids.
#[derive(Clone, Debug)]
pub(super) struct IdSet {
    /// At least one of both forms is present.
    tracker: OnceCell<TrackerSketch>,
    library: OnceCell<LibrarySketch>,
}

/// The number of ids of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) estimate: u64,
    /// The lower bound of the 95 % confidence interval.
    pub(super) low: u64,
    /// The upper bound of the 95 % confidence interval.
    pub(super) high: u64,
    /// Whether the number is exact. The bounds are equal to it then.
    pub(super) is_exact: bool,
}

impl IdSet {
    /// Returns the empty set.
    pub(super) fn empty() -> Self {
        TrackerSketch::empty().into()
    }

    /// Reads a stored sketch and validates all of it.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        TrackerSketch::from_bytes(bytes).map(Self::from)
    }

    /// Returns the ids of both sets.
    pub(super) fn union(&self, other: &Self) -> Self {
        self.tracker().union(other.tracker()).into()
    }

    /// Returns the ids that are not in the other set.
    pub(super) fn without(&self, other: &Self) -> Self {
        let difference = ThetaANotB::default().compute(self.library(), other.library(), true);
        difference.expect("both sketches have the default seed").into()
    }

    /// Returns the ids that are in both sets.
    ///
    /// It is computed from differences, which merge ordered sketches. The crate's intersection builds hash tables.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.without(&self.without(other))
    }

    /// Returns the number of ids.
    pub(super) fn count(&self) -> Count {
        let library = self.library();
        let estimate = library.estimate().round() as u64;
        let is_exact = !library.is_estimation_mode();
        let (low, high) = match is_exact {
            true => (estimate, estimate),
            false => {
                (library.lower_bound(NumStdDev::Two).floor() as u64, library.upper_bound(NumStdDev::Two).ceil() as u64)
            }
        };
        Count { estimate, low: low.min(estimate), high: high.max(estimate), is_exact }
    }

    fn tracker(&self) -> &TrackerSketch {
        self.tracker.get_or_init(|| {
            let bytes = self.library.get().expect("one form is present").serialize();
            TrackerSketch::from_bytes(&bytes).expect("the crate writes the same form, in order")
        })
    }

    fn library(&self) -> &LibrarySketch {
        self.library.get_or_init(|| {
            let bytes = self.tracker.get().expect("one form is present").to_bytes();
            LibrarySketch::deserialize(&bytes).expect("the tracker writes the form of the crate")
        })
    }
}

impl From<TrackerSketch> for IdSet {
    fn from(sketch: TrackerSketch) -> Self {
        Self { tracker: sketch.into(), library: OnceCell::new() }
    }
}

impl From<LibrarySketch> for IdSet {
    fn from(sketch: LibrarySketch) -> Self {
        Self { tracker: OnceCell::new(), library: sketch.into() }
    }
}
