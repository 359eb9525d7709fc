//! The commands `report` and `init` (H2, H4, H5, H7).

use std::collections::BTreeSet;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use chrono::{Datelike, Days, Months, NaiveDate};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::program::{Ended, Workplace, id};

const DAYS: u64 = 40;

/// The replicas of the history.
const REPLICAS: u128 = 3;

/// Runs the program under a clock that starts at `time`.
fn run_at(workplace: &Workplace, time: &str, arguments: &[&str]) -> Ended {
    let is_installed = Command::new("faketime").arg("--version").output().is_ok();
    assert!(is_installed, "faketime is missing; `make setup` installs it");
    let clock = format!("@{time}");
    workplace.command_through(&["env", "TZ=UTC", "faketime", "-f", &clock], arguments).output().unwrap().into()
}

fn date(index: u64) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 1, 14).unwrap() + Days::new(index)
}

type Ids = BTreeSet<u64>;

/// Returns the ids of one kind.
type IdsOf = fn(&Activity) -> &Ids;

/// The activity of one day.
#[derive(Clone, Default)]
struct Activity {
    workspaces: Ids,
    users: Ids,
    allowed: u64,
    denied: u64,
}

/// Records random activity of forty days under a set clock, and collects at each midnight.
fn recorded_days(workplace: &Workplace) -> Vec<Activity> {
    let mut random = StdRng::seed_from_u64(7);
    run_at(workplace, &format!("{} 00:00:00", date(0)), &["init"]).assert_succeeded();
    let mut days = Vec::new();
    for index in 0..DAYS {
        let mut day = Activity::default();
        for replica in 0..REPLICAS {
            // The first day has activity, so that the history begins with it.
            if index > 0 && random.random_bool(0.4) {
                continue;
            }
            let mut lines = String::new();
            for _ in 0..random.random_range(1..5) {
                let (workspace, owner) = (random.random_range(1..30_u64), random.random_range(1..20_u64));
                let (allowed, denied) = (random.random_range(0..9_u64), random.random_range(0..3_u64));
                let [workspace_id, owner_id] = [id(workspace.into()), id(owner.into())];
                let record =
                    json!({"workspace": workspace_id, "owner": owner_id, "allowed": allowed, "denied": denied});
                writeln!(lines, "{record}").unwrap();
                day.workspaces.insert(workspace);
                day.users.insert(owner);
                day.allowed += allowed;
                day.denied += denied;
            }
            workplace.write("day.jsonl", &lines);
            let replica = id(100 + replica);
            let time = format!("{} 10:00:00", date(index));
            run_at(workplace, &time, &["replay", "--replica", &replica, "day.jsonl"]).assert_succeeded();
        }
        run_at(workplace, &format!("{} 00:00:00", date(index + 1)), &["collect"]).assert_succeeded();
        days.push(day);
    }
    days
}

/// A window and what plain sets contain in it.
struct Window {
    start: NaiveDate,
    end: NaiveDate,
}

fn windows(by: &str) -> Vec<Window> {
    let first = match by {
        "day" => date(0),
        "week" => date(0) - Days::new(date(0).weekday().num_days_from_monday().into()),
        _ => date(0).with_day(1).unwrap(),
    };
    let next = |start: NaiveDate| match by {
        "day" => start + Days::new(1),
        "week" => start + Days::new(7),
        _ => start + Months::new(1),
    };
    let starts = std::iter::successors(Some(first), |start| Some(next(*start)).filter(|next| *next <= date(DAYS)));
    starts.map(|start| Window { start, end: next(start) }).collect()
}

/// Returns the ids of the days from `start` until before `end`.
fn between(days: &[Activity], start: NaiveDate, end: NaiveDate, of: IdsOf) -> Ids {
    let inside = |index: &usize| (start..end).contains(&date(*index as u64));
    (0..days.len()).filter(inside).flat_map(|index| of(&days[index]).iter().copied()).collect()
}

fn expected_activity(days: &[Activity], by: &str, window: &Window, previous: &Ids, of: IdsOf) -> Value {
    let Window { start, end } = *window;
    let active = between(days, start, end, of);
    let new = &active - &between(days, NaiveDate::MIN, start, of);
    let returning = &active & previous;
    let mut expected = json!({
        "active": active.len(), "new": new.len(), "returning": returning.len(),
        "resurrected": (&(&active - &new) - &returning).len(), "lost": (previous - &active).len(), "exact": true,
    });
    if by == "day" {
        for length in [7, 30] {
            let rolling = between(days, end - Days::new(length), end, of);
            expected[format!("active_{length}_days")] = rolling.len().into();
        }
    }
    expected
}

fn expected_cohort(days: &[Activity], window: &Window, later: &[Window], of: IdsOf) -> Value {
    let Window { start, end } = *window;
    let new = &between(days, start, end, of) - &between(days, NaiveDate::MIN, start, of);
    let active = later.iter().map(|later| (&new & &between(days, later.start, later.end, of)).len());
    let after = |length: u64| {
        let has_come = end - Days::new(1) + Days::new(length) <= date(DAYS);
        has_come.then(|| {
            let first = |id: &u64| days.iter().position(|day| of(day).contains(id)).unwrap();
            let is_active = |id: &&u64| days.iter().skip(first(id) + length as usize).any(|day| of(day).contains(id));
            new.iter().filter(is_active).count()
        })
    };
    json!({
        "size": new.len(), "active": active.collect::<Vec<_>>(),
        "active_after_days": {"7": after(7), "30": after(30), "90": after(90)}, "exact": true,
    })
}

#[test]
fn h4_and_h5_forty_days_of_three_replicas_are_reported_as_plain_sets_count_them() {
    let workplace = Workplace::new();
    let days = recorded_days(&workplace);
    let kinds: [(&str, IdsOf); 2] =
        [("users", |activity| &activity.users), ("workspaces", |activity| &activity.workspaces)];
    let now = format!("{} 12:00:00", date(DAYS));
    for by in ["day", "week", "month"] {
        let windows = windows(by);
        let report = run_at(&workplace, &now, &["report", "--by", by, "--format", "json"]).json();
        let rows = report["rows"].as_array().unwrap();
        assert_eq!((report["by"].as_str(), rows.len()), (Some(by), windows.len()));
        let mut previous = [Ids::new(), Ids::new()];
        for (window, row) in windows.iter().zip(rows) {
            let in_window: Vec<_> = days
                .iter()
                .enumerate()
                .filter(|(index, _)| (window.start..window.end).contains(&date(*index as u64)))
                .map(|(_, day)| day)
                .collect();
            let mut expected = json!({
                "start": window.start, "end": window.end, "complete": window.end <= date(DAYS),
                "allowed_requests": in_window.iter().map(|day| day.allowed).sum::<u64>(),
                "denied_requests": in_window.iter().map(|day| day.denied).sum::<u64>(),
            });
            for ((kind, of), previous) in kinds.iter().zip(&mut previous) {
                expected[*kind] = expected_activity(&days, by, window, previous, *of);
                *previous = between(&days, window.start, window.end, *of);
            }
            assert_eq!(*row, expected, "by {by}");
        }

        let retention = run_at(&workplace, &now, &["report", "--retention", "--by", by, "--format", "json"]).json();
        let cohorts = retention["cohorts"].as_array().unwrap();
        assert_eq!((retention["by"].as_str(), cohorts.len()), (Some(by), windows.len()));
        for (index, (window, cohort)) in windows.iter().zip(cohorts).enumerate() {
            let mut expected = json!({"start": window.start});
            for (kind, of) in kinds {
                expected[kind] = expected_cohort(&days, window, &windows[index..], of);
            }
            assert_eq!(*cohort, expected, "by {by}");
        }
    }
    the_other_formats_have_the_same_numbers(&workplace, &now);
}

fn the_other_formats_have_the_same_numbers(workplace: &Workplace, now: &str) {
    let arguments = ["report", "--from", "2026-01-20", "--to", "2026-01-23", "--format"];
    let run = |format: &str| run_at(workplace, now, &[&arguments[..], &[format]].concat());
    let json = run("json").json();
    let csv = run("csv");
    let lines: Vec<_> = csv.stdout.lines().map(|line| line.split(',').collect::<Vec<_>>()).collect();
    assert_eq!((lines.len(), json["rows"].as_array().unwrap().len()), (4, 3));
    let human = run("human").stdout;
    for (line, row) in lines[1..].iter().zip(json["rows"].as_array().unwrap()) {
        for (name, cell) in lines[0].iter().zip(line) {
            let (kind, key) =
                name.split_once('_').filter(|(kind, _)| ["users", "workspaces"].contains(kind)).unwrap_or(("", name));
            let value = if kind.is_empty() { &row[key] } else { &row[kind][key] };
            let value = match value {
                // The mark is absent, or the number is exact and has no bounds.
                Value::Null if ["spans_midnight", "pruned"].contains(name) => "false".into(),
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(*cell, value, "{name}");
        }
        assert!(human.contains(row["start"].as_str().unwrap()), "{human}");
    }
    assert!(human.lines().all(|line| line.chars().count() <= 100), "{human}");
    let retention = run_at(workplace, now, &["report", "--retention", "--by", "week", "--format", "csv"]).stdout;
    assert!(retention.starts_with("start,kind,size,exact,active_after_7_days,"), "{retention}");
}

/// Writes a key file and creates a database with it.
fn init(workplace: &Workplace, database: &str, key: &str, mode: u32) -> Ended {
    let file = workplace.write("hashing.key", key);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    let arguments = ["init", "--hashing-key-file", "hashing.key", "--format", "json", "--database", database];
    workplace.run(arguments)
}

fn track(workplace: &Workplace, database: &str, workspace: u128) {
    let record = json!({"workspace": id(workspace), "owner": id(1), "allowed": 1, "denied": 0});
    let replayed = workplace.run_with_input(["replay", "-", "--database", database], &format!("{record}\n"));
    replayed.assert_succeeded();
    workplace.run(["collect", "--database", database]).assert_succeeded();
}

const KEY: &str = "00112233445566778899aabbccddeeff\n";

#[test]
fn h7_an_id_of_several_databases_with_one_key_counts_once() {
    let workplace = Workplace::new();
    let names = ["sqlite:eu.db", "sqlite:us.db"];
    let fingerprints = names.map(|name| init(&workplace, name, KEY, 0o600).json()["key_fingerprint"].clone());
    assert_eq!(fingerprints[0], fingerprints[1]);
    for (name, workspace) in [(names[0], 10), (names[0], 11), (names[1], 11), (names[1], 12)] {
        track(&workplace, name, workspace);
    }
    let report = workplace.json(["report", "--from-database", names[0], "--from-database", names[1]]);
    let today = report["rows"].as_array().unwrap().last().unwrap();
    assert_eq!(today["users"]["active"], 1, "{today}");
    assert_eq!((&today["workspaces"]["active"], &today["allowed_requests"]), (&json!(3), &json!(4)), "{today}");
}

#[test]
fn a_database_that_is_given_twice_is_refused_because_its_requests_would_count_twice() {
    let workplace = Workplace::new();
    init(&workplace, "sqlite:eu.db", KEY, 0o600).assert_succeeded();
    let twice = ["report", "--from-database", "sqlite:eu.db", "--from-database", "sqlite:./eu.db"];
    workplace.run(twice).assert_failed(2, "is given twice");
}

#[test]
fn h7_a_database_with_another_key_is_refused_by_name_and_fingerprint() {
    let workplace = Workplace::new();
    let first = init(&workplace, "sqlite:eu.db", KEY, 0o600).json();
    let other = init(&workplace, "sqlite:us.db", "ffeeddccbbaa99887766554433221100", 0o400).json();
    let ended = workplace.run(["report", "--from-database", "sqlite:eu.db", "--from-database", "sqlite:us.db"]);
    for text in
        ["eu.db", "us.db", first["key_fingerprint"].as_str().unwrap(), other["key_fingerprint"].as_str().unwrap()]
    {
        ended.assert_failed(1, text);
    }
}

#[test]
fn a_hashing_key_must_be_a_secret_of_the_right_length() {
    let workplace = Workplace::new();
    let secret = "00112233445566778899aabbccddeef";
    for (key, mode, reason) in [
        (KEY, 0o640, "has mode 0640, so others may read it; run: chmod 0600 hashing.key"),
        (KEY, 0o604, "has mode 0604"),
        (secret, 0o600, "neither 32 hexadecimal digits nor 16 bytes"),
        ("", 0o600, "neither 32 hexadecimal digits nor 16 bytes"),
    ] {
        let ended = init(&workplace, "sqlite:eu.db", key, mode);
        ended.assert_failed(1, reason);
        assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
    }
    assert_eq!(workplace.files(), ["hashing.key"]);
    workplace.run(["init", "--hashing-key-file", "missing"]).assert_failed(1, "cannot read the hashing key missing");
}

#[test]
fn an_existing_schema_with_another_key_is_refused_and_stays_as_it_is() {
    let workplace = Workplace::new();
    let before = init(&workplace, "sqlite:eu.db", KEY, 0o600).json();
    let ended = init(&workplace, "sqlite:eu.db", "ffeeddccbbaa99887766554433221100", 0o600);
    ended.assert_failed(1, before["key_fingerprint"].as_str().unwrap());
    assert_eq!(init(&workplace, "sqlite:eu.db", KEY, 0o600).json(), before);
}

#[test]
fn a_report_of_a_missing_database_creates_nothing() {
    let workplace = Workplace::new();
    workplace.run(["report"]).assert_failed(1, "there is no database file");
    workplace.run(["report", "--from-database", "sqlite:typo.db"]).assert_failed(1, "typo.db of --from-database");
    assert!(workplace.files().is_empty(), "{:?}", workplace.files());
}
