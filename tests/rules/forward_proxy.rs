//! The example `host/boundary-usage/examples/forward_proxy`, with curl as its client: a real program, the real
//! component, a SQLite file.

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

/// Its rules, with their tests.
#[path = "../../host/boundary-usage/examples/forward_proxy/rules.rs"]
mod allow_rules;

/// A running proxy; killed when dropped.
pub(crate) struct Proxy {
    process: Child,
    /// Where it listens.
    pub(crate) address: String,
    file: TestDatabase,
    _directory: TempDir,
}

impl Proxy {
    /// Two users: alice and bob, of workspaces 1 and 2, which carol owns.
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

    /// Runs curl through the proxy, as this user; answers the status and the body.
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

    /// Stops it in order; answers what its replica has written: workspaces, users, allowed, denied.
    pub(crate) async fn stop(mut self) -> Result<[u64; 4]> {
        Command::new("sh").args(["-c", r#"kill -s TERM "$0""#, &self.process.id().to_string()]).status()?;
        let mut said = String::new();
        self.process.stdout.take().context("stdout is piped")?.read_to_string(&mut said)?;
        ensure!(self.process.wait()?.success(), "{said}");
        let rows = Database::open(&self.file.url).await?.status().await?.rows;
        ensure!(rows.len() == 1, "{rows:?}");
        let row = &rows[0];
        Ok([row.unique_workspaces, row.unique_users, row.allowed_requests, row.denied_requests])
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server that answers with what it was asked, and below `/forbidden` with 403.
async fn upstream() -> Result<SocketAddr> {
    let answer = |uri: Uri, headers: HeaderMap, body: String| async move {
        let status = if uri.path() == "/forbidden" { StatusCode::FORBIDDEN } else { StatusCode::OK };
        let kept = ["proxy-authorization", "x-hop", "x-end"].map(|name| headers.contains_key(name));
        (status, format!("{uri} {kept:?} {body}"))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(answer))).await });
    Ok(address)
}

#[tokio::test]
async fn plain_requests_are_let_through_by_rule_and_counted_for_their_workspace() -> Result<()> {
    let upstream = upstream().await?;
    let proxy =
        Proxy::start(["method=GET domain=127.0.0.1 path=/v1/*,/forbidden", "method=POST domain=127.0.0.1 path=/in"])?;
    let url = |path: &str| format!("http://{upstream}{path}");
    let as_alice = async |arguments: &[&str]| proxy.curl("alice:secret", arguments).await;

    let answer = as_alice(&["-H", "Connection: x-hop", "-H", "X-Hop: 1", "-H", "X-End: 1", &url("/v1/a?b=c")]).await?;
    assert_eq!(answer, "/v1/a?b=c [false, false, true] 000 200 ");
    assert_eq!(as_alice(&["--data", "text", &url("/in")]).await?, "/in [false, false, false] text000 200 ");
    assert_eq!(proxy.curl("bob:pass:word", &[&url("/v1/b")]).await?, "/v1/b [false, false, false] 000 200 ");
    // The upstream's own 403 was let through to it.
    assert!(as_alice(&[&url("/forbidden")]).await?.ends_with("000 403 "));
    let denied = [&["--request", "DELETE"][..], &[], &["--path-as-is"]];
    for (arguments, path) in denied.into_iter().zip(["/v1/a", "/closed", "/v1/../closed"]) {
        let answer = as_alice(&[arguments, &[&url(path)]].concat()).await?;
        assert_eq!(answer, "no rule allows this request\n000 403 ", "{path}");
    }
    assert_eq!(proxy.stop().await?, [2, 1, 4, 3]);
    Ok(())
}

#[tokio::test]
async fn a_tunnel_carries_what_it_likes_and_counts_once() -> Result<()> {
    let upstream = upstream().await?;
    let proxy = Proxy::start(["domain=127.0.0.1", "method=GET domain=localhost"])?;
    let (first, second) = (format!("http://{upstream}/1"), format!("http://{upstream}/2"));
    let answer = proxy.curl("alice:secret", &["--proxytunnel", &first, &second]).await?;
    assert_eq!(answer, "/1 [false, false, false] 200 200 /2 [false, false, false] 000 200 ");
    // A rule about methods opens no tunnel, in which they could not be seen.
    let closed = format!("http://localhost:{}/3", upstream.port());
    assert_eq!(proxy.curl("alice:secret", &["--proxytunnel", &closed]).await?, "403 000 ");
    assert_eq!(proxy.stop().await?, [1, 1, 1, 1]);
    Ok(())
}

#[tokio::test]
async fn nobody_in_particular_is_let_through_nowhere_and_not_counted() -> Result<()> {
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
async fn an_upstream_that_cannot_be_reached_was_allowed_all_the_same() -> Result<()> {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let proxy = Proxy::start(["domain=127.0.0.1"])?;
    let url = format!("http://{gone}/");
    let answer = tokio::time::timeout(Duration::from_secs(60), proxy.curl("alice:secret", &[&url])).await??;
    assert_eq!(answer, "the upstream cannot be reached\n000 502 ");
    assert_eq!(proxy.curl("alice:secret", &["--proxytunnel", &url]).await?, "502 000 ");
    assert_eq!(proxy.stop().await?, [1, 1, 2, 0]);
    Ok(())
}
