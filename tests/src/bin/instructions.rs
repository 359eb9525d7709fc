//! Counts the instructions per activity with valgrind's callgrind.
//!
//! The counts include everything from `track` until the component has the activity.
//!
//! Times depend on the other load of a machine; instruction counts hardly do. A child process tracks activities, and
//! another child tracks twice as many. The difference of their counts excludes the cost of a start. Time is virtual, so
//! every run drains the intake after the same activities. The baseline is in `tests/instructions.json`; it is valid for
//! the same build settings only.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boundary_usage::{Clock, Database, Options};
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::plugin;
use clap::Parser;
use tokio::task::LocalSet;
use uuid::Uuid;

/// Counts instructions per activity, and compares the counts with a baseline.
///
/// Exits with 1 if a count is more than 10 % above its baseline.
#[derive(Parser)]
struct Arguments {
    /// Write the baseline instead of comparing with it.
    #[arg(long)]
    save: bool,
    /// Run as the child whose instructions are counted.
    #[arg(long, hide = true, num_args = 2, value_names = ["INPUT", "ACTIVITIES"])]
    child: Option<Vec<String>>,
}

/// The largest ratio of a count to its baseline.
const GROWTH_MAX: f64 = 1.10;

/// Activities between two drains of the intake.
const BETWEEN_DRAINS: u64 = 10_000;

/// The inputs: name, number of workspaces, and activities of the first child.
const INPUTS: [(&str, u64, u64); 2] = [("hot", 1_000, 200_000), ("distinct", u64::MAX, 50_000)];

type Counts = BTreeMap<String, f64>;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some([input, activities]) = arguments.child.as_deref() {
        track(input, activities.parse()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Valgrind emulates another processor, so the first run must compile the component and cache it.
    instructions(INPUTS[0].0, 1)?;
    let counts: Counts = INPUTS.iter().map(|input| count(*input)).collect::<Result<_>>()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    if arguments.save {
        std::fs::write(&path, serde_json::to_string_pretty(&counts)? + "\n")?;
        println!("wrote {}", path.display());
    }
    let baseline: Counts = serde_json::from_slice(&std::fs::read(&path)?)?;
    let mut grown = false;
    for (input, count) in counts {
        let before = *baseline.get(&input).with_context(|| format!("{} has no {input}", path.display()))?;
        let change = count / before;
        println!(
            "{input:<10} {count:>8.1} instructions per activity, {:+.1} % against {before:.1}",
            (change - 1.0) * 100.0
        );
        grown |= change > GROWTH_MAX;
    }
    if grown {
        eprintln!(
            "more than 10 % above the baseline: remove the cause, or accept the counts with `make instructions SAVE=1`"
        );
    }
    Ok(ExitCode::from(u8::from(grown)))
}

fn count((input, _, activities): (&str, u64, u64)) -> Result<(String, f64)> {
    let (once, twice) = (instructions(input, activities)?, instructions(input, 2 * activities)?);
    ensure!(twice > once, "twice the activities cost no more: {once} and {twice}");
    Ok((input.to_owned(), (twice - once) as f64 / activities as f64))
}

/// Returns the instructions of the thread that tracks and runs the component.
fn instructions(input: &str, activities: u64) -> Result<u64> {
    let directory = tempfile::tempdir()?;
    let counts = directory.path().join("counts");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(std::env::current_exe()?)
        .args(["--child", input, &activities.to_string()])
        .output();
    let output = output.context("cannot run `valgrind`: install it (Debian: apt-get install valgrind)")?;
    ensure!(output.status.success(), "the counted child failed: {}", String::from_utf8_lossy(&output.stderr));
    // The file of the main thread ends in 01.
    let path = PathBuf::from(format!("{}-01", counts.display()));
    let text = std::fs::read_to_string(&path).with_context(|| format!("callgrind wrote no {}", path.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.context("callgrind counted nothing")?.trim().parse().context("not a count")
}

/// Tracks activities in the child.
///
/// Everything runs on this thread. The virtual clock advances only while all tasks wait.
fn track(input: &str, activities: u64) -> Result<()> {
    let Some((_, workspaces, _)) = INPUTS.iter().find(|(name, _, _)| *name == input) else {
        bail!("no such input: {input}")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    LocalSet::new().block_on(&runtime, async {
        let database = Database::with_backend(Arc::new(ModelDatabase::default()));
        let options = Options { clock: Clock::manual().0, ..Options::default() };
        let (tracker, work) = plugin().start_local(Uuid::from_u128(1), database, options).await?;
        let work = tokio::task::spawn_local(work);
        for number in 0..activities {
            let workspace = (number % workspaces).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let workspace = Uuid::from_u64_pair(workspace, number % workspaces);
            tracker.try_track(workspace, workspace, 1, 0)?;
            if (number + 1).is_multiple_of(BETWEEN_DRAINS) {
                while tracker.status().waiting_activities > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        drop(tracker);
        Ok(work.await?)
    })
}
