//! The parts of a running `serve`, and their start.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, Result};
use boundary_usage::{Clock, CollectOptions, Database, Error, FirstConnection, Plugin};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::super::CANNOT_USE;
use super::super::announcement::Announcement;
use super::Arguments;
use crate::arguments::Global;
use crate::audit_socket::BoundSockets;
use crate::configuration::Configuration;
use crate::delivery::{Deliverer, Endpoint};
use crate::descriptors;
use crate::http::{self, AllowedHosts, Replica, View};
use crate::service::Service;
use crate::supervisor;

/// A future that completes only if the database is unusable, with the error.
pub(super) type Arrival = Pin<Box<dyn Future<Output = anyhow::Error> + Send>>;

/// The parts of a running `serve`.
pub(super) struct Running {
    pub(super) service: Service,
    pub(super) database: Database,
    pub(super) collector: Option<AbortOnDropHandle<()>>,
    pub(super) deliverer: Option<Deliverer>,
    /// Completes only if the database was down at the start and is unusable.
    pub(super) arrival: Arrival,
    /// Serves HTTP until dropped.
    pub(super) _http: Option<AbortOnDropHandle<()>>,
    /// Reports to the supervisor until dropped.
    pub(super) _supervision: Option<AbortOnDropHandle<()>>,
}

impl Running {
    pub(super) async fn start(
        global: &Global,
        arguments: &Arguments,
        configuration: &Configuration,
        view: Arc<View>,
    ) -> Result<Self> {
        let Configuration { listen, allow_hosts, sockets, .. } = configuration;
        descriptors::prepare(sockets.len())?;
        Database::check_url(&global.database).context(CANNOT_USE)?;
        // HTTP comes first: if the address is in use, the start fails before it changes anything, and a supervisor can
        // watch the rest of the start.
        let http = match listen {
            Some(address) => {
                let allowed = AllowedHosts::new(allow_hosts.iter().cloned());
                Some(http::start(*address, allowed, view.clone()).await?)
            }
            None => None,
        };
        let (replica, options) = arguments.replica_and_options()?;
        let delivery = arguments.delivery.options();
        let endpoint = delivery.as_ref().map(Endpoint::new).transpose()?;
        // Sockets come before the database, so that clients can connect and wait while it is down.
        let bound = BoundSockets::bind(sockets).await?;
        let announcement = Arc::new(Announcement::of(sockets));
        let waiting = announcement.clone();
        let (state_directory, progress) = (options.state_directory.as_deref(), view.connecting().clone());
        let first = FirstConnection::start(&global.database, state_directory, progress, move || waiting.print())?;
        let (database, connecting) = first.database().await.context(CANNOT_USE)?;
        // Compiling the component would block this thread for seconds.
        let plugin = tokio::task::spawn_blocking(Plugin::embedded).await.context("cannot load the component")?;
        let plugin = plugin.context("cannot load the component")?;
        let service = Service::start(&plugin, database.clone(), replica, bound, options).await;
        let service = service.map_err(|error| match error.downcast_ref::<Error>() {
            Some(Error::State { source: None, .. }) => {
                error.context("each process needs its own --state-dir or its own --replica")
            }
            _ => error,
        })?;
        let collector = (!arguments.no_collect).then(|| {
            let (without_history, replica) = (arguments.no_history, Some(replica));
            let options = CollectOptions { without_history, replica, ..CollectOptions::default() };
            let (database, interval, prune) = (database.clone(), arguments.collect_interval, arguments.prune.options());
            AbortOnDropHandle::new(tokio::spawn(async move {
                database.collect_every(interval, options, prune, Clock::system()).await;
            }))
        });
        let shown = Replica {
            tracker: service.tracker().clone(),
            sockets: service.socket_reports(),
            database: database.clone(),
        };
        let deliverer = endpoint.map(|endpoint| Deliverer::start(database.clone(), endpoint, replica));
        let arrival = arrival(connecting, &database, &view, shown, sockets.len());
        announcement.print();
        let supervision = supervisor::report(service.tracker().clone(), database.clone());
        supervisor::ready();
        Ok(Self { service, database, collector, deliverer, arrival, _http: http, _supervision: supervision })
    }
}

/// Reports that the replica serves, now or after the first connection to the database.
fn arrival(
    connecting: Option<FirstConnection>,
    database: &Database,
    view: &Arc<View>,
    shown: Replica,
    sockets: usize,
) -> Arrival {
    let (view, replica) = (view.clone(), shown.tracker.status().replica);
    let report_running = move |view: &View, shown| {
        view.running(shown);
        info!(%replica, sockets, "serving");
    };
    let Some(connecting) = connecting else {
        report_running(&view, shown);
        return Box::pin(std::future::pending());
    };
    view.waiting(shown.clone());
    warn!(%replica, "tracking without the database: activity is kept in memory and in the checkpoint");
    let database = database.clone();
    Box::pin(async move {
        match connecting.connect_to(&database).await {
            Ok(()) => report_running(&view, shown),
            Err(error) => return anyhow::Error::from(error).context(CANNOT_USE),
        }
        std::future::pending().await
    })
}
