//! An empty environment variable counts as unset, errors name the variable, and durations have limits.

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{Ended, Serving, Workplace, numbers, one_socket};

#[test]
fn an_empty_variable_has_the_same_effect_as_an_unset_one() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let mut command = workplace.command(["serve", "--format", "json", "--state-dir", "state"]);
    for name in ["BOUNDARY_USAGE_DATABASE", "BOUNDARY_USAGE_DELIVER", "RUST_LOG", "STATE_DIRECTORY", "XDG_STATE_HOME"] {
        command.env(name, "");
    }
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env(name, "");
    }
    for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "XDG_CACHE_HOME", "PGSSLMODE", "PGSSLROOTCERT"] {
        command.env(name, "");
    }
    let mut serving = Serving::start(command.args(one_socket(&socket, 1, 2)), 0);
    // An empty RUST_LOG does not change the default level of `serve`, which logs these lines.
    serving.wait_for_log("serving");
    serving.wait_for_log("listening on");
    send_and_hang_up(&socket, SESSION);
    serving.stop().json();
    assert!(workplace.files().contains(&"boundary-usage.db".to_owned()), "{:?}", workplace.files());
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 9, 4]);
}

#[test]
fn an_empty_database_variable_selects_the_default_database() {
    let workplace = Workplace::new();
    workplace.write("nothing", "");
    workplace.json(["replay", "nothing"]);
    let mut command = workplace.command(["status", "--format", "json"]);
    let ended: Ended = command.env("BOUNDARY_USAGE_DATABASE", "").output().unwrap().into();
    ended.json();
    // An empty flag is an error.
    workplace.run(["status", "--database="]).assert_failed(2, "--database");
}

#[test]
fn an_empty_rust_log_shows_warnings_and_an_invalid_one_is_named() {
    let workplace = Workplace::new();
    workplace.write("lines", &format!("nonsense\n{}", crate::program::line(1, 2, 3, 4)));
    for (value, expected) in [("", "skipped"), ("boundary_usage=loud", "RUST_LOG"), ("a=b=c", "RUST_LOG")] {
        let mut command = workplace.command(["replay", "-v", "--skip-invalid", "lines"]);
        let ended: Ended = command.env("RUST_LOG", value).output().unwrap().into();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{expected:?} with RUST_LOG={value:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("skipped"), "RUST_LOG={value:?} hides the warning: {}", ended.stderr);
    }
}

#[test]
fn an_invalid_variable_is_named_in_the_error() {
    let workplace = Workplace::new();
    let socket = one_socket(&workplace.path("audit.sock"), 1, 2);
    for value in ["nonsense", "ftp://host/", "http://"] {
        let mut command = workplace.command(["serve", "--state-dir", "state"]);
        let ended: Ended = command.args(&socket).env("BOUNDARY_USAGE_DELIVER", value).output().unwrap().into();
        ended.assert_failed(2, "BOUNDARY_USAGE_DELIVER");
    }
    let mut command = workplace.command(["status"]);
    let ended: Ended = command.env("BOUNDARY_USAGE_DATABASE", "nonsense").output().unwrap().into();
    ended.assert_failed(2, "BOUNDARY_USAGE_DATABASE");
}

#[test]
fn a_duration_outside_its_range_is_refused_with_the_range() {
    let workplace = Workplace::new();
    let serve = "serve --config a.toml";
    for (arguments, range) in [
        ("--checkpoint-interval", "1ms to 1h"),
        ("--flush-interval", "1ms to 1day"),
        ("--collect-interval", "1ms to 366days"),
        ("--deliver http://127.0.0.1:1/ --deliver-timeout", "1ms to 1h"),
        ("--deliver http://127.0.0.1:1/ --deliver-retry", "1ms to 5m"),
    ] {
        for duration in ["8000y", "367d", "0s", "999us", "99999999999999999999y"] {
            let line = format!("{serve} {arguments} {duration}");
            let ended: Ended = workplace.command(line.split_whitespace()).output().unwrap().into();
            ended.assert_failed(2, range);
        }
    }
    for duration in ["8000y", "0s"] {
        workplace.run(["collect", "--max-staleness", duration]).assert_failed(2, "1ms to 366days");
    }
    assert!(workplace.files().is_empty(), "{:?}", workplace.files());
}
