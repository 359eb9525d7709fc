//! A database that has not been reached yet, and whose hashing key is known.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::{Ages, Backend, Database, DatabaseStatus, Delivery, DeliveryClaim, HashingKey, Purpose, Transaction};
use crate::error::Error;

/// Hands everything to another backend once there is one. Until then, the database is unavailable.
pub(super) struct Unconnected {
    key: HashingKey,
    backend: watch::Sender<Option<Arc<dyn Backend>>>,
}

impl Database {
    /// A database that is away, and whose hashing key is known from an earlier connection: see
    /// [`KeyFile`](crate::KeyFile). Must be called on a Tokio runtime.
    ///
    /// A tracker that is started on it tracks into memory and its checkpoint, until [`Database::connect_to`] hands it the
    /// connected database. Everything else that is asked of it is [`Error::Unavailable`] until then.
    pub fn unconnected(key: HashingKey) -> Self {
        let unconnected = Arc::new(Unconnected { key, backend: watch::Sender::new(None) });
        Self { unconnected: Some(unconnected.clone()), ..Self::with_backend(unconnected) }
    }

    /// Lets an unconnected database be this one, which must be connected on the same Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if this one has another hashing key, and errors of the database; it then stays unconnected.
    pub async fn connect_to(&self, connected: &Self) -> Result<(), Error> {
        let Some(unconnected) = &self.unconnected else {
            return Err(Error::Refused { message: "the database is connected already".into() });
        };
        if connected.backend.hashing_key().await? != unconnected.key {
            let message = "the database is another one than at the last start: it has another hashing key; put the \
                           earlier database back, or start again to use this one";
            return Err(Error::Refused { message: message.into() });
        }
        unconnected.backend.send_replace(Some(connected.backend.clone()));
        Ok(())
    }

    /// Whether the database has been reached.
    pub fn is_connected(&self) -> bool {
        self.unconnected.as_ref().is_none_or(|unconnected| unconnected.backend.borrow().is_some())
    }

    /// Waits until the database has been reached.
    pub(crate) async fn connected(&self) {
        if let Some(unconnected) = &self.unconnected {
            // The sender lives as long as this does.
            let _ = unconnected.backend.subscribe().wait_for(Option::is_some).await;
        }
    }
}

impl Unconnected {
    fn backend(&self) -> Result<Arc<dyn Backend>, Error> {
        let source = "it has not been reached since the start";
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

    async fn status(&self) -> Result<DatabaseStatus, Error> {
        self.backend()?.status().await
    }

    async fn ages(&self) -> Result<Ages, Error> {
        self.backend()?.ages().await
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
