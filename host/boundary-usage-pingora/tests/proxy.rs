//! A real Pingora proxy on loopback, with the real component and a SQLite file.

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

/// A proxy that blocks what is private, and keeps its decisions where it is told to.
struct Proxy {
    usage: UsageLayer,
    upstream: SocketAddr,
    keeps_decisions: bool,
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
        if self.keeps_decisions {
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

/// A shutdown in order, when the test says so.
struct WhenTold(Mutex<Option<oneshot::Receiver<()>>>);

#[async_trait]
impl ShutdownSignalWatch for WhenTold {
    async fn recv(&self) -> ShutdownSignal {
        let told = self.0.lock().unwrap().take().expect("Pingora waits for a signal once");
        told.await.expect("the test tells it");
        ShutdownSignal::FastShutdown
    }
}

/// A running proxy, its tracker, and the runtime of that.
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
    fn start(upstream: SocketAddr, keeps_decisions: bool) -> Result<Self> {
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
        let (stop, told) = oneshot::channel();
        let proxy = Proxy { usage: usage.clone(), upstream, keeps_decisions };
        let server = thread::spawn(move || {
            let mut server = Server::new(None).expect("Pingora starts without options");
            server.bootstrap();
            let mut service = http_proxy_service(&server.configuration, proxy);
            service.add_tcp(&address.to_string());
            server.add_service(service);
            server.run(RunArgs { shutdown_signal: Box::new(WhenTold(Mutex::new(Some(told)))) });
        });
        while TcpStream::connect(address).is_err() {
            ensure!(!server.is_finished(), "Pingora has not started");
            thread::yield_now();
        }
        Ok(Self { runtime, _directory: directory, database, tracker, usage, address, stop, server })
    }

    /// Asks for paths in the name of a workspace; answers the statuses.
    fn ask(&self, workspace: u128, paths: &[&str]) -> Result<Vec<String>> {
        let (workspace, owner) = (Uuid::from_u128(workspace), Uuid::from_u128(7));
        let headers = format!("x-workspace: {workspace}\r\nx-owner: {owner}\r\n");
        paths.iter().map(|path| ask(self.address, path, &headers)).collect()
    }

    /// Stops the proxy, then the tracker, and collects.
    fn stop(self) -> Result<(TrafficCounts, Summary)> {
        let _ = self.stop.send(());
        ensure!(self.server.join().is_ok(), "Pingora broke down");
        let (tracker, database) = (self.tracker, self.database);
        let collected = self.runtime.block_on(async {
            tracker.shutdown().await?;
            database.collect(CollectOptions::default()).await
        })?;
        let Collection::Closed(summary) = collected else { unreachable!("no least age was asked for") };
        Ok((self.usage.counts(), summary))
    }
}

/// The status of the answer.
fn ask(address: SocketAddr, path: &str, headers: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// A server that forbids one path by itself.
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
            // A proxy that has gone away no longer wants the answer.
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    Ok(address)
}

#[test]
fn every_request_of_somebody_is_counted_by_its_status() -> Result<()> {
    let fixture = Fixture::start(upstream()?, false)?;
    assert_eq!(fixture.ask(1, &["/public", "/private", "/public"])?, ["200", "403", "200"]);
    assert_eq!(fixture.ask(2, &["/public"])?, ["200"]);
    assert_eq!(ask(fixture.address, "/public", "")?, "200");
    let (counts, summary) = fixture.stop()?;
    assert_eq!(counts, TrafficCounts { allowed: 3, denied: 1, unidentified: 1, refused: 0 });
    assert_eq!((summary.unique_workspaces, summary.unique_users), (2, 1));
    assert_eq!((summary.allowed_requests, summary.denied_requests), (3, 1));
    Ok(())
}

#[test]
fn a_proxy_that_keeps_its_decisions_knows_an_upstreams_403_from_its_own() -> Result<()> {
    let fixture = Fixture::start(upstream()?, true)?;
    assert_eq!(fixture.ask(1, &["/forbidden", "/private"])?, ["403", "403"]);
    let (_, summary) = fixture.stop()?;
    assert_eq!((summary.allowed_requests, summary.denied_requests), (1, 1));
    Ok(())
}

#[test]
fn an_upstream_that_cannot_be_reached_was_allowed_all_the_same() -> Result<()> {
    let gone = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let fixture = Fixture::start(gone, false)?;
    assert_eq!(fixture.ask(1, &["/public"])?, ["502"]);
    let (_, summary) = fixture.stop()?;
    assert_eq!((summary.allowed_requests, summary.denied_requests), (1, 0));
    Ok(())
}
