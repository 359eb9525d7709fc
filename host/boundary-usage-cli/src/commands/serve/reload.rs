//! The reload of `serve --config` on SIGHUP.

use anyhow::{Result, ensure};
use tracing::{error, warn};

use crate::audit_socket::SocketChanges;
use crate::configuration::Configuration;
use crate::descriptors;
use crate::output;
use crate::service::Service;

/// The configuration of a running process.
pub(super) struct Reloader<Read> {
    /// Reads the options and the file again.
    read: Read,
    /// The settings that only a restart changes.
    started_with: Configuration,
}

impl<Read: Fn() -> Result<Configuration>> Reloader<Read> {
    pub(super) fn new(read: Read, started_with: Configuration) -> Self {
        Self { read, started_with }
    }

    /// Reads the configuration and serves its sockets. A failure changes nothing and is logged.
    pub(super) async fn reload(&self, service: &mut Service) {
        if let Err(error) = self.try_reload(service).await {
            error!("cannot reload the configuration; nothing has changed: {error:#}");
        }
    }

    async fn try_reload(&self, service: &mut Service) -> Result<()> {
        let configuration = (self.read)()?;
        ensure!(!configuration.sockets.is_empty(), "the configuration has no socket");
        descriptors::prepare(configuration.sockets.len())?;
        let changes = service.reload(&configuration.sockets).await?;
        for failure in &changes.failures {
            error!("a socket with other settings is not served any more: {failure}");
        }
        let Configuration { listen, allow_hosts, .. } = &self.started_with;
        if (&configuration.listen, &configuration.allow_hosts) != (listen, allow_hosts) {
            warn!("other values of `listen` and `allow-hosts` take effect at the next start");
        }
        let sockets = configuration.sockets.len();
        let SocketChanges { added, changed, removed, .. } = changes;
        // Like the message of the start, it does not depend on the log level.
        output::print_error(&format!(
            "reloaded the configuration: {sockets} sockets, {added} added, {changed} changed, {removed} removed"
        ));
        Ok(())
    }
}
