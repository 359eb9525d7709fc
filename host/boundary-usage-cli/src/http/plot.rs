//! The geometry of the page's plots, as pure functions.
//!
//! The template draws the plots as SVG.
//!
//! The browser stretches a plot to the available width. Each period or window is 10 units wide, and y runs from 0 at
//! the top to 100 at the bottom. Text and circles would be distorted, so the scale and the legend are HTML.

use boundary_usage::Summary;

use super::format::{self, Digits};

/// The minimum number of slots.
///
/// A plot with fewer periods leaves slots on its left empty.
const SLOTS_MIN: usize = 16;

/// The minimum height of a bar, so that a number other than 0 is visible.
const HEIGHT_MIN: f64 = 0.8;

/// A plot of periods or windows.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// The meaning of the plot's two colours.
    pub(super) keys: [Key; 2],
    /// The number at the top of the scale, and the number at its middle.
    pub(super) top: Digits,
    pub(super) middle: Digits,
    pub(super) width: usize,
    pub(super) slots: Vec<Slot>,
    /// The texts below both ends of the plot.
    pub(super) first: String,
    pub(super) last: String,
}

/// The meaning of a colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// The name in the legend.
    pub(super) name: &'static str,
    /// The class of the colour.
    pub(super) tone: &'static str,
}

/// The bars of one period or window.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) title: String,
    pub(super) x: usize,
    pub(super) bars: [Bar; 2],
}

#[derive(Debug)]
pub(super) struct Bar {
    pub(super) tone: &'static str,
    pub(super) x: usize,
    pub(super) width: usize,
    pub(super) y: f64,
    pub(super) height: f64,
}

/// The two numbers of one period or window.
pub(super) struct Point {
    /// The time, for the title.
    pub(super) time: String,
    pub(super) numbers: [u64; 2],
}

/// The arrangement of the two bars of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrangement {
    Stacked,
    SideBySide,
}

/// Plots the requests and unique counts of periods, sorted from new to old.
pub(super) fn charts(periods: &[&Summary]) -> [Chart; 2] {
    let points = |numbers: fn(&Summary) -> [u64; 2]| {
        let point = |summary: &&Summary| {
            let (from, to) = (format::short_timestamp(summary.period_start), format::short_timestamp(summary.end()));
            Point { time: format!("{from} to {to}"), numbers: numbers(summary) }
        };
        periods.iter().map(point).collect::<Vec<_>>()
    };
    let requests = points(|summary| [summary.allowed_requests, summary.denied_requests]);
    let uniques = points(|summary| [summary.unique_workspaces, summary.unique_users]);
    let keys = |names: [&'static str; 2]| names.map(|name| Key { name, tone: name });
    let ends = [periods.last().map(|oldest| oldest.period_start), periods.first().map(|newest| newest.end())];
    let ends = ends.map(|end| end.map(format::short_timestamp).unwrap_or_default());
    [
        chart("Requests", keys(["allowed", "denied"]), &requests, Arrangement::Stacked, ends.clone()),
        chart("Uniques", keys(["workspaces", "users"]), &uniques, Arrangement::SideBySide, ends),
    ]
}

/// Plots points, sorted from new to old. `ends` are the texts below both ends of the plot.
pub(super) fn chart(
    title: &'static str,
    keys: [Key; 2],
    points: &[Point],
    arrangement: Arrangement,
    ends: [String; 2],
) -> Chart {
    let reach = |[first, second]: [u64; 2]| match arrangement {
        Arrangement::Stacked => first.saturating_add(second),
        Arrangement::SideBySide => first.max(second),
    };
    let top = round_up(points.iter().map(|point| reach(point.numbers)).max().unwrap_or_default());
    let slots = points.len().max(SLOTS_MIN);
    let height = |number: u64| if number == 0 { 0.0 } else { (number as f64 / top as f64 * 100.0).max(HEIGHT_MIN) };
    let tones = keys.map(|key| key.tone);
    let slot = |(place, point): (usize, &Point)| {
        let [first, second] = point.numbers;
        // The newest point comes first and is at the right end.
        let x = (slots - 1 - place) * 10;
        let bars = match arrangement {
            Arrangement::Stacked => {
                let under = height(first);
                [bar(tones[0], x + 1, 8, 0.0, under), bar(tones[1], x + 1, 8, under, height(second))]
            }
            Arrangement::SideBySide => {
                [bar(tones[0], x + 1, 4, 0.0, height(first)), bar(tones[1], x + 5, 4, 0.0, height(second))]
            }
        };
        let (first, second) = (format::count(first), format::count(second));
        let [first_name, second_name] = keys.map(|key| key.name);
        Slot { title: format!("{}: {first} {first_name}, {second} {second_name}", point.time), x, bars }
    };
    let places = points.iter().enumerate().map(slot).collect();
    let (top, middle) = (Digits(top), Digits(top / 2));
    let [first, last] = ends;
    Chart { title, keys, top, middle, width: slots * 10, slots: places, first, last }
}

/// Returns a bar of the given height, which begins at the height `bottom`.
fn bar(tone: &'static str, x: usize, width: usize, bottom: f64, height: f64) -> Bar {
    let rounded = |number: f64| (number * 100.0).round() / 100.0;
    Bar { tone, x, width, y: rounded((100.0 - bottom - height).max(0.0)), height: rounded(height) }
}

/// Rounds up to 2, 4, 6, 8 or 10 times a power of ten.
///
/// Half of the result is then a round number, too.
fn round_up(number: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        for factor in [2, 4, 6, 8, 10] {
            match power.checked_mul(factor) {
                Some(end) if end >= number => return end,
                Some(_) => {}
                None => return number,
            }
        }
        let Some(next) = power.checked_mul(10) else { return number };
        power = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(allowed: u64, denied: u64, workspaces: u64, users: u64) -> Summary {
        Summary {
            allowed_requests: allowed,
            denied_requests: denied,
            unique_workspaces: workspaces,
            unique_users: users,
            period_duration_ms: 1_800_000,
            ..Summary::default()
        }
    }

    #[test]
    fn the_scale_ends_at_a_round_number_above_all_bars() {
        let ends = [0, 1, 2, 3, 9, 11, 40, 41, 99, 19_000].map(round_up);
        assert_eq!(ends, [2, 2, 2, 4, 10, 20, 40, 60, 100, 20_000]);
        assert!(round_up(u64::MAX) == u64::MAX && round_up(i64::MAX as u64) >= i64::MAX as u64);
    }

    #[test]
    fn bars_are_proportional_and_the_newest_is_at_the_right_end() {
        let (new, old) = (summary(150, 50, 4, 1), summary(0, 0, 0, 0));
        let [requests, uniques] = charts(&[&new, &old]);
        assert_eq!((requests.top, requests.middle, requests.width), (Digits(200), Digits(100), 160));
        let [allowed, denied] = &requests.slots[0].bars;
        assert_eq!(
            (requests.slots[0].x, allowed.y, allowed.height, denied.y, denied.height),
            (150, 25.0, 75.0, 0.0, 25.0)
        );
        assert_eq!(requests.slots[0].title, "1 Jan 00:00 to 1 Jan 00:30: 150 allowed, 50 denied");
        let [workspaces, users] = &uniques.slots[0].bars;
        assert_eq!((workspaces.height, users.height, workspaces.x, users.x), (100.0, 25.0, 151, 155));
        assert!(requests.slots[1].bars.iter().all(|bar| bar.height == 0.0) && requests.slots[1].x == 140);
    }

    #[test]
    fn a_small_number_is_still_visible() {
        let [requests, _] = charts(&[&summary(1_000_000, 1, 1, 1)]);
        assert!(requests.slots[0].bars[1].height >= HEIGHT_MIN);
    }
}
