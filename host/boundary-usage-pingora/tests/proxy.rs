//! Tests with a Pingora proxy on loopback, the embedded component and a SQLite file.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use boundary_usage::tower::{Decision, TrafficCounts, UsageLayer};
use boundary_usage::{CollectOptions, Collection, Database, Options, Plugin, Summary, Tracker};
use http::HeaderName;
use pingora_core::Error;
use pingora_core::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use uuid::Uuid;

/// A proxy that denies requests to `/private`.
struct Proxy {
    usage: UsageLayer,
    upstream: SocketAddr,
    /// Whether the proxy records its own decisions.
    records_decisions: bool,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Option<Decision>;

    fn new_ctx(&self) -> Self::CTX {
        None
    }

    async fn request_filter(&self, session: &mut Session, decision: &mut Self::CTX) -> pingora_core::Result<bool> {
        let is_private = session.req_header().uri.path() == "/private";
        if is_private {
            session.respond_error(403).await?;
        }
        if self.records_decisions {
            *decision = Some(if is_private { Decision::Denied } else { Decision::Allowed });
        }
        Ok(is_private)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Self::CTX) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, decision: &mut Self::CTX) {
        match *decision {
            Some(decision) => boundary_usage_pingora::record_decision(&self.usage, session, decision),
            None => boundary_usage_pingora::record(&self.usage, session),
        }
    }
}

/// A shutdown signal that the test sends.
struct TestSignal(Mutex<Option<oneshot::Receiver<()>>>);

#[async_trait]
impl ShutdownSignalWatch for TestSignal {
    async fn recv(&self) -> ShutdownSignal {
        let signal = self.0.lock().unwrap().take().expect("Pingora waits for a signal once");
        signal.await.expect("the test sends the signal");
        ShutdownSignal::FastShutdown
    }
}

/// A running proxy, its tracker, and the tracker's runtime.
struct Fixture {
    runtime: Runtime,
    _directory: tempfile::TempDir,
    database: Database,
    tracker: Tracker,
    usage: UsageLayer,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: thread::JoinHandle<()>,
}

impl Fixture {
    fn start(upstream: SocketAddr, records_decisions: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let directory = tempfile::tempdir()?;
        let url = format!("sqlite:{}", directory.path().join("usage.db").display());
        let (database, tracker) = runtime.block_on(async {
            let database = Database::connect(&url).await?;
            let tracker = Plugin::embedded()?.start(Uuid::new_v4(), database.clone(), Options::default()).await?;
            anyhow::Ok((database, tracker))
        })?;
        let [workspace, owner] = ["x-workspace", "x-owner"].map(HeaderName::from_static);
        let usage = UsageLayer::new(tracker.clone()).identify_by_headers(workspace, owner);
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (stop, signal) = oneshot::channel();
        let proxy = Proxy { usage: usage.clone(), upstream, records_decisions };
        let server = thread::spawn(move || {
            let mut server = Server::new(None).expect("Pingora starts without options");
            server.bootstrap();
            let mut service = http_proxy_service(&server.configuration, proxy);
            service.add_tcp(&address.to_string());
            server.add_service(service);
            server.run(RunArgs { shutdown_signal: Box::new(TestSignal(Mutex::new(Some(signal)))) });
        });
        while TcpStream::connect(address).is_err() {
            ensure!(!server.is_finished(), "Pingora has not started");
            thread::yield_now();
        }
        Ok(Self { runtime, _directory: directory, database, tracker, usage, address, stop, server })
    }

    /// Requests paths as a workspace and returns the statuses.
    fn get(&self, workspace: u128, paths: &[&str]) -> Result<Vec<String>> {
        let (workspace, owner) = (Uuid::from_u128(workspace), Uuid::from_u128(7));
        let headers = format!("x-workspace: {workspace}\r\nx-owner: {owner}\r\n");
        paths.iter().map(|path| get(self.address, path, &headers)).collect()
    }

    /// Stops the proxy, then the tracker, and collects.
    fn stop(self) -> Result<(TrafficCounts, Summary)> {
        let _ = self.stop.send(());
        ensure!(self.server.join().is_ok(), "Pingora panicked");
        let (tracker, database) = (self.tracker, self.database);
        let collected = self.runtime.block_on(async {
            tracker.shutdown().await?;
            database.collect(CollectOptions::default()).await
        })?;
        let Collection::Closed(summary) = collected else { unreachable!("the minimum age is not set") };
        Ok((self.usage.counts(), summary))
    }
}

/// Sends a request and returns the status of the response.
fn get(address: SocketAddr, path: &str, headers: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// Starts an upstream server that responds to `/forbidden` with status 403.
fn upstream() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            let status = if request.starts_with(b"GET /forbidden ") { "403 Forbidden" } else { "200 OK" };
            // The proxy may have closed the connection.
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    Ok(address)
}

#[test]
fn every_identified_request_is_counted_by_its_status() -> Result<()> {
    let fixture = Fixture::start(upstream()?, false)?;
    assert_eq!(fixture.get(1, &["/public", "/private", "/public"])?, ["200", "403", "200"]);
    assert_eq!(fixture.get(2, &["/public"])?, ["200"]);
    assert_eq!(get(fixture.address, "/public", "")?, "200");
    let (counts, summary) = fixture.stop()?;
    assert_eq!(counts, TrafficCounts { allowed: 3, denied: 1, unidentified: 1, refused: 0 });
    assert_eq!((summary.unique_workspaces, summary.unique_users), (2, 1));
    assert_eq!((summary.allowed_requests, summary.denied_requests), (3, 1));
    Ok(())
}

#[test]
fn recorded_decisions_distinguish_denials_from_an_upstreams_403() -> Result<()> {
    let fixture = Fixture::start(upstream()?, true)?;
    assert_eq!(fixture.get(1, &["/forbidden", "/private"])?, ["403", "403"]);
    let (_, summary) = fixture.stop()?;
    assert_eq!((summary.allowed_requests, summary.denied_requests), (1, 1));
    Ok(())
}

#[test]
fn a_request_to_an_unreachable_upstream_counts_as_allowed() -> Result<()> {
    let gone = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let fixture = Fixture::start(gone, false)?;
    assert_eq!(fixture.get(1, &["/public"])?, ["502"]);
    let (_, summary) = fixture.stop()?;
    assert_eq!((summary.allowed_requests, summary.denied_requests), (1, 0));
    Ok(())
}
