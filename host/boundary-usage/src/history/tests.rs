//! Tests that compare sets and reports with plain sets of ids.

use std::collections::BTreeSet;

use boundary_usage_tracker::{HashingKey, ThetaSketch};
use chrono::{Days, NaiveDate};
use datasketches::theta::{CompactThetaSketch as LibrarySketch, ThetaANotB, ThetaIntersection, ThetaUnionBuilder};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::actives::Actives;
use super::cohorts::{AFTER_DAYS, Cohorts};
use super::id_set::{Count, IdSet};
use super::range::Windows;
use super::sliding::SlidingUnion;
use super::walk::Walk;
use super::window::{Window, WindowLength};

type Ids = BTreeSet<u128>;

fn set_of_key(key: HashingKey, ids: impl IntoIterator<Item = u128>) -> IdSet {
    let mut set = ThetaSketch::new();
    ids.into_iter().for_each(|id| set.insert(key, id));
    IdSet::from_bytes(&set.compact().to_bytes()).unwrap()
}

fn set(ids: &Ids) -> IdSet {
    set_of_key(HashingKey(1, 2), ids.iter().copied())
}

fn draw(random: &mut StdRng, size: usize, population: u128) -> Ids {
    (0..size).map(|_| random.random_range(0..population)).collect()
}

#[track_caller]
fn assert_exact(count: Count, expected: &Ids) {
    let number = expected.len() as u64;
    assert_eq!(count, Count { estimate: number, low: number, high: number, is_exact: true });
}

#[test]
fn h6_set_operations_are_exact_up_to_16_384_ids() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..200 {
        let sizes = [random.random_range(0..8_000), random.random_range(0..8_000)];
        let population = random.random_range(1..20_000);
        let [one, other] = sizes.map(|size| draw(&mut random, size, population));
        let (a, b) = (set(&one), set(&other));
        assert_exact(a.union(&b).count(), &one.union(&other).copied().collect());
        assert_exact(a.intersection(&b).count(), &one.intersection(&other).copied().collect());
        assert_exact(a.without(&b).count(), &one.difference(&other).copied().collect());
    }
}

#[test]
fn set_operations_are_byte_by_byte_those_of_the_library() {
    let mut random = StdRng::seed_from_u64(4);
    for _ in 0..300 {
        let sizes = [1, 100, 20_000, 60_000].map(|most| random.random_range(0..most));
        let [first, second] = [0; 2].map(|_| sizes[random.random_range(0..sizes.len())]);
        let population = random.random_range(1..100_000);
        let (a, b) = (draw(&mut random, first, population), draw(&mut random, second, population));
        let (a, b) = (set(&a), set(&b));
        let [first, second] = [&a, &b].map(|set| LibrarySketch::deserialize(&set.to_bytes()).unwrap());
        let difference = |a, b| ThetaANotB::default().compute(a, b, true).unwrap();
        let mut intersection = ThetaIntersection::default();
        let mut union = ThetaUnionBuilder::default().lg_k(14).build().unwrap();
        for set in [&first, &second] {
            intersection.update(set).unwrap();
            union.update(set).unwrap();
        }
        let compared = a.compare(&b);
        assert_eq!(compared.only_first.to_bytes(), difference(&first, &second).serialize());
        assert_eq!(compared.only_second.to_bytes(), difference(&second, &first).serialize());
        assert_eq!(compared.both.to_bytes(), intersection.to_sketch(true).unwrap().serialize());
        assert_eq!(a.union(&b).to_bytes(), union.to_sketch(true).serialize());
    }
}

#[test]
fn h6_estimates_are_within_their_95_percent_bounds_in_94_of_100_cases() {
    let mut random = StdRng::seed_from_u64(2);
    let mut within = [0; 3];
    const CASES: u64 = 1_000;
    for case in 0..CASES {
        // The two ranges of ids overlap. Each case has another key, and therefore other hashes.
        let [first, second] = [20_000, 60_000].map(|most| random.random_range(17_000..most));
        let shift = random.random_range(1_000..first - 1_000);
        let sketch = |ids: std::ops::Range<u128>| set_of_key(HashingKey(case, 7), ids);
        let (a, b) = (sketch(0..first), sketch(shift..shift + second));
        let last = first.min(shift + second);
        let results = [
            (a.union(&b).count(), first.max(shift + second)),
            (a.intersection(&b).count(), last - shift),
            (a.without(&b).count(), first - (last - shift)),
        ];
        for (within, (count, truth)) in within.iter_mut().zip(results) {
            assert!(!count.is_exact && count.low <= count.estimate && count.estimate <= count.high, "{count:?}");
            *within += u64::from((count.low..=count.high).contains(&(truth as u64)));
        }
    }
    assert!(within.iter().all(|within| *within * 100 >= CASES * 94), "{within:?} of {CASES}");
}

#[test]
fn a_sliding_union_holds_the_last_days_only() {
    let mut random = StdRng::seed_from_u64(3);
    for days in [1, 2, 7, 30] {
        let mut sliding = SlidingUnion::new(days);
        let mut all: Vec<Ids> = Vec::new();
        for _ in 0..100 {
            let size = random.random_range(0..5);
            all.push(draw(&mut random, size, 50));
            sliding.push(&set(all.last().unwrap()));
            assert_exact(sliding.union().count(), &all.iter().rev().take(days).flatten().copied().collect());
        }
    }
}

/// Random activity of some days, with gaps.
struct History {
    first: NaiveDate,
    days: Vec<Ids>,
}

impl History {
    fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let first = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap() + Days::new(random.random_range(0..60));
        let days = (0..random.random_range(1..130)).map(|_| {
            let size = if random.random_bool(0.3) { 0 } else { random.random_range(1..12) };
            draw(&mut random, size, 60)
        });
        Self { first, days: days.collect() }
    }

    fn date(&self, index: usize) -> NaiveDate {
        self.first + Days::new(index as u64)
    }

    fn windows(&self, length: WindowLength) -> Windows {
        let window = |date| length.window_of(date).unwrap();
        Windows { length, first: window(self.first), last: window(self.date(self.days.len() - 1)) }
    }

    fn between(&self, dates: std::ops::Range<NaiveDate>) -> Ids {
        let days = self.days.iter().enumerate().filter(|(index, _)| dates.contains(&self.date(*index)));
        days.flat_map(|(_, ids)| ids.iter().copied()).collect()
    }

    fn in_window(&self, window: Window) -> Ids {
        self.between(window.start..window.end)
    }

    fn before(&self, date: NaiveDate) -> Ids {
        self.between(NaiveDate::MIN..date)
    }

    fn walk<V: super::walk::Visitor>(&self, windows: Windows, visitor: V) -> V {
        let mut walk = Walk::new(windows.length, windows.first, visitor);
        for (index, ids) in self.days.iter().enumerate().filter(|(_, ids)| !ids.is_empty()) {
            // Each of the two databases contains a part of the day's ids.
            let (even, odd): (Ids, Ids) = ids.iter().partition(|id| **id % 2 == 0);
            walk.push(self.date(index), set(&even));
            walk.push(self.date(index), set(&odd));
        }
        walk.finish(windows.last)
    }
}

const LENGTHS: [WindowLength; 3] = [WindowLength::Day, WindowLength::Week, WindowLength::Month];

#[test]
fn h4_every_number_of_a_report_is_that_of_plain_sets() {
    for (seed, length) in (0..30).flat_map(|seed| LENGTHS.map(|length| (seed, length))) {
        let history = History::draw(seed);
        let windows = history.windows(length);
        let rows = history.walk(windows, Actives::new(length, windows.first, IdSet::empty())).into_rows();
        assert_eq!(rows.len(), windows.iter().count());
        let later = windows.iter().nth(rows.len() / 2).unwrap();
        let later_rows = history.walk(windows, Actives::new(length, later, IdSet::empty())).into_rows();
        assert_eq!(later_rows, rows[rows.len() / 2..], "the rows of a shorter range are the same");
        let mut previous = Ids::new();
        for (window, row) in windows.iter().zip(rows) {
            let (active, before) = (history.in_window(window), history.before(window.start));
            let new: Ids = active.difference(&before).copied().collect();
            let returning: Ids = active.intersection(&previous).copied().collect();
            assert_exact(row.active, &active);
            assert_exact(row.new, &new);
            assert_exact(row.returning, &returning);
            assert_exact(row.resurrected, &(&(&active - &new) - &returning));
            assert_exact(row.lost, &(&previous - &active));
            assert_eq!(row.rolling.is_some(), length == WindowLength::Day);
            for (days, count) in [7, 30].into_iter().zip(row.rolling.into_iter().flatten()) {
                assert_exact(count, &history.between(window.end - Days::new(days)..window.end));
            }
            previous = active;
        }
    }
}

#[test]
fn h5_every_number_of_the_retention_is_that_of_plain_sets() {
    for (seed, length) in (0..30).flat_map(|seed| LENGTHS.map(|length| (seed, length))) {
        let history = History::draw(seed);
        let windows = history.windows(length);
        let cohorts = history.walk(windows, Cohorts::new(windows.first, IdSet::empty())).into_cohorts();
        assert_eq!(cohorts.len(), windows.iter().count());
        for (window, cohort) in windows.iter().zip(cohorts) {
            let new = &history.in_window(window) - &history.before(window.start);
            let later: Vec<_> = windows.iter().filter(|later| *later >= window).collect();
            assert_eq!(cohort.active.len(), later.len());
            for (later, count) in later.into_iter().zip(&cohort.active) {
                assert_exact(*count, &(&new & &history.in_window(later)));
            }
            for (days, count) in AFTER_DAYS.iter().zip(&cohort.active_after) {
                let is_active = |id: &u128| {
                    let first_day = history.days.iter().position(|day| day.contains(id)).unwrap();
                    history.days.iter().skip(first_day + *days as usize).any(|day| day.contains(id))
                };
                assert_exact(*count, &new.iter().copied().filter(is_active).collect());
            }
        }
    }
}

#[test]
fn h5_a_time_has_come_when_it_has_come_for_the_last_day_of_the_cohort() {
    let history = History { first: NaiveDate::from_ymd_opt(2026, 1, 5).unwrap(), days: vec![Ids::from([1]); 7] };
    let windows = history.windows(WindowLength::Week);
    let cohorts = history.walk(windows, Cohorts::new(windows.first, IdSet::empty())).into_cohorts();
    // The week ends with 11 January.
    let has_come = |today: &str| cohorts[0].has_come(7, today.parse().unwrap());
    assert!(!has_come("2026-01-17") && has_come("2026-01-18"));
}
