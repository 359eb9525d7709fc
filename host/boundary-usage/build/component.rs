//! Builds a component: a nested cargo call compiles its package to a core module, which is then encoded.
//!
//! The target is `wasm32-unknown-unknown`, so the module imports only what its world names and needs no WASI. If rustup
//! lacks that target, Debian's compiler builds the core library from source. `make setup` installs one of the two.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const TARGET: &str = "wasm32-unknown-unknown";

/// The compiler of Debian's package `rustc-web`. The package `rust-web-src` adds the library's source to the compiler's
/// sysroot.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A component to build.
pub(crate) struct Component {
    pub(crate) package: &'static str,
    pub(crate) features: &'static str,
    /// The file name in the build script's output directory.
    pub(crate) file: &'static str,
}

/// Builds the component into the build script's output directory.
///
/// `root` is the path from the package of the build script to the workspace.
pub(crate) fn build(root: &str, component: &Component) -> Result<()> {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(root).canonicalize()?;
    for source in ["guest/src", "guest/Cargo.toml", "wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    // OUT_DIR is <target>/<profile>/build/<package>/out. The component is built in <target>, so all profiles of the
    // host share one build.
    let target = out.ancestors().nth(4).context("OUT_DIR is not inside a target directory")?.join("component");
    // Build scripts of two packages build components in the same place, so a lock serialises them.
    std::fs::create_dir_all(&target).context("cannot make the target directory of components")?;
    let lock = File::create(target.join("module.lock")).context("cannot make the lock of the component's build")?;
    lock.lock().context("cannot take the lock of the component's build")?;
    let module = build_module(&workspace, &target, component)?;
    let module = std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
    let encoded = wit_component::ComponentEncoder::default().validate(true).module(&module)?.encode()?;
    std::fs::write(out.join(component.file), encoded).context("cannot write the component")
}

/// Compiles the component's package and returns the path of the module.
fn build_module(workspace: &Path, target: &Path, component: &Component) -> Result<PathBuf> {
    let rustc = PathBuf::from(variable("RUSTC")?);
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        // The outer cargo's flags, wrappers (including clippy's) and target apply to the host only.
        if name.starts_with("CARGO_CFG_")
            || name.starts_with("CARGO_FEATURE_")
            || name.ends_with("RUSTFLAGS")
            || name.ends_with("_WRAPPER")
            || ["CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "TARGET", "HOST", "OUT_DIR"].contains(&&*name)
        {
            cargo.env_remove(&*name);
        }
    }
    // The manifest declares a Rust library only, because a second crate type would prevent optimisation across crates.
    // This command therefore selects the type `cdylib`.
    cargo.current_dir(workspace).args(["rustc", "--crate-type", "cdylib"]);
    cargo.args(["--package", component.package, "--features", component.features, "--profile", "component"]);
    cargo.args(["--target", TARGET, "--target-dir"]).arg(target);
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", remap_sources(workspace));
    if has_target(&rustc) {
        cargo.env("RUSTC", &rustc);
    } else if has_library_source(Path::new(DEBIAN_RUSTC)) {
        cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        cargo.arg("-Zbuild-std=core,alloc");
        let linker = sysroot(&rustc)?.join("lib/rustlib").join(variable("HOST")?).join("bin/rust-lld");
        if linker.exists() {
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
    } else {
        bail!(
            "no Rust compiler here can build for {TARGET}; run `make setup`, which adds the target with rustup or, \
             where rustup cannot fetch it, installs Debian's rustc-web and rust-web-src"
        );
    }
    let output = cargo.output().context("cannot run cargo for the component")?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo failed for the component:\n{log}");
    let module = component.package.replace('-', "_");
    Ok(target.join(TARGET).join(format!("component/{module}.wasm")))
}

/// Returns flags that remove this machine's paths from panic messages, so that the component is reproducible.
fn remap_sources(workspace: &Path) -> String {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let registry = cargo_home.map(|home| format!(" --remap-path-prefix={}=", home.join("registry/src").display()));
    format!("--remap-path-prefix={}={}", workspace.display(), registry.unwrap_or_default())
}

fn has_target(rustc: &Path) -> bool {
    sysroot(rustc).is_ok_and(|sysroot| sysroot.join("lib/rustlib").join(TARGET).join("lib").exists())
}

fn has_library_source(rustc: &Path) -> bool {
    sysroot(rustc).is_ok_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/std").exists())
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output()?;
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

pub(crate) fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("cargo did not set {name}"))
}
