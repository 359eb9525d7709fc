//! `serve` as a process of its own: killed with SIGKILL at points that its files show, and started again.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result};
use boundary_usage::Checkpoint;
use boundary_usage_cli::audit_socket::AuditClient;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::{on_each_database, until};
use tempfile::TempDir;
use uuid::Uuid;

/// Where a series of processes is at home.
struct Home {
    directory: TempDir,
    url: String,
}

/// A running `serve`.
struct Server(Child);

impl Home {
    fn new(database: &TestDatabase) -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, url: database.url.clone() })
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("audit.sock")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn command(&self, flush_interval: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_program-under-test"));
        command.arg("serve").env("BOUNDARY_USAGE_DATABASE", &self.url);
        command.arg("--socket").arg(self.socket());
        command.args(["--workspace", &Uuid::from_u128(1).to_string(), "--owner", &Uuid::from_u128(2).to_string()]);
        command.args(["--no-collect", "--flush-interval", flush_interval, "--checkpoint-interval", "10ms"]);
        command.arg("--state-dir").arg(self.state());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn serve(&self, flush_interval: &str) -> Result<Server> {
        Ok(Server(self.command(flush_interval).spawn().context("cannot start the program")?))
    }

    /// Sends so many allowed requests, and waits until the server has read them.
    async fn send(&self, allowed: u64) -> Result<()> {
        let mut client = loop {
            match AuditClient::connect(&self.socket()).await {
                Ok(client) => break client,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        };
        for _ in 0..allowed {
            client.report(true, "https://a.example/").await?;
        }
        client.finish().await
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        let replica = fs::read_to_string(self.state().join("replica")).ok()?;
        let bytes = fs::read(self.state().join(format!("{}.checkpoint", replica.trim()))).ok()?;
        Some(Checkpoint::from_bytes(&bytes).expect("whoever reads the file finds it whole"))
    }

    async fn checkpointed(&self, condition: impl Fn(&Checkpoint) -> bool) {
        until(|| self.checkpoint().is_some_and(|checkpoint| condition(&checkpoint))).await;
    }
}

impl Server {
    fn killed(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    async fn terminated(self) -> Result<Output> {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status()?;
        assert!(status.success());
        Ok(tokio::task::spawn_blocking(|| self.0.wait_with_output()).await??)
    }
}

const ALLOWED: &str = "SELECT CAST(coalesce(sum(allowed_requests), 0) AS bigint) FROM boundary_usage_stats";

on_each_database! {
    async fn a_process_killed_after_a_checkpoint_has_lost_nothing_at_its_next_start(database) {
        let home = Home::new(&database)?;
        let server = home.serve("1h")?;
        home.send(40).await?;
        home.checkpointed(|checkpoint| checkpoint.requests() == (40, 0)).await;
        server.killed()?;
        assert_eq!(database.number(ALLOWED).await?, 0);
        let server = home.serve("1h")?;
        home.send(10).await?;
        let stopped = server.terminated().await?;
        assert!(stopped.status.success(), "{stopped:?}");
        assert_eq!(database.number(ALLOWED).await?, 50);
        assert!(home.checkpoint().unwrap().is_empty());
        assert_eq!(database.number("SELECT count(*) FROM boundary_usage_replicas").await?, 1);
        Ok(())
    }

    async fn a_process_killed_after_a_flush_counts_nothing_twice_at_its_next_start(database) {
        let home = Home::new(&database)?;
        for round in 1..=2 {
            let server = home.serve("20ms")?;
            home.send(30).await?;
            // From here on the checkpoint may still know of less than the database, and must not count it again.
            while database.number(ALLOWED).await? < 30 * round {}
            server.killed()?;
            assert_eq!(database.number(ALLOWED).await?, 30 * round);
        }
        let stopped = home.serve("1h")?;
        home.send(10).await?;
        assert!(stopped.terminated().await?.status.success());
        assert_eq!(database.number(ALLOWED).await?, 70);
        Ok(())
    }
}

#[tokio::test]
async fn a_second_process_without_an_id_of_its_own_is_told_which_options_help() -> Result<()> {
    let database = TestDatabase::sqlite()?;
    let home = Home::new(&database)?;
    let first = home.serve("1h")?;
    home.send(10).await?;
    let second = home.command("1h").output()?;
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("--state-dir") && said.contains("--replica"), "{said}");
    assert!(first.terminated().await?.status.success());
    Ok(())
}
