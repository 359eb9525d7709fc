//! `replay` as a user runs it: D1 from end to end, bad lines, standard input.

use serde_json::json;

use crate::program::{Workplace, line, numbers, pick};

#[test]
fn d1_ten_flushes_with_a_new_workspace_each_are_ten_workspaces() {
    let workplace = Workplace::new();
    workplace.write("ten.jsonl", &(0..10).map(|number| line(number, number % 3, 2, 1)).collect::<String>());
    let replayed = workplace.json(["replay", "ten.jsonl", "--flush-every", "1"]);
    assert_eq!(pick(&replayed, ["activities", "skipped", "flushes"]), [json!(10), json!(0), json!(10)]);
    assert!(replayed["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(numbers(&workplace.json(["collect"])), [10, 3, 20, 10]);
}

#[test]
fn a_bad_line_stops_the_replay_and_what_came_before_it_is_kept() {
    let workplace = Workplace::new();
    workplace.write("good.jsonl", &line(1, 1, 5, 2));
    workplace.write("bad.jsonl", &format!("{}\n{{\"workspace\":1}}\n{}", line(2, 1, 1, 1), line(3, 1, 1, 1)));
    let stopped = workplace.run(["replay", "good.jsonl", "bad.jsonl"]);
    stopped.assert_failed(1, "error: bad.jsonl:3: ");
    assert!(stopped.stderr.contains("the 2 activities before it are in the database"), "{}", stopped.stderr);
    assert_eq!(numbers(&workplace.json(["collect"])), [2, 1, 6, 3]);
}

#[test]
fn standard_input_is_replayed_and_skipped_lines_are_counted_and_told() {
    let workplace = Workplace::new();
    let input = format!("nonsense\n{}{}[]\n", line(1, 1, 3, 0), line(1, 1, 0, 4));
    let replayed = workplace.run_with_input(["replay", "-", "--skip-invalid", "-v", "--format", "json"], &input);
    let expected = [json!(2), json!(2), json!(1)];
    assert_eq!(pick(&replayed.json(), ["activities", "skipped", "flushes"]), expected);
    for told in ["skipped stdin:1: ", "skipped stdin:4: "] {
        assert!(replayed.stderr.contains(told), "{told:?} is not in: {}", replayed.stderr);
    }
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 3, 4]);
}

#[test]
fn a_missing_recording_is_named() {
    let workplace = Workplace::new();
    let failed = workplace.run(["replay", "missing.jsonl", "--replica", &crate::program::id(7)]);
    failed.assert_failed(1, "cannot open the recording missing.jsonl");
    assert_eq!(numbers(&workplace.json(["collect"])), [0; 4]);
}

#[test]
fn people_are_told_activities_flushes_and_seconds() {
    let workplace = Workplace::new();
    let told = workplace.run_with_input(["replay", "-"], &line(1, 1, 1, 0));
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    assert!(told.stdout.starts_with("1 activities, 1 flushes, "), "{}", told.stdout);
}
