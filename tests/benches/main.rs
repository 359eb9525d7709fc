//! Compares the tracker with the reference's algorithm in Rust and in Go, in one run.
//!
//! Throughput is measured in rounds in which the contenders take turns (`rounds`). Criterion would measure one
//! contender after the other. The load of a shared machine changes in between, so ratios would be unreliable.
//!
//! Criterion measures the single operations. `report.json` has all figures and ratios, and a picture shows the main
//! comparison.

#![forbid(unsafe_code)]

mod bare;
mod databases;
mod history;
mod hosts;
mod inputs;
mod operations;
mod ours;
mod picture;
mod report;
mod rivals;
mod rounds;
mod start;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use boundary_usage::Database;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::model_database::ModelDatabase;
use boundary_usage_tests::postgres_proxy::round_trips_of_flushes;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::bare::Bare;
use crate::databases::FlushCosts;
use crate::inputs::Input;
use crate::ours::Ours;
use crate::report::{Contest, Report};
use crate::rivals::{Golang, Native};
use crate::rounds::{Round, median};

/// The number of rounds of each contender for each input.
const ROUNDS: u64 = 7;

/// The number of distinct ids when memory is measured.
const MANY_IDS: u64 = 10_000_000;

/// The number of rows in the large collection.
const COLLECTED_ROWS: u64 = 10_000;

/// The ids of a full sketch.
const FULL: u128 = 16_384;

/// The number of large collections, with the history and without.
const COLLECTIONS: u64 = 3;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, start::FIRST_TRACK, url] => return runtime.block_on(start::child_first_track(url)),
        [_, start::MANY_TRACKERS, url] => return runtime.block_on(start::child_many_trackers(url)),
        _ => {}
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    std::fs::create_dir_all(&directory)?;
    let sections: [(&str, Section); 8] = [
        ("throughput", throughput),
        ("operations", operations::measure),
        ("memory", memory),
        ("starts", starts),
        ("databases", databases),
        ("collections", collections),
        ("history", history),
        ("hosts", hosts::measure),
    ];
    let selected: Vec<&String> = arguments.iter().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if selected == ["picture"] {
        return report::draw_again(&directory);
    }
    let mut report = Report::new();
    for (name, section) in sections {
        if selected.is_empty() || selected.iter().any(|selected| *selected == name) {
            section(&runtime, &directory, &mut report)?;
        }
    }
    // Selected sections alone must not overwrite the complete report.
    if selected.is_empty() { report.finish(&directory) } else { Ok(()) }
}

type Section = fn(&Runtime, &Path, &mut Report) -> Result<()>;

/// Measures the throughput of all contenders, and the latency of `track`.
fn throughput(runtime: &Runtime, directory: &Path, report: &mut Report) -> Result<()> {
    let ours = runtime.block_on(Ours::start())?;
    let mut golang = Golang::start(directory)?;
    for input in Input::ALL {
        for threads in [1, 2, 4] {
            let mut times = [Vec::new(), Vec::new(), Vec::new()];
            // The first round warms up.
            for number in 0..=ROUNDS {
                let activities = input.round();
                let round = Round { input, threads, activities, first: number * activities };
                let mut took = vec![runtime.block_on(ours.round(&round))?, Native::round(&round)?];
                if let Some(golang) = &mut golang {
                    took.push(golang.round(&round)?);
                }
                for (times, took) in times.iter_mut().zip(took).filter(|_| number > 0) {
                    times.push(took.as_secs_f64() * 1e9 / activities as f64);
                }
            }
            let [ours, native, go] = times.map(|times| (!times.is_empty()).then(|| median(times)));
            let (ours, native) = (ours.context("no rounds")?, native.context("no rounds")?);
            report.contest(Contest { input, threads, ours, native, go });
        }
    }
    let [median, percentile] = runtime.block_on(ours.caller_cost())?;
    report.figure("caller_ns_median", "ns", median);
    report.figure("caller_ns_p999", "ns", percentile);
    Ok(())
}

/// Measures the memory for ten million ids.
fn memory(runtime: &Runtime, _: &Path, report: &mut Report) -> Result<()> {
    let component = runtime.block_on(async {
        let mut instance =
            Bare::compile().map_err(bare::runtime_error)?.instantiate().await.map_err(bare::runtime_error)?;
        for first in (0..MANY_IDS).step_by(4_096) {
            let batch = first..(first + 4_096).min(MANY_IDS);
            let activities = batch.map(|number| bare::Activity::of(Input::Adversarial, number)).collect();
            instance.track(activities).await.map_err(bare::runtime_error)?;
        }
        anyhow::Ok(instance.memory_bytes())
    })?;
    report.figure("component_memory_10m_ids_bytes", "bytes", component as f64);
    report.figure("native_memory_10m_ids_bytes", "bytes", rivals::bytes_of_sets(MANY_IDS) as f64);
    Ok(())
}

fn starts(_: &Runtime, directory: &Path, report: &mut Report) -> Result<()> {
    let files = tempfile::tempdir_in(directory)?;
    report.figure("start_to_first_track_ms", "ms", start::to_first_track_ms(files.path())?);
    report.figure("idle_tracker_bytes", "bytes", start::bytes_of_idle_tracker(files.path())? as f64);
    report.figure("component_bytes", "bytes", boundary_usage::Plugin::embedded_bytes().len() as f64);
    Ok(())
}

fn databases(runtime: &Runtime, _: &Path, report: &mut Report) -> Result<()> {
    runtime.block_on(async {
        let file = TestDatabase::sqlite()?;
        let server = databases::postgres().await?;
        let none = Database::with_backend(Arc::new(ModelDatabase::default()));
        let databases = [
            ("none", none),
            ("sqlite", Database::connect(&file.url).await?),
            ("postgres", Database::connect(&server.url()).await?),
        ];
        for (name, database) in databases {
            for contest in &databases::CONTESTS {
                let FlushCosts { flush, sql } = databases::flush_costs(&database, contest).await?;
                let contest = contest.name;
                report.figure(&format!("{contest}_ms_{name}"), "ms", flush / 1e3);
                report.figure(&format!("{contest}_sql_ms_{name}"), "ms", sql / 1e3);
                if name != "none" {
                    report.figure(&format!("{contest}_over_sql_{name}"), "×", flush / sql);
                }
            }
            database.close().await;
        }
        let round_trips = round_trips_of_flushes(&server.url()).await?;
        report.figure("round_trips_postgres", "", round_trips.known_ids as f64);
        report.figure("round_trips_of_new_ids_postgres", "", round_trips.new_ids as f64);
        let [shared, exclusive] = databases::flushes_per_second(&server).await?;
        report.figure("shared_over_exclusive_lock_200_replicas", "×", shared / exclusive);
        report.figure("flushes_per_second_200_replicas_shared_lock", "1/s", shared);
        report.figure("flushes_per_second_200_replicas_exclusive_lock", "1/s", exclusive);
        anyhow::Ok(())
    })
}

fn collections(runtime: &Runtime, _: &Path, report: &mut Report) -> Result<()> {
    runtime.block_on(async {
        let server = databases::postgres().await?;
        let mut times = [Vec::new(), Vec::new()];
        let mut growth_bytes = 0;
        // Both variants take turns, so other load on the machine affects both.
        for round in 0..2 * COLLECTIONS {
            let without_history = round % 2 == 1;
            let collection = databases::collect_rows(&server, COLLECTED_ROWS, FULL, without_history).await?;
            times[usize::from(without_history)].push(collection.seconds);
            growth_bytes = growth_bytes.max(collection.growth_bytes);
        }
        for (rows, ids) in [(1_000, 100), (10_000, 100), (1_000, FULL)] {
            let seconds = databases::collect_rows(&server, rows, ids, false).await?.seconds;
            report.figure(&format!("collect_{rows}_rows_of_{ids}_ids_s"), "s", seconds);
        }
        let [with_history, without] = times.map(median);
        report.figure("collect_10000_full_sketches_s", "s", with_history);
        report.figure("collect_with_history_over_without", "×", with_history / without);
        report.figure("collect_10000_full_sketches_growth_bytes", "bytes", growth_bytes as f64);
        anyhow::Ok(())
    })
}

fn history(runtime: &Runtime, directory: &Path, report: &mut Report) -> Result<()> {
    let costs = runtime.block_on(history::three_years(directory))?;
    report.figure("report_3_years_full_s", "s", costs.seconds);
    report.figure("report_3_years_full_growth_bytes", "bytes", costs.growth_bytes as f64);
    report.figure("history_year_full_bytes", "bytes", costs.database_bytes as f64 / 3.0);
    Ok(())
}

/// Returns the size of the program from `make release`, or null if there is none.
fn release_binary_bytes(directory: &Path) -> Value {
    let binary: PathBuf = directory.with_file_name("release").join("boundary-usage");
    std::fs::metadata(binary).map_or(Value::Null, |metadata| json!(metadata.len()))
}
