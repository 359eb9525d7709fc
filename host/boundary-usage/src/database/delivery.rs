//! The delivery of summaries: who is at it, until when, and what came of it.
//!
//! A summary is delivered when its delivery is acknowledged, however often it was sent before. So that two replicas do not
//! send one at once, whoever wants to send claims the delivery for a while; when that is over, because the claimant
//! died or hangs, the next one may. All times are the database's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::Database;
use crate::error::Error;
use crate::summary::Summary;

/// The longest wait for the next attempt: after a failure, or until a lease ends. Longer ones are shortened to this.
pub const DELIVERY_WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What there is to deliver now.
#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryClaim {
    /// A summary; nobody else gets it before the lease ends.
    Claimed(Delivery),
    /// Nothing now. The undelivered summary that can be claimed next can be so after this time; `None` when all
    /// are delivered.
    NothingDue(Option<Duration>),
}

/// A summary to deliver.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The summary.
    pub summary: Summary,
    /// The same for every attempt, by whichever replica: a receiver that gets it twice may forget the second.
    pub idempotency_key: Uuid,
    /// The number of this attempt, from 1.
    pub attempt: u64,
    /// Attempts that failed since the last delivery that succeeded, over all undelivered summaries and all replicas.
    pub failures: u64,
    /// Names this claim, for [`Database::delivery_failed`].
    pub lease: Uuid,
}

/// How the delivery of an undelivered summary fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryStatus {
    /// How often it was tried.
    pub attempts: u64,
    /// When the last time began.
    pub attempted_at: DateTime<Utc>,
    /// When it may be tried again: after a failure, or when the lease of an attempt under way ends.
    pub next_attempt_at: DateTime<Utc>,
    /// Whether somebody is at it, or died at it.
    pub under_way: bool,
    /// Why the last attempt that failed did.
    pub last_error: Option<String>,
}

/// How the deliveries of all undelivered summaries fare together.
pub(super) struct Destination {
    /// See [`Delivery::failures`].
    pub(super) failures: u64,
    /// The shortest wait of an undelivered summary.
    pub(super) first_due: Option<Duration>,
    /// The longest wait of an undelivered summary.
    pub(super) last_due: Option<Duration>,
}

impl Destination {
    /// How long no delivery may be claimed, because the destination fails: until every wait and every lease has ended, so
    /// that one attempt at a time shows whether it works again.
    pub(super) fn backs_off(&self) -> Option<Duration> {
        self.last_due.filter(|_| self.failures > 0)
    }
}

impl Database {
    /// Claims the delivery of an undelivered summary that is due, for as long as the lease: longer than an attempt can
    /// take. Of several, it claims the oldest of those that were tried least. To deliver it, acknowledge it with
    /// [`Database::acknowledge`]; otherwise report the failure with [`Database::delivery_failed`].
    ///
    /// After a failed attempt, no other summary can be claimed before the failed one is due again: they all go to the same
    /// destination. A stored time beyond [`DELIVERY_WAIT_MAX`], or of an attempt in the future, comes from a clock that was
    /// ahead, and is due.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, or does not let us.
    pub async fn claim_delivery(&self, lease: Duration) -> Result<DeliveryClaim, Error> {
        self.backend().claim_delivery(Uuid::new_v4(), lease.min(DELIVERY_WAIT_MAX)).await
    }

    /// Records why an attempt failed, and when the next may be made. Answers whether the claim still held; when somebody
    /// else has claimed the delivery since, nothing is recorded.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, or does not let us.
    pub async fn delivery_failed(&self, delivery: &Delivery, error: &str, retry_in: Duration) -> Result<bool, Error> {
        self.backend().delivery_failed(delivery, error, retry_in.min(DELIVERY_WAIT_MAX)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_for_the_next_attempt_is_a_day() {
        assert_eq!(DELIVERY_WAIT_MAX, Duration::from_secs(86_400));
    }

    #[test]
    fn a_destination_backs_off_until_its_last_wait_ends_after_a_failure() {
        let backs_off = |failures| {
            let (first_due, last_due) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(2)));
            Destination { failures, first_due, last_due }.backs_off()
        };
        assert_eq!(backs_off(0), None);
        assert_eq!(backs_off(1), Some(Duration::from_secs(2)));
        assert_eq!(Destination { failures: 1, first_due: None, last_due: None }.backs_off(), None);
    }
}
