//! Untrusted text cannot send control characters to a terminal or forge lines of output.

use std::os::unix::ffi::OsStrExt;

use boundary_usage_tests::databases::TestDatabase;

use crate::program::{Ended, Workplace, line};

/// Text that clears the screen, forges a line, sets the title, reverses text and hides text.
const HOSTILE: &str = "\x1b[2J\nerror: forged\r\x1b]0;title\x07\u{9b}31m\u{202e}\u{2066}\u{200b}\u{7f}";

/// Checks that no output contains a control character of [`HOSTILE`] or its forged line.
#[track_caller]
fn assert_harmless(ended: &Ended) {
    for output in [&ended.stdout, &ended.stderr] {
        let raw: Vec<_> = output.chars().filter(|character| HOSTILE.contains(*character)).collect();
        let hostile = raw.iter().filter(|character| !character.is_ascii() || character.is_ascii_control());
        assert_eq!(hostile.filter(|character| **character != '\n').count(), 0, "{output:?}");
        assert!(!output.lines().any(|line| line.starts_with("error: forged")), "{output}");
    }
}

#[test]
fn keys_and_names_of_recordings_are_escaped_and_shortened() {
    let workplace = Workplace::new();
    let key = serde_json::to_string(&format!("{HOSTILE}{}", "k".repeat(60_000))).unwrap();
    let bad = line(1, 1, 1, 1).replace("\"denied\"", &key);
    for arguments in [["replay", "-", "-v"], ["replay", "-", "--skip-invalid"]] {
        let failed = workplace.run_with_input(arguments, &bad);
        assert_eq!(failed.code, 1);
        assert_harmless(&failed);
        assert!(failed.stderr.contains(r"\u{1b}[2J\nerror: forged\r"), "{}", failed.stderr);
        assert!(failed.stderr.len() < 2_000, "{} bytes", failed.stderr.len());
    }
    let name = format!("{HOSTILE}.jsonl");
    let missing = workplace.run(["replay", &name]);
    assert_eq!(missing.code, 1);
    assert_harmless(&missing);
    workplace.write(&name, "nonsense\n");
    let logged = workplace.run(["replay", &name, "--skip-invalid", "-v"]);
    assert!(logged.stderr.contains("skipped "), "{}", logged.stderr);
    assert_harmless(&logged);
    let not_utf_8 = workplace.command([std::ffi::OsStr::new("replay"), std::ffi::OsStr::from_bytes(b"\xff\x1b")]);
    let mut not_utf_8 = not_utf_8;
    assert_harmless(&not_utf_8.output().unwrap().into());
}

#[test]
fn arguments_and_configuration_are_escaped() {
    let workplace = Workplace::new();
    for arguments in [
        vec![HOSTILE],
        vec!["status", HOSTILE],
        vec!["status", "--format", HOSTILE],
        vec!["replay", "a", "--replica", HOSTILE],
        vec!["serve", "--socket", "a", "--workspace", HOSTILE, "--owner", HOSTILE],
        vec!["serve", "--config", HOSTILE],
        vec!["man", "--output", HOSTILE],
        vec!["component", "--output", &format!("missing/{HOSTILE}")],
        vec!["status", "--database", &format!("sqlite:{HOSTILE}")],
        vec!["status", "--database", &format!("{HOSTILE}://host/")],
    ] {
        let ended: Ended = workplace.command(&arguments).output().unwrap().into();
        assert_ne!(ended.code, 0, "{arguments:?}");
        assert_harmless(&ended);
    }
    let key = serde_json::to_string(HOSTILE).unwrap().replace('\u{7f}', "\\u007f");
    workplace.write("sockets.toml", &format!("{key} = 1\n[[socket]]\n{key} = 2\npath = {key}\nworkspace = {key}\n"));
    let refused = workplace.run(["serve", "--config", "sockets.toml"]);
    refused.assert_failed(2, "\n  - line 3, column 1: unknown key");
    assert_harmless(&refused);
    workplace.write("broken.toml", &format!("path = {HOSTILE}"));
    let refused = workplace.run(["serve", "--config", "broken.toml"]);
    refused.assert_failed(2, "is not valid");
    assert_harmless(&refused);
}

#[tokio::test]
async fn text_from_the_database_is_escaped_in_tables_and_json() -> anyhow::Result<()> {
    let test = TestDatabase::sqlite()?;
    let workplace = Workplace::on(&test.url);
    workplace.write("good.jsonl", &line(1, 1, 5, 2));
    workplace.json(["replay", "good.jsonl"]);
    workplace.json(["collect"]);
    let database = test.connect().await?;
    let claimed = database.claim_delivery(std::time::Duration::from_secs(60)).await?;
    let boundary_usage::DeliveryClaim::Claimed(delivery) = claimed else { panic!("no summary is due") };
    assert!(database.delivery_failed(&delivery, HOSTILE, std::time::Duration::from_secs(1)).await?);
    database.close().await;
    let shown = workplace.run(["status"]);
    assert!(shown.stdout.contains(r"\u{1b}[2J\nerror: forged"), "{}", shown.stdout);
    assert_harmless(&shown);
    let shown = workplace.run(["status", "--format", "json"]);
    assert_harmless(&shown);
    assert_eq!(shown.json()["periods"][0]["delivery"]["last_error"], HOSTILE);
    Ok(())
}

#[tokio::test]
async fn errors_of_the_server_are_escaped_on_one_line() -> anyhow::Result<()> {
    let test = TestDatabase::postgres().await?;
    let workplace = Workplace::on(&test.url);
    workplace.write("good.jsonl", &line(1, 1, 5, 2));
    workplace.json(["replay", "good.jsonl"]);
    let raise = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION E'\\x1b[2J\\nerror: forged \\u202e'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON boundary_usage_periods EXECUTE FUNCTION refuse()";
    test.execute(raise).await?;
    let failed = workplace.run(["collect"]);
    failed.assert_failed(1, r"\u{1b}[2J\nerror: forged");
    assert_harmless(&failed);
    Ok(())
}
