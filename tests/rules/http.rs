//! `serve --listen` responds to monitoring systems, supervisors and scripts over real connections.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::expected_usage::until;
use boundary_usage_tests::on_each_database;
use serde_json::{Value, json};

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{Ended, Workplace, id, one_socket, pick};

/// Time limit for a response. A response takes far less.
const LIMIT: Duration = Duration::from_secs(60);

/// An HTTP response.
pub(crate) struct Response {
    pub(crate) code: u16,
    /// Status line and headers in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends the bytes of a request unchanged, and reads the whole response.
pub(crate) fn send(address: &str, request: &str) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {response:?}"));
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub(crate) fn get(address: &str, path: &str) -> Response {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

pub(crate) fn json(address: &str) -> Value {
    serde_json::from_str(&get(address, "/status.json").body).unwrap()
}

/// Returns the value of the metric with this name and these labels.
pub(crate) fn metric(text: &str, name: &str) -> Option<f64> {
    let line =
        text.lines().find_map(|line| line.strip_prefix("boundary_usage_")?.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

pub(crate) fn with_http(socket: [String; 6], more: &[&str]) -> Vec<String> {
    let more = ["--listen", "127.0.0.1:0"].iter().chain(more);
    socket.into_iter().chain(more.map(|argument| (*argument).to_owned())).collect()
}

#[test]
fn d10_metrics_and_status_report_requests_flushes_and_clients() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let mut serving = workplace.serve(1, with_http(one_socket(&socket, 1, 2), &["-v", "--flush-interval", "20ms"]));
    let address = serving.http();
    send_and_hang_up(&socket, SESSION);
    serving.wait_for_log("Written");

    let response = get(&address, "/metrics");
    assert!(response.head.contains("content-type: text/plain; version=0.0.4"), "{}", response.head);
    let text = response.body;
    for (name, value) in [
        ("activities_total", 2.0),
        (r#"requests_total{decision="allowed"}"#, 9.0),
        (r#"requests_total{decision="denied"}"#, 4.0),
        (r#"flushes_total{outcome="failed"}"#, 0.0),
        (r#"client_dropped_logs_total{reason="channel_full"}"#, 5.0),
        (r#"client_dropped_logs_total{reason="batch_full"}"#, 3.0),
        ("skipped_logs_total", 1.0),
        ("client_connections_total", 1.0),
        ("intake_capacity_activities", 65_536.0),
        ("component_restarts_total", 0.0),
        ("component_restart_wait_seconds", 0.0),
        (r#"build_info{version="0.1.0"}"#, 1.0),
    ] {
        assert_eq!(metric(&text, name), Some(value), "{name} in\n{text}");
    }
    let written = metric(&text, r#"flushes_total{outcome="written"}"#).unwrap();
    assert!(written >= 1.0, "{text}");
    assert_eq!(metric(&text, "flush_duration_seconds_count"), Some(written), "{text}");
    assert_eq!(metric(&text, r#"flush_duration_seconds_bucket{le="+Inf"}"#), Some(written), "{text}");
    assert!(metric(&text, "flush_last_success_timestamp_seconds") > Some(1.7e9), "{text}");
    assert!(metric(&text, "checkpoint_age_seconds").is_some_and(|age| age >= 0.0), "{text}");

    let status = json(&address);
    assert_eq!(pick(&status, ["state", "ready", "not_ready"]), [json!("running"), json!(true), Value::Null]);
    assert_eq!(pick(&status["sockets"], ["allowed", "denied", "batches"]), [json!(9), json!(4), json!(2)]);
    assert_eq!(pick(&status["tracker"], ["activities", "last_error"]), [json!(2), Value::Null]);
    let so_far = &status["database"]["status"]["so_far"];
    assert_eq!(pick(so_far, ["unique_workspaces", "unique_users", "replicas"]), [json!(1), json!(1), json!(1)]);
    serving.stop().json();
}

on_each_database! {
    async fn the_ages_of_every_replica_fall_when_another_process_collects_and_delivers(test) {
        test.connect().await?;
        test.set_back("boundary_usage_deployment", "created_at", 9_000).await?;
        let workplace = Workplace::on(&test.url);
        let serve = |name| {
            let arguments = with_http(one_socket(&workplace.path(name), 1, 2), &["--no-collect"]);
            let serving = workplace.serve(1, arguments);
            (serving.http(), serving)
        };
        let replicas = [serve("a.sock"), serve("b.sock")];
        // A replica reads the ages at most once a second.
        let all_read = async |name, condition: fn(f64) -> bool| {
            for (address, _) in &replicas {
                until(name, async || Ok(metric(&get(address, "/metrics").body, name).is_some_and(condition))).await?;
            }
            anyhow::Ok(())
        };
        let (open, undelivered) = ("open_period_age_seconds", "oldest_undelivered_age_seconds");
        all_read(open, |age| age > 7_200.0).await?;
        workplace.json(["collect"]);
        all_read(open, |age| age < 300.0).await?;
        test.set_back("boundary_usage_periods", "period_end", 9_000).await?;
        all_read(undelivered, |age| age > 7_200.0).await?;
        workplace.json(["collect", "--acknowledge", "1"]);
        all_read(undelivered, |age| age == 0.0).await
    }
}

#[test]
fn metrics_and_status_contain_no_workspace_or_user_id() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let serving = workplace.serve(1, with_http(one_socket(&socket, 1, 2), &[]));
    send_and_hang_up(&socket, SESSION);
    for path in ["/metrics", "/status.json"] {
        let text = get(&serving.http(), path).body;
        assert!(!text.contains(&id(1)) && !text.contains(&id(2)), "{path}: {text}");
    }
}

#[test]
fn an_address_in_use_fails_the_start_before_anything_is_created() {
    let workplace = Workplace::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = listener.local_addr().unwrap().to_string();
    let serve = |address: &str| -> Ended {
        let arguments = one_socket(&workplace.path("audit.sock"), 1, 2);
        let mut command = workplace.command(["serve", "--listen", address, "--state-dir", "state"]);
        command.args(arguments).output().unwrap().into()
    };
    serve(&in_use).assert_failed(1, &format!("cannot listen for HTTP on {in_use}"));
    for wrong in ["localhost:9464", "9464", "127.0.0.1", "127.0.0.1:99999"] {
        serve(wrong).assert_failed(2, "write it like 127.0.0.1:9464");
    }
    assert_eq!(workplace.files(), [""; 0], "no database, socket or state directory is created");
}

#[test]
fn the_flag_for_the_address_overrides_the_configuration_file() {
    let workplace = Workplace::new();
    let file = |listen: &str| {
        let socket = format!("[[socket]]\npath = \"a.sock\"\nworkspace = \"{}\"\nowner = \"{}\"\n", id(1), id(2));
        workplace.write("serve.toml", &format!("listen = \"{listen}\"\n{socket}"))
    };
    file("127.0.0.1:0");
    let serving = workplace.serve(1, ["--config", "serve.toml"]);
    assert_eq!(get(&serving.http(), "/healthz").code, 200);
    // The address in the file is in use now, and the flag names another one.
    file(&serving.http());
    workplace.run(["serve", "--config", "serve.toml"]).assert_failed(1, "cannot listen for HTTP on");
    serving.stop().json();
    let serving = workplace.serve(1, ["--config", "serve.toml", "--listen", "127.0.0.1:0"]);
    assert_eq!(get(&serving.http(), "/healthz").body, "ok\n");
}

#[test]
fn serve_is_alive_but_not_ready_before_it_reaches_the_database() {
    // This listener accepts connections and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let workplace = Workplace::on(&format!("postgres://proxy@{}/usage?sslmode=disable", silent.local_addr().unwrap()));
    let mut serving = workplace.serve(0, with_http(one_socket(&workplace.path("audit.sock"), 1, 2), &[]));
    serving.wait_for_log("HTTP on");
    let address = serving.http();
    assert_eq!(get(&address, "/healthz").code, 200);
    let response = get(&address, "/readyz");
    assert_eq!(response.code, 503);
    assert!(response.body.starts_with("not ready: database: "), "{}", response.body);
    let status = json(&address);
    assert_eq!(pick(&status, ["state", "ready", "tracker"]), [json!("starting"), json!(false), Value::Null]);
    assert!(get(&address, "/metrics").body.contains("boundary_usage_build_info"));
    serving.kill();
}

#[tokio::test]
async fn serve_is_ready_while_it_serves_and_not_while_it_stops() -> anyhow::Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let workplace = Workplace::on(&test.url);
    let socket = workplace.path("audit.sock");
    let mut serving = workplace.serve(1, with_http(one_socket(&socket, 1, 2), &["--no-collect"]));
    let address = serving.http();
    let ready = get(&address, "/readyz");
    assert_eq!((ready.code, ready.body.as_str()), (200, "ready\n"));
    send_and_hang_up(&socket, SESSION);
    // The last flush waits for a collection that holds its lock.
    let mut collection = database.backend().begin(boundary_usage::Purpose::Collection).await?;
    collection.acquire(boundary_usage::Lock::Cutover, boundary_usage::LockMode::Exclusive).await?;
    serving.signal("TERM");
    serving.wait_for_log("stopping");
    let stopping = get(&address, "/readyz");
    assert_eq!((stopping.code, stopping.body.as_str()), (503, "not ready: the process is stopping\n"));
    assert_eq!(metric(&get(&address, "/metrics").body, "pending_activities"), Some(2.0));
    collection.rollback().await;
    serving.wait().json();
    Ok(())
}

#[tokio::test]
async fn an_unreadable_database_is_reported_without_its_password() -> anyhow::Result<()> {
    let test = TestDatabase::postgres().await?;
    test.connect().await?.close().await;
    let url = test.url.replacen("postgres@", "postgres:hunter2@", 1);
    let workplace = Workplace::on(&url);
    let socket = workplace.path("audit.sock");
    let serving = workplace.serve(1, with_http(one_socket(&socket, 1, 2), &["--no-collect"]));
    test.execute("DROP TABLE boundary_usage_periods CASCADE").await?;
    let address = serving.http();
    let database = json(&address)["database"].clone();
    assert_eq!(pick(&database, ["at", "status"]), [Value::Null, Value::Null]);
    assert!(database["error"].as_str().unwrap().contains("boundary_usage_periods"), "{database}");
    assert_eq!(get(&address, "/readyz").code, 200, "tracking continues");
    for path in ["/metrics", "/readyz", "/status.json", "/healthz"] {
        let Response { head, body, .. } = get(&address, path);
        assert!(!head.contains("hunter2") && !body.contains("hunter2"), "{path}: {head} {body}");
    }
    serving.kill();
    Ok(())
}

#[test]
fn invalid_requests_are_refused_and_do_not_affect_other_clients() {
    let workplace = Workplace::new();
    let serving = workplace.serve(1, with_http(one_socket(&workplace.path("audit.sock"), 1, 2), &[]));
    let address = serving.http();
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert_eq!(get(&address, "/nowhere").code, 404);
    assert_eq!(get(&address, "/../metrics").code, 404);
    let posted = send(&address, "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(posted.code, 405);
    assert!(posted.head.contains("allow: get, head"), "{}", posted.head);
    let head = send(&address, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.code, head.body.as_str()), (200, ""));
    assert_eq!(send(&address, "nonsense\r\n\r\n").code, 400);
    assert_eq!(send(&address, &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000))).code / 100, 4);
    let response = get(&address, "/healthz");
    assert_eq!(response.code, 200);
    for header in
        ["cache-control: no-store", "x-content-type-options: nosniff", "content-security-policy: default-src 'none'"]
    {
        assert!(response.head.contains(header), "{}", response.head);
    }
    drop(silent);
    serving.stop().json();
}
