//! `serve` as a separate process that is killed with SIGKILL at known points, and started again.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use boundary_usage::Checkpoint;
use boundary_usage_cli::audit_socket::AuditClient;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::expected_usage;
use boundary_usage_tests::{on_each_database_and_pooler, until};

use crate::program::{Ended, Serving, Workplace, one_socket};

/// The files that a series of `serve` processes uses.
struct Home(Workplace);

impl Home {
    fn new(database: &TestDatabase) -> Self {
        Self(Workplace::on(&database.url))
    }

    fn state(&self) -> PathBuf {
        self.0.path("state")
    }

    fn arguments(&self, flush_interval: &str) -> Vec<String> {
        let state = self.state().to_str().expect("temporary directories have plain names").to_owned();
        let mut arguments = Vec::from(one_socket(&self.0.path("audit.sock"), 1, 2));
        arguments.extend(["--no-collect", "--flush-interval", flush_interval].map(str::to_owned));
        arguments.extend(["--checkpoint-interval", "10ms", "--state-dir", &state].map(str::to_owned));
        arguments
    }

    fn serve(&self, flush_interval: &str) -> Serving {
        self.0.serve(1, self.arguments(flush_interval))
    }

    /// Sends this number of allowed requests, and waits until the server has read them.
    async fn send(&self, allowed: u64) -> Result<()> {
        let mut client = AuditClient::connect(&self.0.path("audit.sock")).await?;
        for _ in 0..allowed {
            client.report(true, "https://a.example/").await?;
        }
        client.finish().await
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        let mut paths = fs::read_dir(self.state()).ok()?.map(|entry| entry.unwrap().path());
        let path = paths.find(|path| path.extension().is_some_and(|extension| extension == "checkpoint"))?;
        let bytes = fs::read(path).ok()?;
        Some(Checkpoint::from_bytes(&bytes).expect("a checkpoint file is always complete"))
    }

    async fn checkpointed(&self, condition: impl Fn(&Checkpoint) -> bool) {
        until(|| self.checkpoint().is_some_and(|checkpoint| condition(&checkpoint))).await;
    }
}

const ALLOWED: &str = "SELECT CAST(coalesce(sum(allowed_requests), 0) AS bigint) FROM boundary_usage_stats";

on_each_database_and_pooler! {
    async fn a_process_killed_after_a_checkpoint_loses_nothing(database) {
        let home = Home::new(&database);
        let server = home.serve("1h");
        home.send(40).await?;
        home.checkpointed(|checkpoint| checkpoint.requests() == (40, 0)).await;
        server.kill();
        assert_eq!(database.number(ALLOWED).await?, 0);
        let server = home.serve("1h");
        home.send(10).await?;
        let stopped = server.stop();
        assert_eq!(stopped.code, 0, "{}", stopped.stderr);
        assert_eq!(database.number(ALLOWED).await?, 50);
        assert!(home.checkpoint().unwrap().is_empty());
        assert_eq!(database.number("SELECT count(*) FROM boundary_usage_replicas").await?, 1);
        Ok(())
    }

    async fn a_process_killed_after_a_flush_counts_nothing_twice(database) {
        let home = Home::new(&database);
        for round in 1..=2 {
            let server = home.serve("20ms");
            home.send(30).await?;
            // The checkpoint may be older than the database, and must not count these requests again.
            let is_counted = async || Ok(database.number(ALLOWED).await? >= 30 * round);
            expected_usage::until("all requests are in the database", is_counted).await?;
            server.kill();
            assert_eq!(database.number(ALLOWED).await?, 30 * round);
        }
        let server = home.serve("1h");
        home.send(10).await?;
        assert_eq!(server.stop().code, 0);
        assert_eq!(database.number(ALLOWED).await?, 70);
        Ok(())
    }
}

#[tokio::test]
async fn a_second_process_with_the_same_replica_id_fails_and_the_error_names_options() -> Result<()> {
    let database = TestDatabase::sqlite()?;
    let home = Home::new(&database);
    let first = home.serve("1h");
    home.send(10).await?;
    let mut arguments = home.arguments("1h");
    let socket = arguments.iter().position(|argument| argument == "--socket").expect("it serves a socket");
    arguments[socket + 1] = home.0.path("second.sock").to_str().expect("a path of the test").to_owned();
    let second: Ended = home.0.command(["serve"]).args(arguments).output()?.into();
    assert_eq!(second.code, 1, "{}", second.stderr);
    assert!(second.stderr.contains("--state-dir") && second.stderr.contains("--replica"), "{}", second.stderr);
    assert_eq!(first.stop().code, 0);
    Ok(())
}
