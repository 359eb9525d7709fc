//! The command `replay`: whole recordings (D1), invalid lines, stdin, signals and unusable recordings.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::program::{Ended, Workplace, line, numbers, pick};

#[test]
fn d1_ten_flushes_with_a_new_workspace_each_count_ten_workspaces() {
    let workplace = Workplace::new();
    workplace.write("ten.jsonl", &(0..10).map(|number| line(number, number % 3, 2, 1)).collect::<String>());
    let replayed = workplace.json(["replay", "ten.jsonl", "--flush-every", "1"]);
    assert_eq!(pick(&replayed, ["activities", "skipped", "flushes"]), [json!(10), json!(0), json!(10)]);
    assert!(replayed["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(numbers(&workplace.json(["collect"])), [10, 3, 20, 10]);
}

#[test]
fn a_bad_line_stops_the_replay_and_earlier_lines_count() {
    let workplace = Workplace::new();
    workplace.write("good.jsonl", &line(1, 1, 5, 2));
    workplace.write("bad.jsonl", &format!("{}\n{{\"workspace\":1}}\n{}", line(2, 1, 1, 1), line(3, 1, 1, 1)));
    let stopped = workplace.run(["replay", "good.jsonl", "bad.jsonl"]);
    stopped.assert_failed(1, "error: bad.jsonl:3: ");
    let advice = "the 2 activities before it are in the database; continue at line 3 of bad.jsonl";
    assert!(stopped.stderr.contains(advice), "{}", stopped.stderr);
    assert_eq!(numbers(&workplace.json(["collect"])), [2, 1, 6, 3]);
}

#[test]
fn standard_input_is_replayed_and_skipped_lines_are_logged() {
    let workplace = Workplace::new();
    let input = format!("nonsense\n{}{}[]\n", line(1, 1, 3, 0), line(1, 1, 0, 4));
    let replayed = workplace.run_with_input(["replay", "-", "--skip-invalid", "-v", "--format", "json"], &input);
    let expected = [json!(2), json!(2), json!(1)];
    assert_eq!(pick(&replayed.json(), ["activities", "skipped", "flushes"]), expected);
    for logged in ["skipped stdin:1: ", "skipped stdin:4: "] {
        assert!(replayed.stderr.contains(logged), "{logged:?} is not in: {}", replayed.stderr);
    }
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 3, 4]);
}

#[test]
fn a_signal_stops_a_replay_that_waits_for_input_and_read_lines_count() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let workplace = Workplace::new();
        workplace.write("first.jsonl", &line(1, 1, 5, 2));
        workplace.write("last.jsonl", &line(9, 9, 9, 9));
        let arguments = ["replay", "first.jsonl", "-", "last.jsonl", "--skip-invalid", "-v"];
        let mut child = workplace.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // Standard input stays open, so the program waits for more.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{}nonsense\n", line(2, 1, 1, 1)).as_bytes()).unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains("skipped stdin:2: ") {
            assert_ne!(stderr.read_line(&mut log).unwrap(), 0, "the program ended: {log}");
        }
        let kill = Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, signal, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        stderr.read_to_string(&mut log).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]), "{log}");
        assert!(log.contains(&format!("error: stopped by SIG{signal}\n")), "{log}");
        let advice =
            "the 2 activities before it are in the database; continue at line 3 of stdin, then with last.jsonl";
        assert!(log.contains(advice), "{log}");
        assert_eq!(numbers(&workplace.json(["collect"])), [2, 1, 6, 3]);
        drop(stdin);
    }
}

#[test]
fn unusable_recordings_are_reported_before_anything_is_tracked_or_created() {
    let workplace = Workplace::new();
    let good = line(1, 1, 5, 2);
    workplace.write("good.jsonl", &good);
    std::fs::create_dir(workplace.path("directory")).unwrap();
    std::os::unix::fs::symlink("good.jsonl", workplace.path("link.jsonl")).unwrap();
    std::fs::write(workplace.path("a.gz"), b"\x1f\x8b\x08\0\0\0\0\0\0\x03").unwrap();
    let utf_16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(workplace.path("marked.txt"), [b"\xff\xfe", utf_16.as_slice()].concat()).unwrap();
    std::fs::write(workplace.path("unmarked.txt"), &utf_16).unwrap();
    let before = workplace.files();
    for (arguments, code, reason) in [
        ("good.jsonl missing.jsonl", 1, "cannot open the recording missing.jsonl: "),
        ("good.jsonl directory", 1, "directory: it is a directory"),
        ("good.jsonl a.gz", 1, "a.gz: it is compressed by gzip"),
        ("--skip-invalid good.jsonl a.gz", 1, "gzip -dc FILE | boundary-usage replay -"),
        ("--skip-invalid good.jsonl marked.txt", 1, "marked.txt: it is in UTF-16"),
        ("--skip-invalid good.jsonl unmarked.txt", 1, "unmarked.txt: it is in UTF-16"),
        ("missing.jsonl directory", 1, "\n  - cannot open the recording missing.jsonl: "),
        ("good.jsonl good.jsonl", 2, "good.jsonl is given twice"),
        ("good.jsonl ./good.jsonl", 2, "good.jsonl and ./good.jsonl are one file"),
        ("good.jsonl link.jsonl", 2, "good.jsonl and link.jsonl are one file"),
    ] {
        let ended: Ended =
            workplace.command(["replay"].into_iter().chain(arguments.split(' '))).output().unwrap().into();
        ended.assert_failed(code, reason);
        assert_eq!(workplace.files(), before, "{arguments}");
    }
    let mut command = workplace.command(["replay", "-", "good.jsonl"]);
    let stdin = std::fs::File::open(workplace.path("good.jsonl")).unwrap();
    Ended::from(command.stdin(stdin).output().unwrap()).assert_failed(2, "stdin and good.jsonl are one file");
    workplace.run(["replay", "-", "-"]).assert_failed(2, "stdin is given twice");
}

#[test]
fn a_pipe_in_another_format_is_reported_even_if_bad_lines_are_skipped() {
    let workplace = Workplace::new();
    workplace.write("good.jsonl", &line(1, 1, 5, 2));
    let stopped = workplace.run_with_input(["replay", "good.jsonl", "-", "--skip-invalid"], "BZh91AY&SY");
    stopped.assert_failed(1, "cannot read the recording stdin: it is compressed by bzip2");
    let advice = "the 1 activity before it is in the database; continue at line 1 of stdin";
    assert!(stopped.stderr.contains(advice), "{}", stopped.stderr);
}

#[test]
fn a_byte_order_mark_is_not_part_of_the_first_record() {
    let workplace = Workplace::new();
    workplace.write("marked.jsonl", &format!("\u{feff}{}", line(1, 1, 5, 2)));
    let replayed = workplace.json(["replay", "marked.jsonl"]);
    assert_eq!(pick(&replayed, ["activities", "skipped"]), [json!(1), json!(0)]);
}

#[test]
fn a_replay_without_a_valid_line_fails() {
    let workplace = Workplace::new();
    let input = "[1]\n{\n\"workspace\": 1,\n}\n";
    let failed = workplace.run_with_input(["replay", "-", "--skip-invalid"], input);
    failed.assert_failed(1, "no line is an activity; 4 were skipped, the first is stdin:1: expected a JSON object");
    assert!(failed.stderr.contains("found an array; write one object per line"), "{}", failed.stderr);
    assert_eq!(workplace.run_with_input(["replay", "-", "--skip-invalid"], "\n").code, 0);
    let failed = workplace.run_with_input(["replay", "-"], &line(1, 1, 7, 0).replace('7', "18446744073709551616"));
    failed.assert_failed(1, "`allowed` is 18446744073709551616; the limit is 18446744073709551615");
}

#[test]
fn the_error_of_a_replay_that_cannot_print_its_result_contains_it() {
    let workplace = Workplace::new();
    workplace.write("good.jsonl", &line(1, 1, 5, 2));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let failed: Ended = workplace.command(["replay", "good.jsonl"]).stdout(full).output().unwrap().into();
    failed.assert_failed(1, "cannot write to stdout, but the replay is complete: 1 activity in the database");
}

#[test]
fn the_human_format_shows_activities_flushes_and_seconds() {
    let workplace = Workplace::new();
    let replayed = workplace.run_with_input(["replay", "-"], &line(1, 1, 1, 0));
    assert_eq!((replayed.code, replayed.stderr.as_str()), (0, ""));
    assert!(replayed.stdout.starts_with("1 activity, 1 flush, "), "{}", replayed.stdout);
}
