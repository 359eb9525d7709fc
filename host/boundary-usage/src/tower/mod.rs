//! A `tower` layer that tracks requests, for hyper, axum, tonic and every other user of tower's services.
//!
//! This is the first step of the flow ***proxy** → intake → component → transaction → database*. For each request the
//! layer identifies the sender, calls the inner service, reads the decision from the response, and calls
//! [`Tracker::try_track`]. The layer never waits for the database.
//!
//! ```
//! use axum::{Extension, Router, body::Body, extract::Request, http::StatusCode, routing::get};
//! use boundary_usage::tower::{Identity, UsageLayer};
//! # use boundary_usage::{CollectOptions, Collection, Database, Options, Plugin};
//! # use tower_service::Service;
//! # use uuid::Uuid;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! # let directory = tempfile::tempdir()?;
//! # let database = Database::connect(&format!("sqlite:{}/usage.db", directory.path().display())).await?;
//! # let tracker = Plugin::embedded()?.start(Uuid::new_v4(), database.clone(), Options::default()).await?;
//! let usage = UsageLayer::new(tracker.clone());
//! let mut proxy = Router::new()
//!     .route("/public", get(|| async { "allowed" }))
//!     .fallback(|| async { StatusCode::FORBIDDEN })
//!     .layer(usage.clone())
//!     // The outer layer identifies the sender.
//!     .layer(Extension(Identity { workspace: Uuid::from_u128(1), owner: Uuid::from_u128(2) }));
//!
//! for path in ["/public", "/public", "/private"] {
//!     proxy.call(Request::get(path).body(Body::empty())?).await?;
//! }
//! tracker.shutdown().await?;
//! let Collection::Closed(summary) = database.collect(CollectOptions::default()).await? else { unreachable!() };
//! assert_eq!((summary.unique_workspaces, summary.allowed_requests, summary.denied_requests), (1, 2, 1));
//! assert_eq!(usage.counts().refused, 0);
//! # Ok(())
//! # }
//! ```
//!
//! **Identity.** By default the layer reads the request extension [`Identity`]. The layer can also use two headers or a
//! closure. A request without an identity passes untracked and counts as [`TrafficCounts::unidentified`].
//!
//! **Decision.** By default the layer reads the response extension [`Decision`]. Without this extension, status 403
//! means denied. A proxy that forwards upstream responses sets the extension, because an upstream's own 403 is not a
//! denial of the proxy. A closure can decide too. A request without a response counts as allowed, for example if the
//! service fails or the client disconnects. So every identified request is counted once.
//!
//! **Full intake.** If the intake is full or the tracker is shut down, the request still passes. The activity of that
//! request counts as [`TrafficCounts::refused`] and reaches the hook of [`when_refused`](UsageLayer::when_refused). The
//! default hook logs a warning.

mod recorder;
mod service;

use std::sync::Arc;

use http::header::{AsHeaderName, HeaderName};
use http::{HeaderMap, StatusCode, request, response};
use tower_layer::Layer;
use uuid::Uuid;

use self::recorder::{Counters, Recorder};
pub use self::service::{ResponseFuture, Usage};
use crate::activity::Activity;
use crate::error::TrackError;
use crate::tracker::Tracker;

/// The sender of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The workspace that sent the request.
    pub workspace: Uuid,
    /// The owner of the workspace.
    pub owner: Uuid,
}

/// The decision about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The proxy allowed the request.
    Allowed,
    /// The proxy denied the request.
    Denied,
}

/// The request counts of a layer and all its clones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Allowed requests that the tracker accepted.
    pub allowed: u64,
    /// Denied requests that the tracker accepted.
    pub denied: u64,
    /// Requests without an identity, which passed untracked.
    pub unidentified: u64,
    /// Requests that the tracker refused.
    ///
    /// Such requests passed but are in no summary, so this count should stay 0.
    pub refused: u64,
}

/// A layer that tracks the requests of a service.
///
/// The layer is cheap to clone, and clones share their counts.
#[derive(Clone)]
pub struct UsageLayer {
    recorder: Recorder,
}

impl UsageLayer {
    /// Creates a layer for a tracker.
    ///
    /// The caller remains responsible for the tracker's shutdown.
    pub fn new(tracker: Tracker) -> Self {
        let counters = Arc::new(Counters::default());
        let recorder = Recorder {
            tracker,
            identify: Arc::new(|request| request.extensions.get().copied()),
            decide: Arc::new(by_extension_or_status),
            refused: recorder::logged(counters.clone()),
            counters,
        };
        Self { recorder }
    }

    /// Reads workspace and owner from two headers, each a UUID.
    ///
    /// The proxy must set these headers itself or strip them from client requests. Otherwise a client could claim any
    /// identity.
    #[must_use]
    pub fn identify_by_headers(self, workspace: HeaderName, owner: HeaderName) -> Self {
        self.identify_by(move |request| {
            let id = |name| header(&request.headers, name);
            Some(Identity { workspace: id(&workspace)?, owner: id(&owner)? })
        })
    }

    /// Identifies the sender of a request by a closure. `None` means no identity.
    #[must_use]
    pub fn identify_by(
        mut self,
        identify: impl Fn(&request::Parts) -> Option<Identity> + Send + Sync + 'static,
    ) -> Self {
        self.recorder.identify = Arc::new(identify);
        self
    }

    /// Decides by a closure whether a response allowed or denied its request.
    #[must_use]
    pub fn decide_by(mut self, decide: impl Fn(&response::Parts) -> Decision + Send + Sync + 'static) -> Self {
        self.recorder.decide = Arc::new(decide);
        self
    }

    /// Calls `refused` for each activity that the tracker refuses.
    ///
    /// The call happens on the request's task, so `refused` must not block.
    #[must_use]
    pub fn when_refused(mut self, refused: impl Fn(&Activity, &TrackError) + Send + Sync + 'static) -> Self {
        self.recorder.refused = Arc::new(refused);
        self
    }

    /// Tracks one request with its decision.
    ///
    /// This function is for a proxy whose requests pass through no service.
    ///
    /// A request without an identity counts as [`TrafficCounts::unidentified`].
    pub fn record(&self, request: &request::Parts, decision: Decision) {
        match (self.recorder.identify)(request) {
            Some(identity) => self.recorder.record(identity, decision),
            None => self.recorder.record_unidentified(),
        }
    }

    /// Returns the decision for a response.
    ///
    /// A request without a response counts as allowed.
    pub fn decision(&self, response: Option<&response::Parts>) -> Decision {
        response.map_or(Decision::Allowed, |response| (self.recorder.decide)(response))
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> TrafficCounts {
        self.recorder.counters.counts()
    }
}

impl<S> Layer<S> for UsageLayer {
    type Service = Usage<S>;

    fn layer(&self, inner: S) -> Usage<S> {
        Usage::new(inner, Arc::new(self.recorder.clone()))
    }
}

fn by_extension_or_status(response: &response::Parts) -> Decision {
    match response.extensions.get() {
        Some(decision) => *decision,
        None if response.status == StatusCode::FORBIDDEN => Decision::Denied,
        None => Decision::Allowed,
    }
}

fn header(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Uuid> {
    Uuid::try_parse(headers.get(name)?.to_str().ok()?).ok()
}
