//! `serve`: runs audit sockets in front of a tracker until a signal stops it.

mod reload;
mod running;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use boundary_usage::{Options, stored_replica};
use clap::{ArgGroup, Args};
use tracing::info;
use uuid::Uuid;

use self::reload::Reloader;
use self::running::Running;
use super::delivery_arguments::DeliveryArguments;
use super::prune::PruneSettings;
use crate::arguments::{
    Global, check_socket_path, parse_address, parse_flush_interval, parse_id, parse_period, parse_wait,
};
use crate::audit_socket::{Socket, SocketGroup};
use crate::configuration::{self, Configuration};
use crate::delivery::Deliverer;
use crate::failure::UsageError;
use crate::http::{View, parse_host};
use crate::output;
use crate::service::ServiceReport;
use crate::signals::StopSignals;
use crate::state;
use crate::supervisor;

/// Serve audit sockets: track the activity of boundary clients, flush it, and collect.
///
/// SIGTERM, SIGINT and SIGQUIT stop the process in order: it accepts no new clients, tracks what connected clients have
/// sent, and writes everything to the database with a last flush. Socket files stay. A second signal stops it
/// immediately. A signal during the start stops it immediately, with exit code 128 plus the signal's number.
///
/// SIGHUP reads the file of --config again: new sockets open, removed ones drain and close, and the others continue. A
/// faulty file changes nothing. Without --config, SIGHUP (a closed terminal) stops the process too.
///
/// If PostgreSQL is down at the start, the process waits for it. Clients can connect meanwhile, and /readyz reports
/// "not ready: database".
#[derive(Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("sockets").required(true).args(["socket", "config"]))]
pub struct Arguments {
    /// Path of the audit socket. A stale file is replaced. Only this user and --socket-group can connect.
    #[arg(long, value_name = "PATH", requires = "workspace", requires = "owner")]
    socket: Option<PathBuf>,

    /// Workspace of the socket.
    #[arg(long, value_name = "UUID", requires = "socket", value_parser = parse_id)]
    workspace: Option<Uuid>,

    /// User who owns the workspace.
    #[arg(long, value_name = "UUID", requires = "socket", value_parser = parse_id)]
    owner: Option<Uuid>,

    /// Owner whose requests are counted, but not the owner's id and workspaces. May be repeated.
    ///
    /// Use it for workspaces that belong to a system user until a person claims them. With --config, it adds to the
    /// file's `ignore-owners`.
    #[arg(long = "ignore-owner", value_name = "UUID", value_parser = parse_id)]
    ignore_owners: Vec<Uuid>,

    /// Group whose members may connect as well. The socket gets mode 0660 instead of 0600.
    ///
    /// With --config, it applies to the sockets without a `group` in the file.
    #[arg(long, value_name = "NAME|GID")]
    socket_group: Option<SocketGroup>,

    /// TOML file that lists the audit sockets.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Address for HTTP: a status page at /, /metrics for Prometheus, /healthz, /readyz, /status.json. [default: no
    /// HTTP]
    ///
    /// HTTP has no password. Use a loopback address, or an address in a network whose members may see the numbers.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    listen: Option<SocketAddr>,

    /// Host name under which HTTP is served, besides IP addresses and `localhost`. May be repeated.
    ///
    /// Other host names are rejected, so that no other web page can read the numbers through DNS rebinding. Allow the
    /// name under which a monitoring system or a reverse proxy reaches this process.
    #[arg(long, value_name = "NAME", value_parser = parse_host)]
    allow_host: Vec<String>,

    /// Id of this replica in the database. Every running process needs its own. [default: the id in the state
    /// directory; random with --no-state]
    #[arg(long, value_name = "UUID", value_parser = parse_id)]
    replica: Option<Uuid>,

    /// Directory of the checkpoint, which the next start restores after a crash. Every process needs its own directory
    /// or its own --replica. [default: $STATE_DIRECTORY, $XDG_STATE_HOME/boundary-usage, or
    /// ~/.local/state/boundary-usage]
    #[arg(long, value_name = "DIR", conflicts_with = "no_state")]
    state_dir: Option<PathBuf>,

    /// Write no checkpoint. A crash then loses the activity since the last flush.
    #[arg(long, conflicts_with = "checkpoint_interval")]
    no_state: bool,

    /// Time between checkpoints while there is new activity: the most that a crash loses. At most 1h.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_wait)]
    checkpoint_interval: Duration,

    /// Time between flushes. At most 1day.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_flush_interval)]
    flush_interval: Duration,

    /// Time between collections, counted from midnight UTC. A collection also runs at midnight. One of the replicas
    /// collects.
    ///
    /// So each period lies within one UTC day, which the history needs. At most 366days. An interval of more than a day
    /// has the same effect as a day.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_period)]
    collect_interval: Duration,

    /// Never collect. Another replica or `boundary-usage collect` must collect instead.
    #[arg(long, conflicts_with = "collect_interval")]
    no_collect: bool,

    /// Keep no history: add no period to its day, so `report` does not see it. Set it for all replicas of a database.
    #[arg(long, conflicts_with = "no_collect")]
    no_history: bool,

    #[command(flatten)]
    prune: PruneSettings,

    #[command(flatten)]
    delivery: DeliveryArguments,
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
    /// Returns the settings of the options and of the file, if there is one.
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
        check_socket_path(&path).map_err(UsageError)?;
        let sockets = vec![Socket { path, workspace, owner, ids_ignored: false, group: self.socket_group }];
        let allow_hosts = self.allow_host.clone();
        Ok(Configuration { listen: self.listen, allow_hosts, ignored_owners: Vec::new(), sockets })
    }

    fn state_directory(&self) -> Result<Option<PathBuf>> {
        match (self.no_state, &self.state_dir) {
            (true, _) => Ok(None),
            (false, Some(directory)) => Ok(Some(directory.clone())),
            (false, None) => state::default_directory().map(Some),
        }
    }

    /// Returns the replica's id and the options of its tracker.
    fn replica_and_options(&self) -> Result<(Uuid, Options)> {
        let state_directory = self.state_directory()?;
        let replica = match (self.replica, &state_directory) {
            (Some(replica), _) => replica,
            (None, Some(directory)) => stored_replica(directory).context(CANNOT_IDENTIFY)?,
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

/// The context of an error of the replica's file.
const CANNOT_IDENTIFY: &str = "cannot determine the id of this replica; see --state-dir, --no-state and --replica";

pub(crate) async fn run(global: &Global, arguments: Arguments) -> Result<ExitCode> {
    // From here on, a signal lets the program finish its work, even during the start.
    let mut stop = StopSignals::listen()?;
    let view = View::new();
    let configuration = arguments.configuration()?;
    let started = tokio::select! {
        biased;
        signal = stop.next() => {
            output::print_error(&format!("stopped by {} during the start", signal.name));
            return Ok(signal.exit_code());
        }
        started = Running::start(global, &arguments, &configuration, view.clone()) => started,
    };
    let Running { mut service, database, collector, deliverer, mut arrival, _http, _supervision } = started?;
    let reloader = arguments.config.is_some().then(|| Reloader::new(|| arguments.configuration(), configuration));

    let signal = loop {
        let signal = tokio::select! {
            signal = stop.next() => signal,
            // Nothing can be counted any more, so exit and let a supervisor restart the process.
            () = service.tracker().stopped() => bail!(
                "the tracker panicked; activity since the last checkpoint is lost, or since the last flush if there \
                 is no checkpoint"
            ),
            error = &mut arrival => {
                view.stopping();
                drop(collector);
                let (stopped, ()) = tokio::join!(service.stop(), stop_delivery(deliverer));
                // The tracked activity is in the checkpoint, unless `stopped` reports its loss.
                return Err(match stopped {
                    Ok(_) => error,
                    Err(stopped) => error.context(stopped.to_string()),
                });
            }
        };
        match &reloader {
            Some(reloader) if signal.is_hangup() => {
                supervisor::reloading();
                reloader.reload(&mut service).await;
                supervisor::ready();
            }
            _ => break signal,
        }
    };
    supervisor::stopping();
    view.stopping();
    info!(signal = signal.name, "stopping: no new clients; draining connections, then flushing");
    // A running collection is rolled back. Another replica repeats the collection, or this replica does so after its
    // next start.
    drop(collector);
    let stopped = async { tokio::join!(service.stop(), stop_delivery(deliverer)) };
    let report = tokio::select! {
        (report, ()) = stopped => report?,
        signal = stop.next_but_hangup() => bail!(
            "stopped immediately by a second {}; activity since the last checkpoint is lost, or since the last flush \
             if there is no checkpoint",
            signal.name
        ),
    };
    database.close().await;
    let printed = global.format.print(&report, || human(&report));
    // A closed terminal cannot show the report, which is no failure.
    if signal.is_hangup() { Ok(ExitCode::SUCCESS) } else { printed.map(|()| ExitCode::SUCCESS) }
}

async fn stop_delivery(deliverer: Option<Deliverer>) {
    if let Some(deliverer) = deliverer {
        deliverer.stop().await;
    }
}

fn human(report: &ServiceReport) -> String {
    let tracker = &report.tracker;
    format!(
        "stopped: {} batches tracked, {} flushes, everything is in the database",
        tracker.activities, tracker.flushes
    )
}
