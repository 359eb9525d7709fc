//! What a layer knows of its requests' usage, and hands to the tracker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{request, response};

use super::{Decision, Identity, TrafficCounts};
use crate::activity::Activity;
use crate::error::TrackError;
use crate::tracker::Tracker;

type Identify = dyn Fn(&request::Parts) -> Option<Identity> + Send + Sync;
type Decide = dyn Fn(&response::Parts) -> Decision + Send + Sync;
type Refused = dyn Fn(&Activity, &TrackError) + Send + Sync;

#[derive(Clone)]
pub(super) struct Recorder {
    pub(super) tracker: Tracker,
    pub(super) identify: Arc<Identify>,
    pub(super) decide: Arc<Decide>,
    pub(super) refused: Arc<Refused>,
    pub(super) counters: Arc<Counters>,
}

#[derive(Default)]
pub(super) struct Counters {
    allowed: AtomicU64,
    denied: AtomicU64,
    unidentified: AtomicU64,
    refused: AtomicU64,
}

impl Recorder {
    /// Tracks one request, or counts that it was not accepted.
    pub(super) fn record(&self, Identity { workspace, owner }: Identity, decision: Decision) {
        let (allowed, denied) = match decision {
            Decision::Allowed => (1, 0),
            Decision::Denied => (0, 1),
        };
        match self.tracker.try_track(workspace, owner, allowed, denied) {
            Ok(()) => add(if allowed == 1 { &self.counters.allowed } else { &self.counters.denied }),
            Err(error) => {
                add(&self.counters.refused);
                (self.refused)(&Activity { workspace, owner, allowed, denied }, &error);
            }
        }
    }

    pub(super) fn record_unidentified(&self) {
        add(&self.counters.unidentified);
    }
}

impl Counters {
    pub(super) fn counts(&self) -> TrafficCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TrafficCounts {
            allowed: read(&self.allowed),
            denied: read(&self.denied),
            unidentified: read(&self.unidentified),
            refused: read(&self.refused),
        }
    }
}

/// Logs the first refusal, the second, the fourth and so on: a flood of requests must not become a flood of warnings.
pub(super) fn logged(counters: Arc<Counters>) -> Arc<Refused> {
    Arc::new(move |_, error| {
        let refused = counters.counts().refused;
        if refused.is_power_of_two() {
            tracing::warn!(%error, refused, "a request was passed on without being tracked");
        }
    })
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
