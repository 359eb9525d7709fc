//! A database without a connection, whose hashing key an earlier process has stored.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Ages, Backend, Database, DatabaseStatus, Delivery, DeliveryClaim, HashingKey, LiveReplicas, Purpose, StatusScope,
    Transaction,
};
use crate::error::Error;

/// A backend that forwards to another one as soon as it is connected. Until then, every call fails as unavailable.
pub(super) struct Unconnected {
    key: HashingKey,
    backend: watch::Sender<Option<Arc<dyn Backend>>>,
}

impl Database {
    /// Creates a database without a connection, for a start during an outage.
    ///
    /// The hashing key comes from an earlier connection: see [`KeyFile`](crate::KeyFile). A tracker of this database
    /// records into memory and its checkpoint until [`Database::connect_to`]. Until then, all other calls return
    /// [`Error::Unavailable`]. The caller must be on a Tokio runtime.
    pub fn unconnected(key: HashingKey) -> Self {
        let unconnected = Arc::new(Unconnected { key, backend: watch::Sender::new(None) });
        Self { unconnected: Some(unconnected.clone()), ..Self::with_backend(unconnected) }
    }

    /// Forwards all calls to a connected database on the same Tokio runtime.
    ///
    /// # Errors
    ///
    /// After an error, this database stays unconnected.
    ///
    /// - [`Error::Refused`] if this database is connected already.
    /// - [`Error::Refused`] if the connected database has another hashing key.
    /// - Any error of the connected database if its hashing key cannot be read.
    pub async fn connect_to(&self, connected: &Self) -> Result<(), Error> {
        let Some(unconnected) = &self.unconnected else {
            return Err(Error::Refused { message: "the database is connected already".into() });
        };
        if connected.backend.hashing_key().await? != unconnected.key {
            let message = "the database is not that of the previous start: it has another hashing key; restore the \
                           previous database, or restart to use this one";
            return Err(Error::Refused { message: message.into() });
        }
        unconnected.backend.send_replace(Some(connected.backend.clone()));
        Ok(())
    }

    /// Returns whether the database is connected.
    pub fn is_connected(&self) -> bool {
        self.unconnected.as_ref().is_none_or(|unconnected| unconnected.backend.borrow().is_some())
    }

    /// Waits until the database is connected.
    pub(crate) async fn connected(&self) {
        if let Some(unconnected) = &self.unconnected {
            // The wait cannot fail, because the sender lives as long as this database.
            let _ = unconnected.backend.subscribe().wait_for(Option::is_some).await;
        }
    }
}

impl Unconnected {
    fn backend(&self) -> Result<Arc<dyn Backend>, Error> {
        let source = "it has been unreachable since the start";
        self.backend.borrow().clone().ok_or_else(|| Error::Unavailable { action: "connecting", source: source.into() })
    }
}

#[async_trait]
impl Backend for Unconnected {
    async fn hashing_key(&self) -> Result<HashingKey, Error> {
        Ok(self.key)
    }

    async fn begin(&self, purpose: Purpose) -> Result<Box<dyn Transaction>, Error> {
        self.backend()?.begin(purpose).await
    }

    async fn status(&self, scope: StatusScope) -> Result<DatabaseStatus, Error> {
        self.backend()?.status(scope).await
    }

    async fn ages(&self) -> Result<Ages, Error> {
        self.backend()?.ages().await
    }

    async fn live_replicas(&self, within: Duration) -> Result<LiveReplicas, Error> {
        self.backend()?.live_replicas(within).await
    }

    async fn acknowledge(&self, period: i64) -> Result<bool, Error> {
        self.backend()?.acknowledge(period).await
    }

    async fn claim_delivery(&self, lease: Uuid, length: Duration) -> Result<DeliveryClaim, Error> {
        self.backend()?.claim_delivery(lease, length).await
    }

    async fn delivery_failed(&self, delivery: &Delivery, error: &str, retry_in: Duration) -> Result<bool, Error> {
        self.backend()?.delivery_failed(delivery, error, retry_in).await
    }

    async fn close(&self) {
        if let Ok(backend) = self.backend() {
            backend.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::time::timeout;

    use super::*;
    use crate::summary::Summary;

    async fn connect(directory: &Path) -> Database {
        Database::connect(&format!("sqlite:{}", directory.join("usage.db").display())).await.unwrap()
    }

    fn is_unavailable<T>(outcome: Result<T, Error>) -> bool {
        matches!(outcome, Err(Error::Unavailable { .. }))
    }

    #[tokio::test]
    async fn every_operation_is_unavailable_until_the_database_is_connected() {
        let directory = tempfile::tempdir().unwrap();
        let connected = connect(directory.path()).await;
        let database = Database::unconnected(connected.backend().hashing_key().await.unwrap());
        let (key, lease, no_time) = (Uuid::nil(), Uuid::nil(), Duration::ZERO);
        let delivery = Delivery { summary: Summary::default(), idempotency_key: key, attempt: 1, failures: 0, lease };
        assert!(!database.is_connected() && timeout(no_time, database.connected()).await.is_err());
        assert!(is_unavailable(database.status().await) && is_unavailable(database.ages().await));
        assert!(
            is_unavailable(database.acknowledge(1).await) && is_unavailable(database.claim_delivery(no_time).await)
        );
        assert!(is_unavailable(database.delivery_failed(&delivery, "", no_time).await));
        assert!(is_unavailable(database.backend().begin(Purpose::Flush).await.map(drop)));

        database.connect_to(&connected).await.unwrap();
        assert!(database.is_connected() && timeout(no_time, database.connected()).await.is_ok());
        let period_start = connected.status().await.unwrap().period_start;
        assert_eq!(database.status().await.unwrap().period_start, period_start);
        assert!(database.ages().await.unwrap().oldest_undelivered.is_none());
        assert!(matches!(database.acknowledge(1).await, Err(Error::Refused { .. })));
        assert!(matches!(database.claim_delivery(no_time).await, Ok(DeliveryClaim::NothingDue(None))));
        assert!(!database.delivery_failed(&delivery, "", no_time).await.unwrap());
        database.backend().begin(Purpose::Flush).await.unwrap().rollback().await;
        database.close().await;
        assert!(connected.status().await.is_err(), "it was not closed");
    }

    #[tokio::test]
    async fn a_database_with_another_key_is_refused_and_a_connected_one_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let connected = connect(directory.path()).await;
        let database = Database::unconnected(HashingKey(1, 2));
        assert!(matches!(database.connect_to(&connected).await, Err(Error::Refused { .. })));
        assert!(!database.is_connected() && connected.is_connected());
        assert!(matches!(connected.connect_to(&connected).await, Err(Error::Refused { .. })));
    }
}
