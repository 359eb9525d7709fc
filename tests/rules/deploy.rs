//! What is in `deploy/`: each file read by the tool that it is for, and held against what the real program exports.

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
fn the_unit_the_container_the_alerts_and_the_dashboard_pass_their_tools_and_name_metrics_that_exist() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let more = ["-v", "--flush-interval", "20ms", "--listen", "127.0.0.1:0"].map(str::to_owned);
    let mut serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(more));
    send_and_hang_up(&socket, SESSION);
    serving.wait_for_log("Written");
    let text = get(&serving.http(), "/metrics").body;
    serving.stop().json();

    let checked = check(&workplace.write("metrics.txt", &text));
    let said = [checked.stdout, checked.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(checked.status.success(), "{said}");

    // It would have noticed.
    let without: String =
        text.lines().filter(|line| !line.contains("checkpoint_age")).flat_map(|line| [line, "\n"]).collect();
    let checked = check(&workplace.write("metrics.txt", &without));
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(!checked.status.success() && said.contains("boundary_usage_checkpoint_age_seconds"), "{said}");
}
