//! A `tower` layer that tracks what passes through it: for hyper, axum, tonic, and whatever else takes tower's services.
//!
//! This is the first step of the flow ***proxy** → intake → component → transaction → database*, ready made. For each
//! request the layer finds who sent it, lets the service inside answer, sees in the answer whether the request was let
//! through or blocked, and hands that to [`Tracker::try_track`]. It never waits, whatever the database does.
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
//!     .route("/public", get(|| async { "let through" }))
//!     .fallback(|| async { StatusCode::FORBIDDEN })
//!     .layer(usage.clone())
//!     // Outside of the layer: whatever finds out who sent the request.
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
//! **Who sent it.** By default the request's extension [`Identity`]; else by headers, or by a closure. A request of
//! nobody is passed on and counted as [`TrafficCounts::unidentified`].
//!
//! **Allowed or denied.** By default the response's extension [`Decision`], and without one the status: 403 is a denial.
//! A proxy that hands on answers of others sets the extension, because an upstream's own 403 was no denial of ours.
//! A closure can decide, too. A request that is never answered (the service fails, or the client goes away first)
//! counts as allowed: nobody has blocked it. So every request of somebody is counted once.
//!
//! **When the intake is full**, or the tracker is shut down, the request is passed on all the same. That its activity was not
//! accepted is never silent: it counts as [`TrafficCounts::refused`], and goes to the hook of
//! [`when_refused`](UsageLayer::when_refused), which logs a warning unless set.

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

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The workspace that it came from.
    pub workspace: Uuid,
    /// The user who owns it.
    pub owner: Uuid,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was let through.
    Allowed,
    /// It was blocked.
    Denied,
}

/// What passed through a layer, and all its clones, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Requests let through, and accepted by the tracker.
    pub allowed: u64,
    /// Requests blocked, and accepted by the tracker.
    pub denied: u64,
    /// Requests of nobody: passed on, not tracked.
    pub unidentified: u64,
    /// Requests that the tracker did not accept: passed on, not in any summary. Watch that it stays 0.
    pub refused: u64,
}

/// Wraps a service so that its requests are tracked. Cheap to clone; clones share their counts.
#[derive(Clone)]
pub struct UsageLayer {
    recorder: Recorder,
}

impl UsageLayer {
    /// A layer that feeds this tracker. Shutting the tracker down remains with whoever started it.
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

    /// Finds workspace and owner in two headers, each a UUID. Only for headers that the proxy itself sets, or strips from
    /// what clients send: a client could else name somebody else.
    #[must_use]
    pub fn identify_by_headers(self, workspace: HeaderName, owner: HeaderName) -> Self {
        self.identify_by(move |request| {
            let id = |name| header(&request.headers, name);
            Some(Identity { workspace: id(&workspace)?, owner: id(&owner)? })
        })
    }

    /// Finds who sent a request by a closure; `None` is nobody.
    #[must_use]
    pub fn identify_by(
        mut self,
        identify: impl Fn(&request::Parts) -> Option<Identity> + Send + Sync + 'static,
    ) -> Self {
        self.recorder.identify = Arc::new(identify);
        self
    }

    /// Tells allowed from denied by a closure.
    #[must_use]
    pub fn decide_by(mut self, decide: impl Fn(&response::Parts) -> Decision + Send + Sync + 'static) -> Self {
        self.recorder.decide = Arc::new(decide);
        self
    }

    /// Calls this, on the request's task, for each activity that the tracker did not accept. It must not wait.
    #[must_use]
    pub fn when_refused(mut self, refused: impl Fn(&Activity, &TrackError) + Send + Sync + 'static) -> Self {
        self.recorder.refused = Arc::new(refused);
        self
    }

    /// For a proxy whose requests pass through no service: tracks one, now that it is known what became of it. Nobody's is
    /// counted as such.
    pub fn record(&self, request: &request::Parts, decision: Decision) {
        match (self.recorder.identify)(request) {
            Some(identity) => self.recorder.record(identity, decision),
            None => self.recorder.record_unidentified(),
        }
    }

    /// What became of a request with this answer; one that was never answered has not been blocked.
    pub fn decision(&self, response: Option<&response::Parts>) -> Decision {
        response.map_or(Decision::Allowed, |response| (self.recorder.decide)(response))
    }

    /// What passed through so far.
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
