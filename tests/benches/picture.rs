//! A picture of the main comparison for light and dark pages, with a panel per input and a bar per contender.

use std::fmt::Write;

use crate::report::Contest;

const WIDTH: f64 = 760.0;
const PANEL_TOP: f64 = 56.0;
const PANEL: f64 = 172.0;
const BAR: f64 = 13.0;
const LEFT: f64 = 86.0;
/// The length of the longest bar, which leaves space for its label.
const LONGEST: f64 = 420.0;

const STYLE: &str = "
  text { font: 12px system-ui, sans-serif; fill: #1b1f24 }
  .title { font-size: 15px; font-weight: 600 } .note { fill: #59636e; font-size: 11px }
  .ours { fill: #0a7f5a } .native { fill: #9a6700 } .go { fill: #4f7cac }
  .ground { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #9198a1 } .ground { fill: #0d1117 }
    .ours { fill: #3fb68b } .native { fill: #d4a72c } .go { fill: #79a7d8 }
  }";

/// Renders all contests as SVG. Contests of one input must be adjacent.
pub(crate) fn render(contests: &[Contest], machine: &str) -> String {
    let inputs = contests.chunk_by(|left, right| left.input == right.input);
    let height = PANEL_TOP + PANEL * inputs.clone().count() as f64 + 28.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Nanoseconds per activity\">\n<style>{STYLE}\n</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    text(&mut svg, 16.0, 26.0, "title", "Nanoseconds per activity, until all is counted (shorter is better)");
    for (panel, contests) in inputs.enumerate() {
        let top = PANEL_TOP + PANEL * panel as f64;
        text(&mut svg, 16.0, top, "title", description(contests[0].input));
        render_panel(&mut svg, contests, top + 10.0);
    }
    text(&mut svg, 16.0, height - 10.0, "note", &format!("made by `make bench` on {machine}"));
    svg + "</svg>\n"
}

fn description(input: crate::inputs::Input) -> &'static str {
    use crate::inputs::Input;
    match input {
        Input::Hot => "1,000 workspaces of 100 users",
        Input::Million => "1,000,000 workspaces and users, at random",
        Input::Adversarial => "every activity has ids of its own",
    }
}

fn render_panel(svg: &mut String, contests: &[Contest], top: f64) {
    let bars = |contest: &Contest| [("ours", Some(contest.ours)), ("native", Some(contest.native)), ("go", contest.go)];
    let values = contests.iter().flat_map(bars).filter_map(|(_, value)| value);
    let longest = values.fold(1.0, f64::max);
    for (row, contest) in contests.iter().enumerate() {
        let row_top = top + row as f64 * (3.0 * BAR + 10.0);
        let threads = format!("{} thread{}", contest.threads, if contest.threads == 1 { "" } else { "s" });
        text(svg, 16.0, row_top + 2.0 * BAR, "", &threads);
        for (bar, (class, value)) in bars(contest).into_iter().enumerate() {
            let Some(value) = value else { continue };
            let y = row_top + bar as f64 * BAR;
            let width = (value / longest * LONGEST).max(1.0);
            // Writing to a string does not fail.
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
                BAR - 2.0
            );
            let name = match class {
                "ours" => "the component, sandbox included",
                "native" => "the reference's algorithm in Rust",
                _ => "the reference's algorithm in Go",
            };
            let label = if row == 0 { format!("{value:.0}  {name}") } else { format!("{value:.0}") };
            text(svg, LEFT + width + 6.0, y + BAR - 3.5, "note", &label);
        }
    }
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    // Writing to a string does not fail.
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}
