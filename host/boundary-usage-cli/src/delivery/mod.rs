//! Delivery of summaries: `serve --deliver URL` sends each closed period's to whoever wants it.
//!
//! The end of the flow *… → database → collection → **delivery***. A summary that is undelivered in the database is sent
//! until a 2xx acknowledges it, and then recorded as delivered, once; by whichever replica is alive, because the
//! database says who is at it and until when. `request` is one attempt, `schedule` the waits between them.
//!
//! All summaries go to one destination, so its failures are counted together, in the database: after one, no replica sends
//! another summary before the wait is over. A receiver that answers 410 gets nothing more from this process.
//!
//! A receiver can get a summary twice: when its answer was lost, or came too late. Every attempt carries the same
//! `Idempotency-Key`, by which it can tell.

mod request;
mod schedule;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Database, Delivery, DeliveryClaim, Error};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

pub use self::request::Endpoint;
use self::request::Failure;

/// At least so often somebody looks for new summaries: other replicas close periods, too.
const POLL: Duration = Duration::from_secs(2);

/// How much longer than an attempt its lease is: for a slow database before and after it.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// How long an attempt under way may go on when the process is to end.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Where to deliver, and how.
pub struct DeliveryOptions {
    /// An `https` URL, or an `http` one.
    pub url: String,
    /// The file that holds the bearer token.
    pub token_file: Option<PathBuf>,
    /// The longest that an attempt may take.
    pub timeout: Duration,
    /// The wait after the first failure.
    pub retry: Duration,
}

/// Delivers in the background.
pub struct Deliverer {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Deliverer {
    /// Starts with what is undelivered already.
    pub fn start(database: Database, endpoint: Endpoint) -> Self {
        let (stop, stopped) = watch::channel(false);
        let worker = DeliveryWorker { database, endpoint: Arc::new(endpoint) };
        Self { stop, task: tokio::spawn(worker.run(stopped)) }
    }

    /// Begins no new attempt, and waits a little for the one under way. One that is given up is made again, under the same
    /// key, by another replica or the next start.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(STOP_LIMIT, &mut self.task).await.is_err() {
            self.task.abort();
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

/// What the worker does next.
enum Next {
    /// Looks for a delivery after this time.
    Look(Duration),
    /// Sends no more: the receiver is gone.
    End,
}

impl DeliveryWorker {
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut failures = 0;
        while !*stopped.borrow_and_update() {
            let wait = match self.deliver_next().await {
                Ok(Next::Look(wait)) => {
                    failures = 0;
                    wait
                }
                Ok(Next::End) => return,
                Err(error) => {
                    failures += 1;
                    let error: &dyn std::error::Error = &error;
                    warn!(error, "the database does not take part in a delivery; it is tried again");
                    schedule::wait_after(self.endpoint.retry, failures, rand::random())
                }
            };
            // A sender that is gone has been dropped with this task's handle: it ends either way.
            let _ = tokio::time::timeout(wait, stopped.changed()).await;
        }
    }

    async fn deliver_next(&self) -> Result<Next, Error> {
        match self.database.claim_delivery(self.endpoint.timeout + LEASE_MARGIN).await? {
            DeliveryClaim::NothingDue(due) => Ok(Next::Look(schedule::poll(due, POLL, rand::random()))),
            DeliveryClaim::Claimed(delivery) => self.deliver(&delivery).await,
        }
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<Next, Error> {
        let (period, attempt) = (delivery.summary.period_id, delivery.attempt);
        let (endpoint, sent) = (self.endpoint.clone(), delivery.clone());
        let outcome = tokio::task::spawn_blocking(move || endpoint.send(&sent)).await;
        let outcome = outcome.unwrap_or_else(|_| Err("the attempt broke down".to_owned().into()));
        let Failure { reason: error, retry_after, is_gone } = match outcome {
            Ok(status) => {
                let was_undelivered = self.database.acknowledge(period).await?;
                info!(period, attempt, status, was_undelivered, "delivered");
                return Ok(Next::Look(Duration::ZERO));
            }
            Err(failure) => failure,
        };
        // All summaries go to one destination, so its failures count together. The database keeps the others back, too.
        let wait = schedule::wait_after(self.endpoint.retry, delivery.failures + 1, rand::random());
        let retry_in = wait.max(retry_after.unwrap_or_default());
        self.database.delivery_failed(delivery, &error, retry_in).await?;
        if is_gone {
            warn!(period, attempt, error, "the delivery failed; this process delivers nothing until it is restarted");
            return Ok(Next::End);
        }
        warn!(period, attempt, error, ?retry_in, "the delivery failed; it is tried again");
        Ok(Next::Look(Duration::ZERO))
    }
}
