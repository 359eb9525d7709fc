//! The report: what is printed, what `report.json` holds, and whether the goals are met.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::inputs::Input;
use crate::picture;
use crate::rivals::Golang;

/// One input on so many threads: nanoseconds per activity of each contender, from the first call until the component, or
/// the sets, have all of it.
#[derive(Clone, Copy)]
pub(crate) struct Contest {
    pub(crate) input: Input,
    pub(crate) threads: u64,
    pub(crate) ours: f64,
    pub(crate) native: f64,
    pub(crate) go: Option<f64>,
}

/// A goal: the figure, and the most that it may be.
const GOALS: [(&str, f64); 15] = [
    ("whole_path_2_threads_over_native", 0.5),
    ("whole_path_2_threads_over_go", 0.5),
    ("whole_path_2_threads_over_1", 1.0),
    ("caller_ns_median", 30.0),
    ("component_memory_10m_ids_bytes", (4 << 20) as f64),
    ("flush_over_sql_sqlite", 1.15),
    ("flush_over_sql_postgres", 1.15),
    ("flush_of_new_ids_over_sql_sqlite", 1.15),
    ("flush_of_new_ids_over_sql_postgres", 1.15),
    ("collect_10000_full_sketches_s", 10.0),
    ("start_to_first_track_ms", 20.0),
    ("instantiate_us", 100.0),
    ("idle_tracker_bytes", (1 << 20) as f64),
    ("component_bytes", (64 << 10) as f64),
    ("round_trips_postgres", 2.0),
];

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

    /// Writes everything, and says which goals are met.
    pub(crate) fn finish(mut self, directory: &Path) -> Result<()> {
        self.headline();
        println!();
        for (name, most) in GOALS {
            match self.figures.get(name) {
                Some(value) if *value <= most => println!("met     {name}: {value:.2} (at most {most})"),
                Some(value) => println!("MISSED  {name}: {value:.2} (at most {most})"),
                None => println!("not measured  {name}"),
            }
        }
        let path = directory.join("report.json");
        std::fs::write(&path, serde_json::to_string_pretty(&self.json(directory))? + "\n")?;
        draw(&self.contests)?;
        println!("\nwrote {} and docs/benchmark.svg", path.display());
        Ok(())
    }

    /// The ratios that goals are set for: on the hot input, which is what a proxy sees.
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
        let headline: BTreeMap<_, _> = GOALS.iter().map(|(name, _)| (*name, self.figures.get(*name))).collect();
        json!({
            "headline": headline,
            "goals": GOALS.iter().copied().collect::<BTreeMap<_, _>>(),
            "machine": machine(),
            "go": Golang::version(),
            "release_binary_bytes": crate::release_binary_bytes(directory),
            "throughput": contests.collect::<Vec<_>>(),
            "figures": self.figures,
        })
    }
}

/// Draws the picture of the last report anew: for those who change how it looks.
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
    draw(&contests.collect::<Option<Vec<_>>>().context("the report is of another version")?)
}

fn draw(contests: &[Contest]) -> Result<()> {
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("benchmark.svg");
    std::fs::write(&picture, picture::render(contests, &machine()))
        .with_context(|| format!("cannot write {}", picture.display()))
}

/// The processor, how many of it, and the compiler.
fn machine() -> String {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let compiler = Command::new("rustc").arg("--version").output();
    let compiler = compiler.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!("{count} × {model}, {compiler}")
}
