//! `serve`: audit sockets in front of a tracker, until told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use boundary_usage::{Clock, CollectOptions, Database, Error, Options, Plugin};
use clap::{ArgGroup, Args};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use uuid::Uuid;

use super::CANNOT_USE;
use super::first_connection::{Arrival, FirstConnection};
use crate::audit_socket::{BoundSockets, Socket, SocketGroup};
use crate::cli::{Global, UsageError, parse_flush_interval, parse_period, parse_retry, parse_wait};
use crate::configuration::{self, Configuration, parse_address, parse_id, path_fault};
use crate::delivery::{Deliverer, DeliveryOptions, Endpoint};
use crate::descriptors;
use crate::http::{self, AllowedHosts, Replica, View, parse_host};
use crate::output;
use crate::service::{Service, ServiceReport};
use crate::signals::StopSignals;
use crate::state;

/// Serve audit sockets: track what boundary clients report, flush, collect.
///
/// SIGTERM, SIGINT, SIGQUIT and SIGHUP (a closed terminal) stop it: no new clients, what connected ones have already sent
/// is tracked, the socket files stay, and a last flush brings everything into the database. A second signal, other than
/// SIGHUP, ends it at once. A signal before it serves ends it at once with exit code 128 and the signal's number.
///
/// A PostgreSQL server that is away at the start is waited for: clients can connect meanwhile, and /readyz says
/// "not ready: database".
#[derive(Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("sockets").required(true).args(["socket", "config"]))]
pub struct Arguments {
    /// Serve this one socket. A stale file is replaced; only our own user can connect, and --socket-group.
    #[arg(long, value_name = "PATH", requires = "workspace", requires = "owner")]
    socket: Option<PathBuf>,

    /// The workspace that the socket serves.
    #[arg(long, value_name = "UUID", requires = "socket", value_parser = parse_id)]
    workspace: Option<Uuid>,

    /// The user who owns the workspace.
    #[arg(long, value_name = "UUID", requires = "socket", value_parser = parse_id)]
    owner: Option<Uuid>,

    /// Count the requests of this owner's workspaces, and neither the workspaces nor the owner. May be repeated.
    ///
    /// For workspaces that belong to a system user until a person claims them. With --config, in addition to the owners
    /// that the file lists as `ignore-owners`.
    #[arg(long = "ignore-owner", value_name = "UUID", value_parser = parse_id)]
    ignore_owners: Vec<Uuid>,

    /// Let the members of this group connect, too: the socket gets mode 0660 instead of 0600.
    ///
    /// With --config, for the sockets to which the file gives no `group` of their own.
    #[arg(long, value_name = "NAME|GID")]
    socket_group: Option<SocketGroup>,

    /// Serve the sockets that this TOML file lists.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Answer HTTP here: a status page at /, /metrics for Prometheus, /healthz, /readyz, /status.json. [default: no HTTP]
    ///
    /// There is no password: give it a loopback address, or one of a network whose members may see the numbers.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    listen: Option<SocketAddr>,

    /// Accept HTTP requests under this host name, too; may be repeated.
    ///
    /// Without it, HTTP is served under IP addresses and `localhost` only, so that a web page elsewhere cannot read it by DNS
    /// rebinding. Name the host by which a monitoring system or a reverse proxy reaches this process.
    #[arg(long, value_name = "NAME", value_parser = parse_host)]
    allow_host: Vec<String>,

    /// The name of this replica in the database. No two running processes may share one. [default: the one that the
    /// state directory keeps; random with --no-state]
    #[arg(long, value_name = "UUID", value_parser = parse_id)]
    replica: Option<Uuid>,

    /// Keep the checkpoint here: after a crash, the next start goes on from it. Every process needs a directory or a
    /// --replica of its own. [default: $STATE_DIRECTORY, $XDG_STATE_HOME/boundary-usage, or
    /// ~/.local/state/boundary-usage]
    #[arg(long, value_name = "DIR", conflicts_with = "no_state")]
    state_dir: Option<PathBuf>,

    /// Keep no checkpoint: a crash loses what came in since the last flush.
    #[arg(long, conflicts_with = "checkpoint_interval")]
    no_state: bool,

    /// Time between checkpoints while there is new activity: the most that a crash loses. At most 1h.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_wait)]
    checkpoint_interval: Duration,

    /// Time between flushes. At most 1day.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_flush_interval)]
    flush_interval: Duration,

    /// Age at which a period is collected. Of several replicas, the first one collects. At most 366days.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_period)]
    collect_interval: Duration,

    /// Leave collecting to others.
    #[arg(long, conflicts_with = "collect_interval")]
    no_collect: bool,

    #[command(flatten)]
    delivery: DeliveryArguments,
}

/// Delivery of summaries.
#[derive(Args)]
struct DeliveryArguments {
    /// POST every undelivered summary, as JSON, to this URL until it answers with a 2xx.
    ///
    /// Also those of periods that were closed before. Of several replicas, one at a time tries. Better in the environment when
    /// the URL is a secret.
    #[arg(long, value_name = "URL", env = "BOUNDARY_USAGE_DELIVER", hide_env_values = true)]
    deliver: Option<String>,

    /// Send the token that this file holds, as `Authorization: Bearer`. It is read again for each attempt.
    #[arg(long, value_name = "FILE", requires = "deliver")]
    deliver_token_file: Option<PathBuf>,

    /// Time limit of one attempt; at most 1h.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_wait, requires = "deliver")]
    deliver_timeout: Duration,

    /// Wait after the first failure, at most 5m; it doubles with each further one, up to 5m.
    ///
    /// Failures count for the destination, not for each summary, and all replicas share the wait. A receiver that sends
    /// Retry-After waits as long as it says, up to 24h. After a 410 this process delivers nothing until it is restarted.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_retry, requires = "deliver")]
    deliver_retry: Duration,
}

const EXAMPLES: &str = "\
Examples:
  boundary-usage serve --socket audit.sock --workspace UUID --owner UUID
  boundary-usage serve --config sockets.toml --flush-interval 10s --no-collect
  boundary-usage serve --config sockets.toml --listen 127.0.0.1:9464
  boundary-usage serve --config sockets.toml --deliver https://example.com/usage

sockets.toml:
  [[socket]]
  path = \"/run/boundary/alice.sock\"
  workspace = \"0193a1b2-0000-7000-8000-000000000001\"
  owner = \"0193a1b2-0000-7000-8000-0000000000aa\"";

impl Arguments {
    /// The settings of the file, if there is one, and of the flags.
    fn configuration(&self) -> Result<Configuration> {
        let mut configuration = self.sockets()?;
        configuration.ignored_owners.extend(&self.ignore_owners);
        for socket in &mut configuration.sockets {
            socket.ids_ignored = configuration.ignored_owners.contains(&socket.owner);
        }
        Ok(configuration)
    }

    fn sockets(&self) -> Result<Configuration> {
        if let Some(file) = &self.config {
            let mut configuration = configuration::read(file)?;
            for socket in &mut configuration.sockets {
                socket.group = socket.group.or(self.socket_group);
            }
            configuration.allow_hosts.extend(self.allow_host.iter().cloned());
            return Ok(Configuration { listen: self.listen.or(configuration.listen), ..configuration });
        }
        let (Some(path), Some(workspace), Some(owner)) = (self.socket.clone(), self.workspace, self.owner) else {
            bail!(UsageError("--socket needs --workspace and --owner".into()));
        };
        match path_fault(&path) {
            Some(fault) => bail!(UsageError(fault)),
            None => {
                let sockets = vec![Socket { path, workspace, owner, ids_ignored: false, group: self.socket_group }];
                let allow_hosts = self.allow_host.clone();
                Ok(Configuration { listen: self.listen, allow_hosts, ignored_owners: Vec::new(), sockets })
            }
        }
    }

    fn state_directory(&self) -> Result<Option<PathBuf>> {
        match (self.no_state, &self.state_dir) {
            (true, _) => Ok(None),
            (false, Some(directory)) => Ok(Some(directory.clone())),
            (false, None) => state::default_directory().map(Some),
        }
    }

    /// The replica to serve, and the settings of its tracker.
    fn replica_and_options(&self) -> Result<(Uuid, Options)> {
        let state_directory = self.state_directory()?;
        let replica = match (self.replica, &state_directory) {
            (Some(replica), _) => replica,
            (None, Some(directory)) => state::replica(directory)?,
            (None, None) => Uuid::new_v4(),
        };
        let options = Options {
            flush_interval: self.flush_interval,
            checkpoint_interval: self.checkpoint_interval,
            state_directory,
            ..Options::default()
        };
        Ok((replica, options))
    }
}

impl DeliveryArguments {
    fn options(self) -> Option<DeliveryOptions> {
        let Self { deliver, deliver_token_file: token_file, deliver_timeout: timeout, deliver_retry: retry } = self;
        deliver.map(|url| DeliveryOptions { url, token_file, timeout, retry })
    }
}

pub(super) async fn run(global: &Global, arguments: Arguments) -> Result<ExitCode> {
    // From here on a signal ends the program in order, not in the middle of its start.
    let mut stop = StopSignals::listen()?;
    let view = View::new();
    let started = tokio::select! {
        biased;
        signal = stop.next() => {
            output::print_error(&format!("ended by {} before it served", signal.name));
            return Ok(signal.exit_code());
        }
        started = Running::start(global, arguments, view.clone()) => started,
    };
    let Running { service, database, collector, deliverer, arrival, _http } = started?;

    let signal = tokio::select! {
        signal = stop.next() => signal,
        // Nothing can be counted any more: a supervisor may start the process again.
        () = service.tracker().stopped() => bail!(
            "the tracker has ended by a panic; activity since the last checkpoint, or without one since the last flush, is \
             lost"
        ),
        error = arrival => {
            view.stopping();
            drop(collector);
            let (stopped, ()) = tokio::join!(service.stop(), stop_delivery(deliverer));
            // What was tracked meanwhile is in the checkpoint, or the error says that it is lost.
            return Err(match stopped {
                Ok(_) => error,
                Err(stopped) => error.context(stopped.to_string()),
            });
        }
    };
    view.stopping();
    info!(signal = signal.name, "stopping: no new clients, draining, flushing");
    // A collection in progress is rolled back; another replica does it, or the next start of this one.
    drop(collector);
    let stopped = async { tokio::join!(service.stop(), stop_delivery(deliverer)) };
    let report = tokio::select! {
        (report, ()) = stopped => report?,
        signal = stop.next_but_hangup() => bail!(
            "stopped at once by a second {}; activity since the last checkpoint, or without one since the last flush, is \
             lost",
            signal.name
        ),
    };
    database.close().await;
    let printed = global.format.print(&report, || human(&report));
    // A terminal that has closed takes no report.
    if signal.is_hangup() { Ok(ExitCode::SUCCESS) } else { printed.map(|()| ExitCode::SUCCESS) }
}

/// All that runs while `serve` serves.
struct Running {
    service: Service,
    database: Database,
    collector: Option<AbortOnDropHandle<()>>,
    deliverer: Option<Deliverer>,
    /// Completes only if the database cannot be used after all, which was away at the start.
    arrival: Arrival,
    /// Replies until the end.
    _http: Option<AbortOnDropHandle<()>>,
}

impl Running {
    async fn start(global: &Global, arguments: Arguments, view: Arc<View>) -> Result<Self> {
        let Configuration { listen, allow_hosts, sockets, .. } = arguments.configuration()?;
        descriptors::prepare(sockets.len())?;
        Database::check_url(&global.database).context(CANNOT_USE)?;
        // First of all: an address that is in use fails the start before anything is changed, and a supervisor may ask
        // how the start fares.
        let http = match listen {
            Some(address) => Some(http::start(address, AllowedHosts::new(allow_hosts), view.clone()).await?),
            None => None,
        };
        let (replica, options) = arguments.replica_and_options()?;
        let delivery = arguments.delivery.options();
        let endpoint = delivery.as_ref().map(Endpoint::new).transpose()?;
        // Before the database: clients that connect while it is away wait, and lose nothing.
        let bound = BoundSockets::bind(&sockets).await?;
        let first = FirstConnection::start(&global.database, options.state_directory.as_deref(), &view, &sockets)?;
        let announcement = first.announcement();
        let (database, connecting) = first.database().await?;
        // Compiling takes a processor for seconds.
        let plugin = tokio::task::spawn_blocking(Plugin::embedded).await.context("cannot load the component")?;
        let plugin = plugin.context("cannot load the component")?;
        let service = Service::start(&plugin, database.clone(), replica, bound, options).await;
        let service = service.map_err(|error| match error.downcast_ref::<Error>() {
            Some(Error::State { source: None, .. }) => {
                error.context("several processes need a --state-dir or a --replica each")
            }
            _ => error,
        })?;
        let collector = (!arguments.no_collect).then(|| collect_every(database.clone(), arguments.collect_interval));
        let shown = Replica {
            tracker: service.tracker().clone(),
            sockets: service.socket_reports(),
            database: database.clone(),
        };
        let deliverer = endpoint.map(|endpoint| Deliverer::start(database.clone(), endpoint));
        let running = move |view: &View, shown| {
            view.running(shown);
            info!(%replica, sockets = sockets.len(), "serving");
        };
        let arrival: Arrival = match connecting {
            None => {
                running(&view, shown);
                Box::pin(std::future::pending())
            }
            Some(connecting) => {
                view.waiting(shown.clone());
                warn!(%replica, "tracking without the database, into memory and the checkpoint");
                let database = database.clone();
                Box::pin(async move {
                    match connecting.arrive_at(&database).await {
                        Ok(()) => running(&view, shown),
                        Err(error) => return error,
                    }
                    std::future::pending().await
                })
            }
        };
        announcement.say();
        Ok(Self { service, database, collector, deliverer, arrival, _http: http })
    }
}

fn collect_every(database: Database, interval: Duration) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        database.collect_every(interval, CollectOptions::default(), Clock::system()).await;
    }))
}

async fn stop_delivery(deliverer: Option<Deliverer>) {
    if let Some(deliverer) = deliverer {
        deliverer.stop().await;
    }
}

fn human(report: &ServiceReport) -> String {
    let tracker = &report.tracker;
    format!("stopped: {} batches tracked, {} flushes, all written", tracker.activities, tracker.flushes)
}
