//! The layer of the feature `tower`, through a real axum server on loopback: who is counted, as what, and what happens
//! when the tracker takes nothing.

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

    /// Workspaces, users, allowed, denied of everything tracked.
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

/// Some paths, each with an answer of another kind.
fn router() -> Router {
    let forbidden = || async { StatusCode::FORBIDDEN };
    let upstreams_own = || async { (StatusCode::FORBIDDEN, Extension(Decision::Allowed)) };
    let blocked_politely = || async { (StatusCode::OK, Extension(Decision::Denied)) };
    let blocked_by_header = || async { ([("x-blocked", "yes")], "blocked") };
    Router::new()
        .route("/ok", get(|| async { "ok" }))
        .route("/forbidden", get(forbidden))
        .route("/upstreams-own", get(upstreams_own))
        .route("/blocked-politely", get(blocked_politely))
        .route("/blocked-by-header", get(blocked_by_header))
}

async fn serve(router: Router) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn ask(address: SocketAddr, paths: &[&str], headers: &str) -> Result<()> {
    for path in paths {
        let answer = loopback::ask(address, &format!("GET {path} HTTP/1.1\r\n{headers}")).await?;
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn extensions_say_who_asked_and_what_became_of_it_and_without_one_the_status() -> Result<()> {
    let fixture = Fixture::new().await?;
    let usage = UsageLayer::new(fixture.tracker.clone());
    let address = serve(router().layer(usage.clone()).layer(Extension(identity(1, 2)))).await?;
    ask(address, &["/ok", "/ok", "/forbidden", "/upstreams-own", "/blocked-politely", "/missing"], "").await?;
    assert_eq!(usage.counts(), TrafficCounts { allowed: 4, denied: 2, unidentified: 0, refused: 0 });
    assert_eq!(fixture.totals().await?, [1, 1, 4, 2]);
    Ok(())
}

#[tokio::test]
async fn headers_say_who_asked_and_whoever_does_not_is_passed_on_uncounted() -> Result<()> {
    let fixture = Fixture::new().await?;
    let [workspace, owner] = ["x-workspace", "x-owner"].map(HeaderName::from_static);
    let usage = UsageLayer::new(fixture.tracker.clone()).identify_by_headers(workspace, owner);
    let address = serve(router().layer(usage.clone())).await?;
    for (workspace, owner) in [(1, 7), (2, 7), (2, 7)] {
        let headers = format!("x-workspace: {}\r\nx-owner: {}\r\n", id(workspace), id(owner));
        ask(address, &["/ok", "/forbidden"], &headers).await?;
    }
    for nobody in ["", "x-workspace: alice\r\nx-owner: bob\r\n", &format!("x-workspace: {}\r\n", id(3))] {
        let answer = loopback::ask(address, &format!("GET /ok HTTP/1.1\r\n{nobody}")).await?;
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    }
    assert_eq!(usage.counts(), TrafficCounts { allowed: 3, denied: 3, unidentified: 3, refused: 0 });
    assert_eq!(fixture.totals().await?, [2, 1, 3, 3]);
    Ok(())
}

#[tokio::test]
async fn closures_say_who_asked_and_what_became_of_it() -> Result<()> {
    let fixture = Fixture::new().await?;
    let usage = UsageLayer::new(fixture.tracker.clone())
        .identify_by(|request| request.uri.query().map(|query| identity(query.len() as u128, 7)))
        .decide_by(|response| match response.headers.contains_key("x-blocked") {
            true => Decision::Denied,
            false => Decision::Allowed,
        });
    let address = serve(router().layer(usage.clone())).await?;
    ask(address, &["/ok?a", "/forbidden?ab", "/blocked-by-header?abc", "/ok"], "").await?;
    assert_eq!(usage.counts(), TrafficCounts { allowed: 2, denied: 1, unidentified: 1, refused: 0 });
    assert_eq!(fixture.totals().await?, [3, 1, 2, 1]);
    Ok(())
}

#[tokio::test]
async fn what_the_tracker_does_not_accept_is_passed_on_counted_and_told() -> Result<()> {
    let file = TestDatabase::sqlite()?;
    let database = file.connect().await?;
    let options = Options { intake_capacity: 2, ..Options::default() };
    // Nobody takes from the intake as long as `run` is not polled.
    let (tracker, run) = plugin().start_local(id(100), database.clone(), options).await?;
    let told = Arc::new(Mutex::new(Vec::new()));
    let usage = UsageLayer::new(tracker.clone())
        .identify_by(|request| request.uri.query().map(|query| identity(query.len() as u128, 7)))
        .when_refused({
            let told = told.clone();
            move |activity, error| told.lock().unwrap().push((activity.allowed, activity.denied, error.to_string()))
        });
    let address = serve(router().layer(usage.clone())).await?;
    // Each of another workspace: what waits already would take up no more room.
    ask(address, &["/ok?a", "/forbidden?ab", "/ok?abc", "/forbidden?abcd", "/ok?abcde"], "").await?;
    let full = TrackError::Full { capacity: 2 }.to_string();
    let expected = [(1, 0, full.clone()), (0, 1, full.clone()), (1, 0, full)];
    assert_eq!(told.lock().unwrap()[..], expected);
    assert_eq!(usage.counts(), TrafficCounts { allowed: 1, denied: 1, unidentified: 0, refused: 3 });

    let ((), stopped) = tokio::join!(run, tracker.shutdown());
    stopped?;
    ask(address, &["/ok?a"], "").await?;
    assert_eq!(told.lock().unwrap()[3].2, TrackError::Stopped.to_string());
    assert_eq!(totals(&database).await?, [2, 1, 1, 1]);
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_never_answered_was_not_blocked() -> Result<()> {
    let fixture = Fixture::new().await?;
    let usage = UsageLayer::new(fixture.tracker.clone()).identify_by(|_| Some(identity(1, 2)));
    let mut failing = usage.layer(tower::service_fn(|_: Request| ready(Err::<Response<()>, _>("no upstream"))));
    failing.call(Request::default()).await.unwrap_err();
    let mut hanging = usage.layer(tower::service_fn(|_: Request| pending::<Result<Response<()>, Infallible>>()));
    let answer = tokio::time::timeout(Duration::ZERO, hanging.call(Request::default()));
    answer.await.unwrap_err();
    assert_eq!(usage.counts(), TrafficCounts { allowed: 2, denied: 0, unidentified: 0, refused: 0 });
    // Also over a connection that the client closes.
    let asked = Arc::new(tokio::sync::Notify::new());
    let asking = asked.clone();
    let hang = move || async move {
        asking.notify_one();
        pending::<()>().await;
        StatusCode::OK.into_response()
    };
    let address = serve(Router::new().route("/", get(hang)).layer(usage.clone())).await?;
    let client = tokio::spawn(async move { loopback::ask(address, "GET / HTTP/1.1\r\n").await });
    asked.notified().await;
    client.abort();
    boundary_usage_tests::until(|| usage.counts().allowed == 3).await;
    assert_eq!(fixture.totals().await?, [1, 1, 3, 0]);
    Ok(())
}
