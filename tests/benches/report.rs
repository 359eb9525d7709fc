//! The report: prints the figures, writes `report.json`, and compares the figures with their goals.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::inputs::Input;
use crate::picture;
use crate::rivals::Golang;

/// The nanoseconds per activity of each contender for one input and number of threads.
///
/// The time is from the first call until the component, or the sets, contain all activity.
#[derive(Clone, Copy)]
pub(crate) struct Contest {
    pub(crate) input: Input,
    pub(crate) threads: u64,
    pub(crate) ours: f64,
    pub(crate) native: f64,
    pub(crate) go: Option<f64>,
}

/// The limit that a figure should keep.
#[derive(Clone, Copy)]
enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {limit}"),
            Self::AtLeast(limit) => format!("at least {limit}"),
        }
    }
}

const GOALS: [(&str, Goal); 19] = [
    ("whole_path_2_threads_over_native", Goal::AtMost(0.5)),
    ("whole_path_2_threads_over_go", Goal::AtMost(0.5)),
    ("whole_path_2_threads_over_1", Goal::AtMost(1.0)),
    ("caller_ns_median", Goal::AtMost(30.0)),
    ("component_memory_10m_ids_bytes", Goal::AtMost((4 << 20) as f64)),
    ("flush_over_sql_sqlite", Goal::AtMost(1.5)),
    ("flush_ms_postgres", Goal::AtMost(2.0)),
    ("round_trips_postgres", Goal::AtMost(6.0)),
    ("shared_over_exclusive_lock_200_replicas", Goal::AtLeast(1.5)),
    ("collect_10000_full_sketches_s", Goal::AtMost(10.0)),
    ("collect_with_history_over_without", Goal::AtMost(1.1)),
    ("report_3_years_full_s", Goal::AtMost(2.0)),
    ("report_3_years_full_growth_bytes", Goal::AtMost((64 << 20) as f64)),
    ("track_from_c_ns", Goal::AtMost(60.0)),
    ("nginx_requests_with_over_without", Goal::AtLeast(0.97)),
    ("start_to_first_track_ms", Goal::AtMost(20.0)),
    ("instantiate_us", Goal::AtMost(100.0)),
    ("idle_tracker_bytes", Goal::AtMost((1 << 20) as f64)),
    ("component_bytes", Goal::AtMost((64 << 10) as f64)),
];

/// The figures that `headline` in `report.json` lists besides those with a goal.
const OTHER_HEADLINES: [&str; 2] = ["caller_ns_p999", "flush_ms_sqlite"];

pub(crate) struct Report {
    contests: Vec<Contest>,
    figures: BTreeMap<String, f64>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { contests: Vec::new(), figures: BTreeMap::new() }
    }

    pub(crate) fn contest(&mut self, contest: Contest) {
        let Contest { input, threads, ours, native, go } = contest;
        let go = go.map(|go| format!(", Go {go:.1} ns ({:.2}×)", ours / go)).unwrap_or_default();
        println!(
            "{:<12} {threads} threads: ours {ours:.1} ns, native {native:.1} ns ({:.2}×){go}",
            input.name(),
            ours / native
        );
        self.contests.push(contest);
    }

    pub(crate) fn figure(&mut self, name: &str, unit: &str, value: f64) {
        println!("{name:<48} {value:>14.2} {unit}");
        self.figures.insert(name.into(), value);
    }

    /// Prints which goals are met, and writes the report and the picture.
    pub(crate) fn finish(mut self, directory: &Path) -> Result<()> {
        self.headline();
        println!();
        for (name, goal) in GOALS {
            match self.figures.get(name) {
                Some(value) if goal.is_met(*value) => println!("met     {name}: {value:.2} ({})", goal.text()),
                Some(value) => println!("MISSED  {name}: {value:.2} ({})", goal.text()),
                None => println!("not measured  {name}"),
            }
        }
        let path = directory.join("report.json");
        std::fs::write(&path, serde_json::to_string_pretty(&self.json(directory))? + "\n")?;
        draw(&self.contests)?;
        println!("\nwrote {} and docs/benchmark.svg", path.display());
        Ok(())
    }

    /// Adds the ratios that have goals. They use the hot input, which is typical for a proxy.
    fn headline(&mut self) {
        let hot =
            |threads| self.contests.iter().find(|contest| contest.input == Input::Hot && contest.threads == threads);
        let (Some(one), Some(two)) = (hot(1).copied(), hot(2).copied()) else { return };
        self.figures.insert("whole_path_2_threads_over_native".into(), two.ours / two.native);
        self.figures.insert("whole_path_2_threads_over_1".into(), two.ours / one.ours);
        if let Some(go) = two.go {
            self.figures.insert("whole_path_2_threads_over_go".into(), two.ours / go);
        }
    }

    fn json(&self, directory: &Path) -> Value {
        let contests = self.contests.iter().map(|contest| {
            let Contest { input, threads, ours, native, go } = contest;
            json!({
                "input": input.name(),
                "threads": threads,
                "ours_ns_per_activity": ours,
                "native_ns_per_activity": native,
                "go_ns_per_activity": go,
                "ours_over_native": ours / native,
                "ours_over_go": go.map(|go| ours / go),
            })
        });
        let names = GOALS.iter().map(|(name, _)| *name).chain(OTHER_HEADLINES);
        let headline: BTreeMap<_, _> = names.map(|name| (name, self.figures.get(name))).collect();
        json!({
            "headline": headline,
            "goals": GOALS.iter().map(|(name, goal)| (*name, goal.text())).collect::<BTreeMap<_, _>>(),
            "machine": machine(),
            "go": Golang::version(),
            "release_binary_bytes": crate::release_binary_bytes(directory),
            "throughput": contests.collect::<Vec<_>>(),
            "figures": self.figures,
        })
    }
}

/// Draws the picture of the last report again, after a change to its style.
pub(crate) fn draw_again(directory: &Path) -> Result<()> {
    let report: Value = serde_json::from_slice(&std::fs::read(directory.join("report.json"))?)?;
    let contests = report["throughput"].as_array().into_iter().flatten().map(|contest| {
        let number = |name: &str| contest[name].as_f64();
        Some(Contest {
            input: Input::ALL.into_iter().find(|input| contest["input"] == input.name())?,
            threads: contest["threads"].as_u64()?,
            ours: number("ours_ns_per_activity")?,
            native: number("native_ns_per_activity")?,
            go: number("go_ns_per_activity"),
        })
    });
    draw(&contests.collect::<Option<Vec<_>>>().context("the report has another format")?)
}

fn draw(contests: &[Contest]) -> Result<()> {
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("benchmark.svg");
    std::fs::write(&picture, picture::render(contests, &machine()))
        .with_context(|| format!("cannot write {}", picture.display()))
}

/// Returns the number of processors, their model, and the compiler.
fn machine() -> String {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let compiler = Command::new("rustc").arg("--version").output();
    let compiler = compiler.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!("{count} × {model}, {compiler}")
}
