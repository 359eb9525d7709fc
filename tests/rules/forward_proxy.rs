//! The example `host/boundary-usage/examples/forward_proxy` counts the requests of curl.
//!
//! The tests run the real program with the real component and a SQLite file.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::any;
use boundary_usage::Database;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::usage::id;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// The rules of the example, with their tests.
#[path = "../../host/boundary-usage/examples/forward_proxy/rules.rs"]
mod allow_rules;

/// A running proxy, which is killed when it is dropped.
pub(crate) struct Proxy {
    process: Child,
    /// The address on which the proxy listens.
    pub(crate) address: String,
    file: TestDatabase,
    _directory: TempDir,
}

impl Proxy {
    /// Starts a proxy with the users alice and bob of workspaces 1 and 2, which carol owns.
    pub(crate) fn start<const N: usize>(rules: [&str; N]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let users = directory.path().join("users.txt");
        let (alice, bob, carol) = (id(1), id(2), id(3));
        std::fs::write(&users, format!("alice secret {alice} {carol}\n\nbob pass:word {bob} {carol}\n"))?;
        let file = TestDatabase::sqlite()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_forward-proxy"));
        command.args(["--listen", "127.0.0.1:0", "--database", &file.url, "--users"]).arg(users);
        command.args(rules.iter().flat_map(|rule| ["--allow", rule]));
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(process.stderr.take().context("stderr is piped")?).lines();
        let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("listening on ")));
        let address = line.context("the proxy ended before it listened")??.replace("listening on ", "");
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, address, file, _directory: directory })
    }

    /// Runs curl through the proxy as this user, and returns the body and the status codes.
    async fn curl(&self, user: &str, arguments: &[&str]) -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "30", "--noproxy", "", "--write-out", "%{http_connect} %{http_code} "]);
        curl.args(["--proxy", &format!("http://{}", self.address)]);
        curl.args((!user.is_empty()).then_some(["--proxy-user", user]).into_iter().flatten());
        curl.args(arguments);
        let output = tokio::task::spawn_blocking(move || curl.output()).await?;
        let output = output.context("cannot run curl; `make setup` installs it")?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Stops the proxy with SIGTERM, and returns (workspaces, users, allowed, denied) of its row.
    pub(crate) async fn stop(mut self) -> Result<[u64; 4]> {
        Command::new("sh").args(["-c", r#"kill -s TERM "$0""#, &self.process.id().to_string()]).status()?;
        let mut output = String::new();
        self.process.stdout.take().context("stdout is piped")?.read_to_string(&mut output)?;
        ensure!(self.process.wait()?.success(), "{output}");
        let rows = Database::open(&self.file.url).await?.status().await?.rows;
        ensure!(rows.len() == 1, "{rows:?}");
        let row = &rows[0];
        Ok([row.unique_workspaces, row.unique_users, row.allowed_requests, row.denied_requests])
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The process may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a server that echoes requests, with status 403 for `/forbidden`.
async fn upstream() -> Result<SocketAddr> {
    let respond = |uri: Uri, headers: HeaderMap, body: String| async move {
        let status = if uri.path() == "/forbidden" { StatusCode::FORBIDDEN } else { StatusCode::OK };
        let kept = ["proxy-authorization", "x-hop", "x-end"].map(|name| headers.contains_key(name));
        (status, format!("{uri} {kept:?} {body}"))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(respond))).await });
    Ok(address)
}

#[tokio::test]
async fn plain_requests_follow_the_rules_and_count_for_their_workspace() -> Result<()> {
    let upstream = upstream().await?;
    let proxy =
        Proxy::start(["method=GET domain=127.0.0.1 path=/v1/*,/forbidden", "method=POST domain=127.0.0.1 path=/in"])?;
    let url = |path: &str| format!("http://{upstream}{path}");
    let as_alice = async |arguments: &[&str]| proxy.curl("alice:secret", arguments).await;

    let headers = ["-H", "Connection: x-hop", "-H", "X-Hop: 1", "-H", "X-End: 1"];
    let response = as_alice(&[&headers[..], &[&url("/v1/a?b=c")]].concat()).await?;
    assert_eq!(response, "/v1/a?b=c [false, false, true] 000 200 ");
    assert_eq!(as_alice(&["--data", "text", &url("/in")]).await?, "/in [false, false, false] text000 200 ");
    assert_eq!(proxy.curl("bob:pass:word", &[&url("/v1/b")]).await?, "/v1/b [false, false, false] 000 200 ");
    // The proxy allowed this request, and the 403 is from the upstream.
    assert!(as_alice(&[&url("/forbidden")]).await?.ends_with("000 403 "));
    let denied = [&["--request", "DELETE"][..], &[], &["--path-as-is"]];
    for (arguments, path) in denied.into_iter().zip(["/v1/a", "/closed", "/v1/../closed"]) {
        let response = as_alice(&[arguments, &[&url(path)]].concat()).await?;
        assert_eq!(response, "no rule allows this request\n000 403 ", "{path}");
    }
    assert_eq!(proxy.stop().await?, [2, 1, 4, 3]);
    Ok(())
}

#[tokio::test]
async fn a_tunnel_counts_once_for_all_its_requests() -> Result<()> {
    let upstream = upstream().await?;
    let proxy = Proxy::start(["domain=127.0.0.1", "method=GET domain=localhost"])?;
    let (first, second) = (format!("http://{upstream}/1"), format!("http://{upstream}/2"));
    let response = proxy.curl("alice:secret", &["--proxytunnel", &first, &second]).await?;
    assert_eq!(response, "/1 [false, false, false] 200 200 /2 [false, false, false] 000 200 ");
    // A rule with a method allows no tunnel, because the proxy cannot see the methods inside it.
    let closed = format!("http://localhost:{}/3", upstream.port());
    assert_eq!(proxy.curl("alice:secret", &["--proxytunnel", &closed]).await?, "403 000 ");
    assert_eq!(proxy.stop().await?, [1, 1, 1, 1]);
    Ok(())
}

#[tokio::test]
async fn unauthenticated_requests_are_denied_and_not_counted() -> Result<()> {
    let upstream = upstream().await?;
    let proxy = Proxy::start(["domain=*"])?;
    let url = format!("http://{upstream}/");
    for user in ["", "alice:wrong", "mallory:secret"] {
        assert_eq!(proxy.curl(user, &[&url]).await?, "authentication required\n000 407 ", "{user}");
        assert_eq!(proxy.curl(user, &["--proxytunnel", &url]).await?, "407 000 ", "{user}");
    }
    assert!(proxy.curl("alice:secret", &[&url]).await?.ends_with("000 200 "));
    assert_eq!(proxy.stop().await?, [1, 1, 1, 0]);
    Ok(())
}

#[tokio::test]
async fn a_request_to_an_unreachable_upstream_counts_as_allowed() -> Result<()> {
    // The listener is dropped, so connections to this address fail.
    let gone = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let proxy = Proxy::start(["domain=127.0.0.1"])?;
    let url = format!("http://{gone}/");
    let response = tokio::time::timeout(Duration::from_secs(60), proxy.curl("alice:secret", &[&url])).await??;
    assert_eq!(response, "the upstream cannot be reached\n000 502 ");
    assert_eq!(proxy.curl("alice:secret", &["--proxytunnel", &url]).await?, "502 000 ");
    assert_eq!(proxy.stop().await?, [1, 1, 2, 0]);
    Ok(())
}
