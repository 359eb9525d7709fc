//! Claims and failures of deliveries of summaries.
//!
//! A summary counts as delivered after its acknowledgement. A replica claims a delivery before it sends the summary, so
//! two replicas do not send it simultaneously. The claim is a lease that ends even if the replica crashes or hangs. All
//! times are the database's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::Database;
use crate::error::Error;
use crate::summary::Summary;

/// Maximum wait after a failed attempt, and maximum length of a lease.
///
/// Longer durations are reduced to this one.
pub const DELIVERY_WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The result of an attempt to claim a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryClaim {
    /// A summary to deliver, which no other replica can claim before the lease ends.
    Claimed(Delivery),
    /// No delivery is due. The next one is due after this time, or `None` if all summaries are delivered.
    NothingDue(Option<Duration>),
}

/// A summary to deliver.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The summary.
    pub summary: Summary,
    /// A key that all attempts of all replicas share.
    ///
    /// With this key, the receiver can discard duplicates.
    pub idempotency_key: Uuid,
    /// The number of this attempt, from 1.
    pub attempt: u64,
    /// Failed attempts since the last successful delivery.
    ///
    /// The number covers all undelivered summaries and all replicas.
    pub failures: u64,
    /// The id of this claim, for [`Database::delivery_failed`].
    pub lease: Uuid,
}

/// The state of the delivery of an undelivered summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryStatus {
    /// The number of attempts.
    pub attempts: u64,
    /// The start of the last attempt.
    pub attempted_at: DateTime<Utc>,
    /// The earliest time of the next attempt.
    ///
    /// This time is the end of the wait after a failure, or the end of the current lease.
    pub next_attempt_at: DateTime<Utc>,
    /// Whether a replica has claimed the delivery and has reported no result.
    pub under_way: bool,
    /// The reason for the last failure of an attempt.
    pub last_error: Option<String>,
}

/// The combined delivery state of all undelivered summaries.
pub(super) struct Destination {
    /// See [`Delivery::failures`].
    pub(super) failures: u64,
    /// The shortest wait of an undelivered summary.
    pub(super) first_due: Option<Duration>,
    /// The longest wait of an undelivered summary.
    pub(super) last_due: Option<Duration>,
}

impl Destination {
    /// Returns the time until the next claim is allowed, if the destination has failed.
    ///
    /// The next claim is allowed when the last wait or lease ends, so only one attempt at a time tests the destination.
    pub(super) fn backs_off(&self) -> Option<Duration> {
        self.last_due.filter(|_| self.failures > 0)
    }
}

impl Database {
    /// Claims the delivery of an undelivered summary that is due.
    ///
    /// The lease must be longer than an attempt can take. The caller sends the summary and then calls
    /// [`Database::acknowledge`], or [`Database::delivery_failed`] after a failure. If several deliveries are due, the
    /// oldest of those with the fewest attempts is claimed.
    ///
    /// All summaries go to the same destination. Therefore no summary can be claimed after a failure until the failed
    /// one is due again. A delivery is due regardless of its stored times if its attempt is in the future or its wait
    /// exceeds [`DELIVERY_WAIT_MAX`], because such times come from a clock that was ahead.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if the role may not claim deliveries.
    /// - Any other error of the backend if the claim cannot be written.
    pub async fn claim_delivery(&self, lease: Duration) -> Result<DeliveryClaim, Error> {
        self.backend().claim_delivery(Uuid::new_v4(), lease.min(DELIVERY_WAIT_MAX)).await
    }

    /// Records a failed attempt and the wait before the next one.
    ///
    /// Returns `false` and records nothing if another replica has claimed the delivery since.
    ///
    /// # Errors
    ///
    /// - [`Error::Refused`] if the role may not record failures.
    /// - Any other error of the backend if the failure cannot be written.
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
