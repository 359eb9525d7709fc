//! The layer of the feature `tower` in a real axum server: identities, decisions and refused activity.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use axum::extract::Request;
use axum::http::{HeaderName, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use boundary_usage::tower::{Decision, Identity, TrafficCounts, UsageLayer};
use boundary_usage::{CollectOptions, Collection, Database, Options, TrackError, Tracker};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::loopback;
use boundary_usage_tests::plugin;
use boundary_usage_tests::usage::id;
use tokio::net::TcpListener;
use tower::{Layer, Service};

/// A tracker on a SQLite file.
struct Fixture {
    _file: TestDatabase,
    database: Database,
    tracker: Tracker,
}

impl Fixture {
    async fn new() -> Result<Self> {
        let file = TestDatabase::sqlite()?;
        let database = file.connect().await?;
        let tracker = plugin().start(id(100), database.clone(), Options::default()).await?;
        Ok(Self { _file: file, database, tracker })
    }

    /// Shuts the tracker down, and returns all workspaces, users, allowed and denied requests.
    async fn totals(&self) -> Result<[u64; 4]> {
        self.tracker.shutdown().await?;
        totals(&self.database).await
    }
}

async fn totals(database: &Database) -> Result<[u64; 4]> {
    let Collection::Closed(summary) = database.collect(CollectOptions::default()).await? else { unreachable!() };
    Ok([summary.unique_workspaces, summary.unique_users, summary.allowed_requests, summary.denied_requests])
}

fn identity(workspace: u128, owner: u128) -> Identity {
    Identity { workspace: id(workspace), owner: id(owner) }
}

/// Returns routes with a different response each.
fn router() -> Router {
    let forbidden = || async { StatusCode::FORBIDDEN };
    let allowed_with_403 = || async { (StatusCode::FORBIDDEN, Extension(Decision::Allowed)) };
    let denied_with_200 = || async { (StatusCode::OK, Extension(Decision::Denied)) };
    let denied_by_header = || async { ([("x-denied", "yes")], "denied") };
    Router::new()
        .route("/ok", get(|| async { "ok" }))
        .route("/forbidden", get(forbidden))
        .route("/allowed-with-403", get(allowed_with_403))
        .route("/denied-with-200", get(denied_with_200))
        .route("/denied-by-header", get(denied_by_header))
}

async fn serve(router: Router) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn request(address: SocketAddr, paths: &[&str], headers: &str) -> Result<()> {
    for path in paths {
        let response = loopback::request(address, &format!("GET {path} HTTP/1.1\r\n{headers}")).await?;
        assert!(response.starts_with("HTTP/1.1 "), "{response}");
    }
    Ok(())
}

#[tokio::test]
async fn extensions_set_identity_and_decision_and_otherwise_the_status_decides() -> Result<()> {
    let fixture = Fixture::new().await?;
    let usage = UsageLayer::new(fixture.tracker.clone());
    let address = serve(router().layer(usage.clone()).layer(Extension(identity(1, 2)))).await?;
    request(address, &["/ok", "/ok", "/forbidden", "/allowed-with-403", "/denied-with-200", "/missing"], "").await?;
    assert_eq!(usage.counts(), TrafficCounts { allowed: 4, denied: 2, unidentified: 0, refused: 0 });
    assert_eq!(fixture.totals().await?, [1, 1, 4, 2]);
    Ok(())
}

#[tokio::test]
async fn headers_identify_requests_and_unidentified_ones_pass_uncounted() -> Result<()> {
    let fixture = Fixture::new().await?;
    let [workspace, owner] = ["x-workspace", "x-owner"].map(HeaderName::from_static);
    let usage = UsageLayer::new(fixture.tracker.clone()).identify_by_headers(workspace, owner);
    let address = serve(router().layer(usage.clone())).await?;
    for (workspace, owner) in [(1, 7), (2, 7), (2, 7)] {
        let headers = format!("x-workspace: {}\r\nx-owner: {}\r\n", id(workspace), id(owner));
        request(address, &["/ok", "/forbidden"], &headers).await?;
    }
    for headers in ["", "x-workspace: alice\r\nx-owner: bob\r\n", &format!("x-workspace: {}\r\n", id(3))] {
        let response = loopback::request(address, &format!("GET /ok HTTP/1.1\r\n{headers}")).await?;
        assert!(response.ends_with("\r\n\r\nok"), "{response}");
    }
    assert_eq!(usage.counts(), TrafficCounts { allowed: 3, denied: 3, unidentified: 3, refused: 0 });
    assert_eq!(fixture.totals().await?, [2, 1, 3, 3]);
    Ok(())
}

#[tokio::test]
async fn closures_set_identity_and_decision() -> Result<()> {
    let fixture = Fixture::new().await?;
    let usage = UsageLayer::new(fixture.tracker.clone())
        .identify_by(|request| request.uri.query().map(|query| identity(query.len() as u128, 7)))
        .decide_by(|response| match response.headers.contains_key("x-denied") {
            true => Decision::Denied,
            false => Decision::Allowed,
        });
    let address = serve(router().layer(usage.clone())).await?;
    request(address, &["/ok?a", "/forbidden?ab", "/denied-by-header?abc", "/ok"], "").await?;
    assert_eq!(usage.counts(), TrafficCounts { allowed: 2, denied: 1, unidentified: 1, refused: 0 });
    assert_eq!(fixture.totals().await?, [3, 1, 2, 1]);
    Ok(())
}

#[tokio::test]
async fn requests_pass_and_are_reported_if_the_tracker_refuses_their_activity() -> Result<()> {
    let file = TestDatabase::sqlite()?;
    let database = file.connect().await?;
    let options = Options { intake_capacity: 2, ..Options::default() };
    // The intake stays full while `run` is not polled.
    let (tracker, run) = plugin().start_local(id(100), database.clone(), options).await?;
    let refused = Arc::new(Mutex::new(Vec::new()));
    let usage = UsageLayer::new(tracker.clone())
        .identify_by(|request| request.uri.query().map(|query| identity(query.len() as u128, 7)))
        .when_refused({
            let refused = refused.clone();
            move |activity, error| refused.lock().unwrap().push((activity.allowed, activity.denied, error.to_string()))
        });
    let address = serve(router().layer(usage.clone())).await?;
    // Each request has another workspace, because activity of a waiting workspace needs no capacity.
    request(address, &["/ok?a", "/forbidden?ab", "/ok?abc", "/forbidden?abcd", "/ok?abcde"], "").await?;
    let full = TrackError::Full { capacity: 2 }.to_string();
    let expected = [(1, 0, full.clone()), (0, 1, full.clone()), (1, 0, full)];
    assert_eq!(refused.lock().unwrap()[..], expected);
    assert_eq!(usage.counts(), TrafficCounts { allowed: 1, denied: 1, unidentified: 0, refused: 3 });

    let ((), stopped) = tokio::join!(run, tracker.shutdown());
    stopped?;
    request(address, &["/ok?a"], "").await?;
    assert_eq!(refused.lock().unwrap()[3].2, TrackError::Stopped.to_string());
    assert_eq!(totals(&database).await?, [2, 1, 1, 1]);
    Ok(())
}

#[tokio::test]
async fn requests_without_a_response_count_as_allowed() -> Result<()> {
    let fixture = Fixture::new().await?;
    let usage = UsageLayer::new(fixture.tracker.clone()).identify_by(|_| Some(identity(1, 2)));
    let mut failing = usage.layer(tower::service_fn(|_: Request| ready(Err::<Response<()>, _>("no upstream"))));
    failing.call(Request::default()).await.unwrap_err();
    let mut hanging = usage.layer(tower::service_fn(|_: Request| pending::<Result<Response<()>, Infallible>>()));
    let response = tokio::time::timeout(Duration::ZERO, hanging.call(Request::default()));
    response.await.unwrap_err();
    assert_eq!(usage.counts(), TrafficCounts { allowed: 2, denied: 0, unidentified: 0, refused: 0 });
    // The same holds for a request whose client closes the connection.
    let started = Arc::new(tokio::sync::Notify::new());
    let starting = started.clone();
    let hang = move || async move {
        starting.notify_one();
        pending::<()>().await;
        StatusCode::OK.into_response()
    };
    let address = serve(Router::new().route("/", get(hang)).layer(usage.clone())).await?;
    let client = tokio::spawn(async move { loopback::request(address, "GET / HTTP/1.1\r\n").await });
    started.notified().await;
    client.abort();
    boundary_usage_tests::until(|| usage.counts().allowed == 3).await;
    assert_eq!(fixture.totals().await?, [1, 1, 3, 0]);
    Ok(())
}
