//! Bars of block characters.

/// The characters that fill one to eight eighths of a column.
const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

/// The levels of a vertical bar that is one character high.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Returns a bar of at most `columns` characters. A number greater than 0 has a visible bar.
pub(super) fn horizontal(number: u64, largest: u64, columns: usize) -> String {
    if number == 0 || largest == 0 {
        return String::new();
    }
    let share = number as f64 / largest as f64;
    let eighths = ((share * 8.0 * columns as f64).round() as usize).clamp(1, 8 * columns);
    let mut bar = "█".repeat(eighths / 8);
    if let Some(last) = (eighths % 8).checked_sub(1) {
        bar.push(EIGHTHS[last]);
    }
    bar
}

/// Returns one character for a share from 0 to 1. The share 0 is a space.
pub(super) fn level(share: f64) -> char {
    match (share * 8.0).ceil() as usize {
        0 => ' ',
        eighths => LEVELS[eighths.min(8) - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_has_the_whole_bar_and_a_small_one_is_visible() {
        assert_eq!(horizontal(10, 10, 4), "████");
        assert_eq!(horizontal(5, 10, 4), "██");
        assert_eq!(horizontal(1, 1_000_000, 4), "▏");
        assert_eq!((horizontal(0, 10, 4), horizontal(0, 0, 4)), (String::new(), String::new()));
    }

    #[test]
    fn a_level_grows_with_the_share() {
        assert_eq!([0.0, 0.01, 0.5, 1.0].map(level), [' ', '▁', '▄', '█']);
    }
}
