//! The program works under a limit of its address space, such as one of `ulimit -v`.
//!
//! By default the component's runtime reserves 4 GiB for each instance, which such a limit does not allow.

use std::process::{Command, Output};

use crate::program::{Ended, Workplace, line, pick};

/// Runs the program with a limit on its address space and waits for its end.
///
/// The cache is empty, so the program compiles the component.
fn run(workplace: &Workplace, mebibytes: u64, arguments: &[&str]) -> Ended {
    let command = workplace.command(arguments);
    let mut limited = Command::new("sh");
    let kibibytes = (mebibytes * 1_024).to_string();
    limited.args(["-c", r#"ulimit -v "$0" && exec "$@""#, &kibibytes]).arg(command.get_program());
    limited.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    // Each thread needs address space, and a machine may have many processors.
    limited.env("TOKIO_WORKER_THREADS", "2").env("XDG_CACHE_HOME", workplace.path(&format!("cache-{mebibytes}")));
    let output: Output = limited.output().unwrap();
    output.into()
}

#[test]
fn the_program_works_with_little_address_space() {
    for mebibytes in [4_096, 1_024, 512] {
        let workplace = Workplace::new();
        workplace.write("activity.jsonl", &line(1, 2, 5, 2));
        let replayed = run(&workplace, mebibytes, &["replay", "activity.jsonl"]);
        assert_eq!(replayed.code, 0, "{mebibytes} MiB: {}", replayed.stderr);
        let summary = workplace.json(["collect"]);
        let numbers = pick(&summary, ["unique_workspaces", "allowed_requests", "denied_requests"]);
        assert_eq!(numbers, [1, 5, 2], "{mebibytes} MiB");
    }
}

#[test]
fn too_little_address_space_is_a_clear_error() {
    // Without a check at the start, an allocation of the runtime can abort the program. With less, it cannot be loaded.
    for mebibytes in [72, 64] {
        let workplace = Workplace::new();
        workplace.write("activity.jsonl", &line(1, 2, 5, 2));
        let refused = run(&workplace, mebibytes, &["replay", "activity.jsonl"]);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        let limit = format!("{mebibytes} MiB by `ulimit -v`");
        assert!(refused.stderr.contains(&limit), "{}", refused.stderr);
    }
}
