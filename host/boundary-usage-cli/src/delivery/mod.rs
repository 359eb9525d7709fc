//! Delivery: `serve --deliver URL` sends each period's summary to a receiver.
//!
//! An undelivered summary is sent until a 2xx response acknowledges it. The delivery is then recorded once. Any replica
//! may send a summary: the database leases each delivery to one replica for a limited time. `request` is one attempt,
//! `payload` and `signature` are its content, and `schedule` computes the waits between attempts. `preview` shows
//! requests without sending them.
//!
//! All summaries have the same destination, so their failures are counted together, in the database. After a failure,
//! no replica sends another summary before the wait is over. If the receiver responds with 410, this process sends
//! nothing more.
//!
//! A receiver may get a summary twice if its response was lost or late. Every attempt carries the same
//! `Idempotency-Key`, so the receiver can recognize the repetition.

mod payload;
mod preview;
mod request;
mod schedule;
mod signature;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use boundary_usage::{Database, Delivery, DeliveryClaim, Error, FailedAttempts};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};
use uuid::Uuid;

pub use self::preview::{Preview, preview};
pub use self::request::Endpoint;
use self::request::Failure;

/// The poll interval for new summaries. Other replicas close periods, too.
const POLL: Duration = Duration::from_secs(2);

/// The part of a lease beyond the attempt's time limit.
///
/// The database may be slow to record the result of an attempt.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Time limit for a running attempt when the process stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The options of a delivery.
#[derive(Clone)]
pub struct DeliveryOptions {
    /// The `https` or `http` URL of the receiver.
    pub url: String,
    /// The file with the bearer token.
    pub token_file: Option<PathBuf>,
    /// The file with the secrets that sign each delivery.
    pub secret_file: Option<PathBuf>,
    /// The time limit of an attempt.
    pub timeout: Duration,
    /// The wait after the first failure.
    pub retry: Duration,
}

/// A handle to the task that delivers summaries.
pub struct Deliverer {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Deliverer {
    /// Starts to deliver, beginning with the oldest undelivered summary. Log lines name the replica.
    pub fn start(database: Database, endpoint: Endpoint, replica: Uuid) -> Self {
        let (stop, stopped) = watch::channel(false);
        let worker = DeliveryWorker { database, endpoint: Arc::new(endpoint) };
        Self { stop, task: tokio::spawn(worker.run(replica, stopped)) }
    }

    /// Stops. Waits for a running attempt until the time limit.
    ///
    /// An aborted attempt is repeated with the same key, by another replica or after the next start.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(STOP_LIMIT, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Delivers every summary that is due.
///
/// Returns the periods of the delivered summaries, and the wait until the next delivery is due, if any is undelivered.
///
/// # Errors
///
/// Returns an error if a delivery fails, which is recorded, or if the database cannot be used.
pub async fn deliver_due(database: Database, endpoint: Endpoint) -> anyhow::Result<(Vec<i64>, Option<Duration>)> {
    let worker = DeliveryWorker { database, endpoint: Arc::new(endpoint) };
    let mut delivered = Vec::new();
    loop {
        let delivery = match worker.claim().await? {
            DeliveryClaim::Claimed(delivery) => delivery,
            DeliveryClaim::NothingDue(due) => return Ok((delivered, due)),
        };
        let period = delivery.summary.period_id;
        match worker.attempt(&delivery).await? {
            Attempt::Delivered { .. } => delivered.push(period),
            Attempt::Failed { reason, .. } => bail!("the summary of period {period} is undelivered: {reason}"),
        }
    }
}

impl Drop for Deliverer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct DeliveryWorker {
    database: Database,
    endpoint: Arc<Endpoint>,
}

/// The next step of the worker.
enum Next {
    /// Poll the database again after this time.
    Poll(Duration),
    /// End, because the receiver is gone.
    End,
}

/// The recorded result of an attempt.
enum Attempt {
    Delivered { status: u16, was_undelivered: bool },
    Failed { reason: String, retry_in: Duration, is_gone: bool },
}

impl DeliveryWorker {
    async fn run(self, replica: Uuid, mut stopped: watch::Receiver<bool>) {
        let mut failures = FailedAttempts::default();
        while !*stopped.borrow_and_update() {
            let wait = match self.deliver_next(replica).await {
                Ok(Next::Poll(wait)) => {
                    if let Some(failed_attempts) = failures.succeeded() {
                        info!(%replica, failed_attempts, "deliveries can use the database again");
                    }
                    wait
                }
                Ok(Next::End) => return,
                Err(error) => {
                    let logged = failures.failed();
                    let retry_in = schedule::wait_after(self.endpoint.retry, failures.count(), rand::random());
                    if let Some(attempt) = logged {
                        let error: &dyn std::error::Error = &error;
                        let text = "cannot read or update deliveries in the database; it is tried again";
                        warn!(%replica, attempt, error, ?retry_in, "{text}");
                    }
                    retry_in
                }
            };
            // An error means that the handle was dropped, which aborts this task anyway.
            let _ = tokio::time::timeout(wait, stopped.changed()).await;
        }
    }

    async fn deliver_next(&self, replica: Uuid) -> Result<Next, Error> {
        let delivery = match self.claim().await? {
            DeliveryClaim::NothingDue(due) => return Ok(Next::Poll(schedule::poll(due, POLL, rand::random()))),
            DeliveryClaim::Claimed(delivery) => delivery,
        };
        let (period, attempt) = (delivery.summary.period_id, delivery.attempt);
        match self.attempt(&delivery).await? {
            Attempt::Delivered { status, was_undelivered } => {
                info!(%replica, period, attempt, status, was_undelivered, "delivered");
            }
            Attempt::Failed { reason: error, is_gone: true, .. } => {
                let text = "the delivery failed; this process sends nothing until it is restarted";
                warn!(%replica, period, attempt, error, "{text}");
                return Ok(Next::End);
            }
            Attempt::Failed { reason: error, retry_in, .. } => {
                warn!(%replica, period, attempt, error, ?retry_in, "the delivery failed; it is retried");
            }
        }
        Ok(Next::Poll(Duration::ZERO))
    }

    async fn claim(&self) -> Result<DeliveryClaim, Error> {
        self.database.claim_delivery(self.endpoint.timeout + LEASE_MARGIN).await
    }

    /// Sends a claimed summary, and records the result.
    async fn attempt(&self, delivery: &Delivery) -> Result<Attempt, Error> {
        let deployment = self.database.key_fingerprint().await?;
        let (endpoint, sent) = (self.endpoint.clone(), delivery.clone());
        let outcome = tokio::task::spawn_blocking(move || endpoint.send(&deployment, &sent)).await;
        let outcome = outcome.unwrap_or_else(|_| Err("the attempt panicked".to_owned().into()));
        let Failure { reason, retry_after, is_gone } = match outcome {
            Ok(status) => {
                let was_undelivered = self.database.acknowledge(delivery.summary.period_id).await?;
                return Ok(Attempt::Delivered { status, was_undelivered });
            }
            Err(failure) => failure,
        };
        // The failures of all summaries are counted together, and after a failure the database offers no other summary.
        let wait = schedule::wait_after(self.endpoint.retry, delivery.failures + 1, rand::random());
        let retry_in = wait.max(retry_after.unwrap_or_default());
        self.database.delivery_failed(delivery, &reason, retry_in).await?;
        Ok(Attempt::Failed { reason, retry_in, is_gone })
    }
}
