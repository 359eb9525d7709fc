//! The log lines of a collector.

use std::time::Duration;

use tracing::field::{DisplayValue, display};
use uuid::Uuid;

use super::Collection;
use crate::database::Pruned;
use crate::error::Error;
use crate::failed_attempts::FailedAttempts;

/// The log of one collector. Its lines name the replica, if there is one.
pub(super) struct Log {
    replica: Option<DisplayValue<Uuid>>,
    failures: FailedAttempts,
}

impl Log {
    pub(super) fn new(replica: Option<Uuid>) -> Self {
        Self { replica: replica.map(display), failures: FailedAttempts::default() }
    }

    /// Logs the outcome of a collection. `wait` is the time until the next one.
    pub(super) fn collected(&mut self, outcome: &Result<Collection, Error>, wait: Duration) {
        let replica = &self.replica;
        match outcome {
            Ok(Collection::Closed(summary)) => tracing::info!(
                replica,
                period = summary.period_id,
                replicas = summary.replicas,
                unique_workspaces = summary.unique_workspaces,
                unique_users = summary.unique_users,
                "collected"
            ),
            Ok(Collection::NotDue { age, .. }) => tracing::debug!(replica, ?age, "the period is not due yet"),
            Err(error) => {
                if let Some(attempt) = self.failures.failed() {
                    let error = error as &dyn std::error::Error;
                    let retry_in = wait;
                    tracing::warn!(replica, attempt, error, ?retry_in, "the collection failed; it is tried again");
                }
                return;
            }
        }
        if let Some(failed_attempts) = self.failures.succeeded() {
            tracing::info!(replica, failed_attempts, "the collections succeed again");
        }
    }

    /// Logs the outcome of the day's pruning.
    pub(super) fn pruned(&self, outcome: &Result<Pruned, Error>) {
        let replica = &self.replica;
        match outcome {
            Ok(pruned) if pruned.is_empty() => tracing::debug!(replica, "there is nothing to prune"),
            Ok(Pruned { periods, undelivered_kept, replicas, days }) => {
                tracing::info!(replica, periods, undelivered_kept, replicas, days, "pruned");
            }
            Err(error) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(replica, error, "the pruning failed; it is tried again tomorrow");
            }
        }
    }
}
