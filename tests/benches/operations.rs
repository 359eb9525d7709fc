//! Single operations, measured by Criterion: `track`, a call into the component, an instantiation.

use std::convert::Infallible;
use std::future::ready;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::{Request, Response};
use boundary_usage::tower::{Identity, UsageLayer};
use criterion::{BatchSize, Criterion};
use futures_util::FutureExt;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::{Layer, Service};

use crate::bare::{self, Activity, Bare};
use crate::inputs::Input;
use crate::ours::Ours;
use crate::report::Report;
use crate::rivals::Native;

/// The number of activities in a batch for the component.
const BATCH: u64 = 1_024;

pub(crate) fn measure(runtime: &Runtime, directory: &Path, report: &mut Report) -> Result<()> {
    let output = directory.join("criterion");
    let mut criterion = Criterion::default()
        .output_directory(&output)
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    let ours = runtime.block_on(Ours::start())?;
    let mut numbers = 0..;
    criterion.bench_function("track_ours", |bencher| {
        bencher.iter(|| {
            let (workspace, owner) = Input::Hot.ids(numbers.next().unwrap_or(0));
            ours.tracker.track(workspace, owner, 1, 0)
        });
    });
    let native = Native::default();
    criterion.bench_function("track_native", |bencher| {
        bencher.iter(|| {
            let (workspace, owner) = Input::Hot.ids(numbers.next().unwrap_or(0));
            native.track(workspace, owner, 1, 0);
        });
    });
    requests(&mut criterion, &ours);
    let bare = Bare::compile().map_err(bare::runtime_error)?;
    let mut instance = runtime.block_on(bare.instantiate()).map_err(bare::runtime_error)?;
    for (name, batch) in [("crossing_of_1", 1), ("crossing_of_1024", BATCH)] {
        criterion.bench_function(name, |bencher| {
            let activities = || (0..batch).map(|number| Activity::of(Input::Hot, number)).collect::<Vec<_>>();
            let cross =
                |activities| runtime.block_on(instance.track(activities)).expect("the component accepts activities");
            bencher.iter_batched(activities, cross, BatchSize::SmallInput);
        });
    }
    criterion.bench_function("instantiate", |bencher| {
        bencher.iter(|| runtime.block_on(bare.instantiate()).expect("the component can be instantiated"));
    });
    let median = |name: &str| median(&output.join(name).join("new/estimates.json"));
    report.figure("track_ours_ns", "ns", median("track_ours")?);
    report.figure("track_native_ns", "ns", median("track_native")?);
    report.figure("tower_layer_ns", "ns", median("request_layered")? - median("request_bare")?);
    report.figure("crossing_of_1_ns_per_activity", "ns", median("crossing_of_1")?);
    report.figure("crossing_of_1024_ns_per_activity", "ns", median("crossing_of_1024")? / BATCH as f64);
    report.figure("instantiate_us", "µs", median("instantiate")? / 1e3);
    Ok(())
}

/// Measures a request to a service that responds immediately, with and without the layer.
///
/// The request's extensions contain the identity, as after an authentication layer.
fn requests(criterion: &mut Criterion, ours: &Ours) {
    let mut bare = tower::service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(()))));
    let mut layered = UsageLayer::new(ours.tracker.clone()).layer(bare);
    let mut numbers = 0..;
    let mut request = || {
        let (workspace, owner) = Input::Hot.ids(numbers.next().unwrap_or(0));
        let mut request = Request::new(());
        request.extensions_mut().insert(Identity { workspace, owner });
        request
    };
    criterion.bench_function("request_bare", |bencher| {
        bencher.iter(|| bare.call(request()).now_or_never());
    });
    criterion.bench_function("request_layered", |bencher| {
        bencher.iter(|| layered.call(request()).now_or_never());
    });
}

/// Returns the median that Criterion wrote, in nanoseconds.
fn median(path: &Path) -> Result<f64> {
    let estimates: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    estimates["median"]["point_estimate"].as_f64().with_context(|| format!("{} has no median", path.display()))
}
