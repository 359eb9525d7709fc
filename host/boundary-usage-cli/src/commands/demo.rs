//! `demo`: runs the whole flow, and compares the summary with what was sent.
//!
//! Two replicas run the code of `serve`. The replicas share a user and a workspace, and the summary must count each of
//! them once.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use boundary_usage::{CollectOptions, Database, Options, Plugin, Summary};
use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;
use uuid::Uuid;

use super::collect::close_period;
use crate::arguments::Global;
use crate::audit_socket::{AuditClient, BoundSockets, Socket};
use crate::output::{Format, table};
use crate::service::Service;

/// Run a demonstration: two replicas, five audit sockets with clients, one database, one summary.
///
/// Everything happens in a temporary directory, and --database is not used. The exit code is 1 if the summary differs
/// from the requests that were sent.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {}

const EXAMPLES: &str = "\
Examples:
  boundary-usage demo
  boundary-usage demo --format json";

/// Flushes of each replica in the period.
///
/// The last flush of a replica is that of its shutdown.
const ROUNDS: u32 = 3;

/// The agents: the number of the replica, the owner and the workspace of each.
const AGENTS: [(usize, &str, &str); 5] = [
    (0, "alice", "website"),
    (0, "alice", "billing"),
    (0, "bob", "compiler"),
    (1, "bob", "compiler"),
    (1, "carol", "notebook"),
];

/// An agent in a workspace. The agent's boundary client connects to the workspace's socket.
struct Agent {
    replica: usize,
    owner: &'static str,
    workspace: &'static str,
    socket: Socket,
}

/// The usage that the clients sent, or that the summary contains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Usage {
    unique_workspaces: u64,
    unique_users: u64,
    allowed_requests: u64,
    denied_requests: u64,
}

#[derive(Serialize)]
struct Outcome {
    equal: bool,
    sent: Usage,
    counted: Usage,
    summary: Summary,
}

pub(crate) async fn run(global: &Global, _arguments: Arguments) -> Result<ExitCode> {
    let directory = tempfile::Builder::new().prefix("boundary-usage-demo").tempdir();
    let directory = directory.context("cannot create a temporary directory")?;
    let outcome = play(directory.path(), Narrator { format: global.format }).await?;
    global.format.print(&outcome, || outcome.human())?;
    Ok(ExitCode::from(u8::from(!outcome.equal)))
}

async fn play(directory: &Path, narrator: Narrator) -> Result<Outcome> {
    let database = Database::connect(&format!("sqlite:{}", directory.join("usage.db").display())).await?;
    let plugin = Plugin::embedded().context("cannot load the component")?;
    let agents = agents(directory);
    narrator.print_replicas(&agents)?;

    let replicas = start(&plugin, &database, &agents).await?;
    let mut sent = Usage {
        unique_workspaces: agents.iter().map(|agent| agent.workspace).collect::<BTreeSet<_>>().len() as u64,
        unique_users: agents.iter().map(|agent| agent.owner).collect::<BTreeSet<_>>().len() as u64,
        ..Usage::default()
    };
    for round in 1..=ROUNDS {
        let requests = send(&agents, round).await?;
        sent.allowed_requests += requests.iter().map(|(allowed, _)| allowed).sum::<u64>();
        sent.denied_requests += requests.iter().map(|(_, denied)| denied).sum::<u64>();
        narrator.print_round(round, &requests)?;
        if round < ROUNDS {
            for replica in &replicas {
                replica.tracker().flush().await.context("a flush failed")?;
            }
        }
    }
    for replica in replicas {
        replica.stop().await?;
    }
    let summary = close_period(&database, CollectOptions::default()).await?;
    database.close().await;
    Ok(Outcome::new(sent, summary))
}

fn agents(directory: &Path) -> Vec<Agent> {
    let agents = AGENTS.iter().map(|&(replica, owner, workspace)| {
        let path = directory.join(format!("replica-{}-{workspace}.sock", replica + 1));
        Agent {
            replica,
            owner,
            workspace,
            socket: Socket { path, workspace: id_of(workspace), owner: id_of(owner), ids_ignored: false, group: None },
        }
    });
    agents.collect()
}

/// Derives an id from a name.
fn id_of(name: &str) -> Uuid {
    let number = name.bytes().fold(0, |number, letter| number << 8 | u128::from(letter));
    Uuid::from_u128(number)
}

async fn start(plugin: &Plugin, database: &Database, agents: &[Agent]) -> Result<Vec<Service>> {
    let mut services = Vec::new();
    for replica in 0..2 {
        let sockets: Vec<_> =
            agents.iter().filter(|agent| agent.replica == replica).map(|agent| agent.socket.clone()).collect();
        let sockets = BoundSockets::bind(&sockets).await?;
        services.push(Service::start(plugin, database.clone(), Uuid::new_v4(), sockets, Options::default()).await?);
    }
    Ok(services)
}

/// Sends the requests of all agents simultaneously, each over its own connection.
///
/// Returns the numbers of allowed and denied requests of each agent.
async fn send(agents: &[Agent], round: u32) -> Result<Vec<(u64, u64)>> {
    let clients = (1..).zip(agents).map(|(number, agent)| async move {
        // These are not multiples of the batch size, so each agent's last batch is incomplete.
        let (allowed, denied) = (13 + 4 * u64::from(number * round % 5), 3 + u64::from((number + round) % 4));
        let mut client = AuditClient::connect(&agent.socket.path).await?;
        for request in 0..allowed.max(denied) {
            if request < allowed {
                client.report(true, "https://packages.example/index").await?;
            }
            if request < denied {
                client.report(false, "https://elsewhere.example/upload").await?;
            }
        }
        client.finish().await?;
        Ok((allowed, denied))
    });
    try_join_all(clients).await
}

impl Outcome {
    fn new(sent: Usage, summary: Summary) -> Self {
        let counted = Usage {
            unique_workspaces: summary.unique_workspaces,
            unique_users: summary.unique_users,
            allowed_requests: summary.allowed_requests,
            denied_requests: summary.denied_requests,
        };
        Self { equal: sent == counted, sent, counted, summary }
    }

    fn human(&self) -> String {
        let row = |name: &str, sent: u64, counted: u64| {
            let verdict = if sent == counted { "✓" } else { "✗" };
            [name.into(), sent.to_string(), counted.to_string(), verdict.into()]
        };
        let (sent, counted, summary) = (&self.sent, &self.counted, &self.summary);
        let rows = [
            row("unique workspaces", sent.unique_workspaces, counted.unique_workspaces),
            row("unique users", sent.unique_users, counted.unique_users),
            row("allowed requests", sent.allowed_requests, counted.allowed_requests),
            row("denied requests", sent.denied_requests, counted.denied_requests),
        ];
        let (workspaces, users) = (summary.replica_workspaces_sum, summary.replica_users_sum);
        let verdict = if self.equal {
            "✓ The period's summary equals what the clients sent."
        } else {
            "✗ The period's summary differs from what the clients sent."
        };
        format!(
            "\nThe collection closes the period:\n\n{}\n\n\
             Both replicas saw Bob and his workspace, which count once\n\
             (the sums over both replicas are {workspaces} workspaces and {users} users).\n\n{verdict}",
            table(["", "sent", "counted", ""], rows, true),
        )
    }
}

/// Prints the progress of the demo, unless the output format is JSON.
#[derive(Clone, Copy)]
struct Narrator {
    format: Format,
}

impl Narrator {
    fn print_replicas(self, agents: &[Agent]) -> Result<()> {
        let served = |replica: usize| {
            let agents = agents.iter().filter(|agent| agent.replica == replica);
            agents.map(|agent| format!("{}/{}", agent.owner, agent.workspace)).collect::<Vec<_>>().join(", ")
        };
        let size = Plugin::embedded_bytes().len() / 1024;
        self.print(&format!(
            "Two replicas of a proxy serve the audit sockets of these users' workspaces:\n\n  \
             replica 1   {}\n  replica 2   {}\n\n\
             boundary client ─▶ audit socket ─▶ sandboxed component ({size} KiB) ─▶ SQLite ─▶ summary\n",
            served(0),
            served(1),
        ))
    }

    fn print_round(self, round: u32, requests: &[(u64, u64)]) -> Result<()> {
        let (allowed, denied) =
            requests.iter().fold((0, 0), |sum, (allowed, denied)| (sum.0 + allowed, sum.1 + denied));
        let then = if round < ROUNDS { "both replicas flush" } else { "both stop with a last flush" };
        self.print(&format!("  {round}. {allowed} allowed and {denied} denied requests; then {then}"))
    }

    fn print(self, text: &str) -> Result<()> {
        match self.format {
            Format::Human | Format::Csv | Format::Parquet => self.format.print(&(), || text.to_owned()),
            Format::Json => Ok(()),
        }
    }
}
