//! Numbers that are exact, or estimates with bounds.

use serde::Serialize;

use super::id_set::Count;

/// Numbers of one kind of id: exact, or estimates with their 95 % confidence intervals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Estimated<T> {
    /// The numbers: exact, or estimates.
    #[serde(flatten)]
    pub counts: T,
    /// Whether all numbers are exact.
    ///
    /// Numbers are exact if every sketch behind them has at most 16,384 ids.
    pub exact: bool,
    /// The lower bounds of the 95 % confidence intervals. `None` if the numbers are exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<T>,
    /// The upper bounds of the 95 % confidence intervals. `None` if the numbers are exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<T>,
}

impl<T> Estimated<T> {
    /// Creates the numbers from their counts.
    ///
    /// `numbers` receives a function that selects a value of each count: the number, or one of its bounds.
    pub(super) fn new(all: impl IntoIterator<Item = Count>, numbers: impl Fn(fn(Count) -> u64) -> T) -> Self {
        let exact = all.into_iter().all(|count| count.is_exact);
        let bounds = |value| (!exact).then(|| numbers(value));
        Self {
            counts: numbers(|count| count.estimate),
            exact,
            low: bounds(|count| count.low),
            high: bounds(|count| count.high),
        }
    }
}
