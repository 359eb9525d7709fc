//! Usage tracking for proxies built on Pingora.
//!
//! The proxy calls [`record`] in the phase `logging`, which every request reaches.
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
//!         boundary_usage_pingora::record(&self.usage, session); // tracks the request
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
//! server.run(RunArgs::default()); // run_forever would end the process before the last flush
//! runtime.block_on(tracker.shutdown())?;
//! # Ok(())
//! # }
//! ```
//!
//! The [`UsageLayer`](boundary_usage::tower::UsageLayer) configures how to identify the sender and what to do with
//! refused activity. No function of this crate waits.

#![forbid(unsafe_code)]

use boundary_usage::tower::{Decision, UsageLayer};
use pingora_proxy::Session;

/// Tracks a request with the layer's decision about its response.
///
/// By default, status 403 means denied.
pub fn record(usage: &UsageLayer, session: &Session) {
    let response = session.response_written().map(|response| &**response);
    record_decision(usage, session, usage.decision(response));
}

/// Tracks a request with the proxy's own decision.
///
/// A proxy that records its decisions distinguishes its own denials from an upstream's 403.
pub fn record_decision(usage: &UsageLayer, session: &Session, decision: Decision) {
    usage.record(session.req_header(), decision);
}
