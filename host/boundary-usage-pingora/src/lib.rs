//! Usage tracking for proxies built on Pingora: one call in the phase `logging`, which every request comes to, however it
//! ended.
//!
//! ```no_run
//! use async_trait::async_trait;
//! use boundary_usage::tower::UsageLayer;
//! use boundary_usage::{Database, Options, Plugin};
//! use http::HeaderName;
//! use pingora_core::server::{RunArgs, Server};
//! use pingora_core::upstreams::peer::HttpPeer;
//! use pingora_core::{Error, Result};
//! use pingora_proxy::{ProxyHttp, Session, http_proxy_service};
//!
//! struct Proxy {
//!     usage: UsageLayer,
//! }
//!
//! #[async_trait]
//! impl ProxyHttp for Proxy {
//!     type CTX = ();
//!     fn new_ctx(&self) {}
//!
//!     async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
//!         Ok(Box::new(HttpPeer::new("127.0.0.1:8000", false, String::new())))
//!     }
//!
//!     async fn logging(&self, session: &mut Session, _: Option<&Error>, _: &mut ()) {
//!         boundary_usage_pingora::record(&self.usage, session); // this line
//!     }
//! }
//!
//! # fn main() -> anyhow::Result<()> {
//! // The tracker needs a Tokio runtime that outlives Pingora's own.
//! let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
//! let tracker = runtime.block_on(async {
//!     let database = Database::connect("postgres://…").await?;
//!     Plugin::embedded()?.start(uuid::Uuid::new_v4(), database, Options::default()).await
//! })?;
//! let [workspace, owner] = ["x-workspace", "x-owner"].map(HeaderName::from_static);
//! let usage = UsageLayer::new(tracker.clone()).identify_by_headers(workspace, owner);
//!
//! let mut server = Server::new(None)?;
//! server.bootstrap();
//! let mut service = http_proxy_service(&server.configuration, Proxy { usage });
//! service.add_tcp("127.0.0.1:8080");
//! server.add_service(service);
//! server.run(RunArgs::default()); // not run_forever, which ends the process before the last flush
//! runtime.block_on(tracker.shutdown())?;
//! # Ok(())
//! # }
//! ```
//!
//! Who sent a request, and what becomes of those that the tracker does not accept, is set on the
//! [`UsageLayer`](boundary_usage::tower::UsageLayer), as for the layer itself; nothing here ever waits.

#![forbid(unsafe_code)]

use boundary_usage::tower::{Decision, UsageLayer};
use pingora_proxy::Session;

/// Tracks a request by what the client was answered: without other rules, 403 is a denial.
pub fn record(usage: &UsageLayer, session: &Session) {
    let response = session.response_written().map(|response| &**response);
    record_decision(usage, session, usage.decision(response));
}

/// Tracks a request whose decision the proxy has kept, in its `CTX` for one: it knows an upstream's own 403 from a denial.
pub fn record_decision(usage: &UsageLayer, session: &Session, decision: Decision) {
    usage.record(session.req_header(), decision);
}
