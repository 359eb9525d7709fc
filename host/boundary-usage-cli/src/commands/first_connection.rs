//! The first connection of `serve` to its database, in the background.
//!
//! If the state directory has the database's hashing key from an earlier start, the tracker starts without a
//! connection.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Once};

use anyhow::{Context, Error, Result};
use boundary_usage::{Database, KeyFile};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::CANNOT_USE;
use crate::audit_socket::Socket;
use crate::http::View;
use crate::output;

/// A future that completes only if the database is unusable, with the error.
pub(super) type Arrival = Pin<Box<dyn Future<Output = Error> + Send>>;

/// A connection attempt.
pub(super) struct FirstConnection {
    connected: AbortOnDropHandle<Result<Database, boundary_usage::Error>>,
    key_file: Option<KeyFile>,
    view: Arc<View>,
    announcement: Arc<Announcement>,
}

impl FirstConnection {
    /// Begins to connect.
    ///
    /// Announces the sockets after 2 s, even if there is no connection yet.
    pub(super) fn start(
        url: &str,
        state_directory: Option<&Path>,
        view: &Arc<View>,
        sockets: &[Socket],
    ) -> Result<Self> {
        let key_file = state_directory.map(|directory| KeyFile::new(directory, url)).transpose()?.flatten();
        let (url, view) = (url.to_owned(), view.clone());
        let announcement = Arc::new(Announcement { once: Once::new(), sockets: sockets.to_vec() });
        let connect = {
            let (view, announcement) = (view.clone(), announcement.clone());
            async move { view.connecting().connect(&url, || announcement.print()).await }
        };
        Ok(Self { connected: AbortOnDropHandle::new(tokio::spawn(connect)), key_file, view, announcement })
    }

    /// Returns the announcement that clients can connect.
    pub(super) fn announcement(&self) -> Arc<Announcement> {
        self.announcement.clone()
    }

    /// Returns the database.
    ///
    /// If the database is down and its hashing key is known, the result is an unconnected database and this connection
    /// attempt.
    pub(super) async fn database(mut self) -> Result<(Database, Option<Self>)> {
        let key = self.key_file.as_ref().map(KeyFile::read).transpose()?.flatten();
        let connected = match key {
            None => (&mut self.connected).await,
            Some(key) => tokio::select! {
                biased;
                connected = &mut self.connected => connected,
                () = self.view.connecting().down() => return Ok((Database::unconnected(key), Some(self))),
            },
        };
        let database = connected.context(CANNOT_USE)?.context(CANNOT_USE)?;
        remember(self.key_file.as_ref(), &database).await;
        Ok((database, None))
    }

    /// Waits for the connection, and passes it to the unconnected database.
    pub(super) async fn connect_to(self, database: &Database) -> Result<()> {
        let connected = self.connected.await.context(CANNOT_USE)?.context(CANNOT_USE)?;
        if let Err(error) = database.connect_to(&connected).await {
            // The key belongs to another database. The next start uses the database that exists now.
            remember(self.key_file.as_ref(), &connected).await;
            connected.close().await;
            return Err(Error::from(error).context(CANNOT_USE));
        }
        Ok(())
    }
}

/// Writes the hashing key to the state directory, for a start during an outage.
async fn remember(key_file: Option<&KeyFile>, database: &Database) {
    let Some(key_file) = key_file else { return };
    if let Err(error) = key_file.remember(database).await {
        let error = format!("{:#}", Error::from(error));
        warn!(error, "cannot write the hashing key to the state directory; the next start must wait for the database");
    }
}

/// The message that clients can connect.
///
/// The message does not depend on the log level, because supervisors wait for it.
pub(super) struct Announcement {
    once: Once,
    sockets: Vec<Socket>,
}

impl Announcement {
    /// Prints the message, once.
    pub(super) fn print(&self) {
        self.once.call_once(|| {
            for socket in &self.sockets {
                output::print_error(&format!("listening on {}", socket.path.display()));
            }
        });
    }
}
