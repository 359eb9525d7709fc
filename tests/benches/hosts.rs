//! The costs of hosts in other languages: a call from C, and nginx with the module.
//!
//! `make bench` installs the C library beside the report. A figure whose parts are missing is not measured.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::report::Report;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

pub(crate) fn measure(_: &Runtime, directory: &Path, report: &mut Report) -> Result<()> {
    let prefix = directory.join("c");
    if !prefix.join("lib/libboundary_usage.so").exists() {
        println!("the C library is not installed in {}; `make bench` installs it", prefix.display());
        return Ok(());
    }
    let from_c = track_from_c(&prefix, directory)?;
    report.figure("track_from_c_ns", "ns", number(&from_c, "same_pair_ns")?);
    report.figure("track_from_c_many_pairs_ns", "ns", number(&from_c, "many_pairs_ns")?);
    let nginx = json_of(Command::new("scripts/bench-nginx").arg(&prefix))?;
    report.figure("nginx_requests_with_over_without", "", number(&nginx, "nginx_requests_with_over_without")?);
    Ok(())
}

/// Compiles and runs the program that calls the library.
fn track_from_c(prefix: &Path, directory: &Path) -> Result<Value> {
    let program = directory.join("bench_track");
    let (include, lib) = (prefix.join("include"), prefix.join("lib"));
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-std=c99", "-D_POSIX_C_SOURCE=200809L", "host/boundary-usage-c/tests/c/bench_track.c"]);
    cc.arg("-I").arg(include).arg("-L").arg(&lib).arg(format!("-Wl,-rpath,{}", lib.display()));
    cc.args(["-lboundary_usage", "-lpthread", "-o"]).arg(&program);
    let status = cc.current_dir(ROOT).status().context("cannot run cc; `make bench` installs it")?;
    ensure!(status.success(), "cannot compile bench_track.c");
    let files = tempfile::tempdir_in(directory)?;
    json_of(Command::new(program).arg(format!("sqlite:{}", files.path().join("usage.db").display())))
}

/// Runs a command in the root of the project, and returns the JSON that it prints.
fn json_of(command: &mut Command) -> Result<Value> {
    let output = command.current_dir(ROOT).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} printed no JSON"))
}

fn number(json: &Value, name: &str) -> Result<f64> {
    json[name].as_f64().with_context(|| format!("{name} is missing in {json}"))
}
