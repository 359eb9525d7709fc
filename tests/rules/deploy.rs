//! The files in `deploy/` pass the checks of their tools, and their metrics are those that the program exports.

use std::path::Path;
use std::process::{Command, Output};

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::http::get;
use crate::program::{Workplace, one_socket};

fn check(metrics: &Path) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    Command::new(root.join("scripts/check-deploy")).arg(metrics).output().unwrap()
}

#[test]
fn deployment_files_pass_their_tools_and_name_only_existing_metrics() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let more = ["-v", "--flush-interval", "20ms", "--listen", "127.0.0.1:0"].map(str::to_owned);
    let mut serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(more));
    send_and_hang_up(&socket, SESSION);
    serving.wait_for_log("Written");
    let text = get(&serving.http(), "/metrics").body;
    serving.stop().json();

    let checked = check(&workplace.write("metrics.txt", &text));
    let output = [checked.stdout, checked.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(checked.status.success(), "{output}");

    // The check fails if a metric is missing.
    let without: String =
        text.lines().filter(|line| !line.contains("checkpoint_age")).flat_map(|line| [line, "\n"]).collect();
    let checked = check(&workplace.write("metrics.txt", &without));
    let output = String::from_utf8_lossy(&checked.stderr);
    assert!(!checked.status.success() && output.contains("boundary_usage_checkpoint_age_seconds"), "{output}");
}
