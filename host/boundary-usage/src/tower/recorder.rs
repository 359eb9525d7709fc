//! The recorder, which turns requests and decisions into activity.

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
    /// Tracks one request, or counts it as refused.
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

/// Returns a hook that logs the 1st, 2nd, 4th, 8th … refusal, so that many requests cause few warnings.
pub(super) fn logged(counters: Arc<Counters>) -> Arc<Refused> {
    Arc::new(move |_, error| {
        let refused = counters.counts().refused;
        if refused.is_power_of_two() {
            tracing::warn!(%error, refused, "the tracker refused a request's activity; the request passed");
        }
    })
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
