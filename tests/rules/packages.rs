//! The packages of `make package`, which users build without the component's sources and target.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use boundary_usage::Plugin;
use tempfile::TempDir;

/// Copies the sources into a directory where `cargo package` may write.
fn copy_of_the_project() -> Result<TempDir> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests are in the project")?;
    let copy = tempfile::tempdir()?;
    let files = ["Cargo.toml", "Cargo.lock", "LICENSE", "guest", "tests", "wit"];
    let hosts = ["host/boundary-usage", "host/boundary-usage-c", "host/boundary-usage-cli"];
    run(Command::new("cp").args(["-a", "--parents"]).args(files).args(hosts).arg(copy.path()).current_dir(root))?;
    Ok(copy)
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the file name and bytes of the component of each world.
fn components() -> [(&'static str, &'static [u8]); 2] {
    [("tracker.wasm", Plugin::embedded_bytes()), ("tracker-blocking.wasm", Plugin::embedded_blocking_bytes())]
}

#[test]
fn the_packed_library_contains_the_component_and_all_inputs_of_its_build() -> Result<()> {
    let project = copy_of_the_project()?;
    let shipped = project.path().join("host/boundary-usage/component");
    std::fs::create_dir_all(&shipped)?;
    for (file, component) in components() {
        std::fs::write(shipped.join(file), component)?;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["package", "--offline", "--workspace", "--no-verify"]);
    cargo.args(["--exclude", "boundary-usage-tests", "--exclude", "boundary-usage-misbehaving"]);
    run(cargo.arg("--allow-dirty").current_dir(project.path()).env("CARGO_TARGET_DIR", project.path().join("target")))?;

    // The packages need another directory, because beside the guest's sources the build would use those.
    let elsewhere = tempfile::tempdir()?;
    let packed = elsewhere.path();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in ["boundary-usage", "boundary-usage-cli", "boundary-usage-tracker"] {
        let archive = project.path().join(format!("target/package/{name}-{}.crate", env!("CARGO_PKG_VERSION")));
        run(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(packed))?;
        let license = packed.join(format!("{name}-{}", env!("CARGO_PKG_VERSION"))).join("LICENSE");
        run(Command::new("diff").arg(root.join("LICENSE")).arg(license))?;
    }
    let library = packed.join(format!("boundary-usage-{}", env!("CARGO_PKG_VERSION")));
    for (file, component) in components() {
        assert!(std::fs::read(library.join("component").join(file))? == component);
    }
    for folder in ["wit", "host/boundary-usage/src", "host/boundary-usage/sql", "host/boundary-usage/build"] {
        let packed = library.join(folder.strip_prefix("host/boundary-usage/").unwrap_or(folder));
        run(Command::new("diff").arg("-r").arg(root.join(folder)).arg(packed))?;
    }
    Ok(())
}
