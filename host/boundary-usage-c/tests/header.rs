//! The header as a test: it is generated, and committed for users without this tool.

use std::path::Path;

const INTRODUCTION: &str = include_str!("../src/introduction.h");

/// Returns the header of the sources.
fn generated(root: &Path) -> String {
    let mut config = cbindgen::Config::from_root_or_default(root);
    config.header = Some(INTRODUCTION.trim_end().to_owned());
    let bindings = cbindgen::Builder::new().with_crate(root).with_config(config).generate().expect("the code is valid");
    let mut header = Vec::new();
    bindings.write(&mut header);
    let header = String::from_utf8(header).expect("the sources are UTF-8");
    // C has no section of safety: the comments of the functions describe the duties of the caller.
    let mut lines = Vec::new();
    let mut is_skipped = false;
    for line in header.lines() {
        is_skipped = line == "// # Safety" || is_skipped && line.starts_with("//");
        if is_skipped {
            while lines.last() == Some(&"//") {
                lines.pop();
            }
        } else {
            lines.push(line.trim_end());
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("include/boundary_usage.h");
    let generated = generated(root);
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &generated).expect("the header can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} is out of date; run `UPDATE_HEADER=1 cargo test --test header`",
        path.display()
    );
}
