//! `serve --deliver` sends each summary until its delivery is acknowledged (D7).
//!
//! Each delivery is recorded once, even if the receiver, the network or a replica fails.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use boundary_usage::{CollectOptions, Collection, Database, Delivery, DeliveryClaim, Summary};
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::postgres_server::PostgresServer;
use boundary_usage_tests::receiver::{Receiver, Reply};
use serde_json::{Value, json};

use crate::forward_proxy::Proxy;
use crate::program::{Serving, Workplace, line, one_socket};

/// A secret that is in the URL and in the token file.
const SECRET: &str = "hunter2";

pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// Closes periods with one activity each, and returns their summaries.
pub(crate) fn closed_periods(workplace: &Workplace, count: u64) -> Vec<Value> {
    let period = |number| {
        assert_eq!(workplace.run_with_input(["replay", "-"], &line(1, 2, number, 2)).code, 0);
        workplace.json(["collect"])
    };
    (1..=count).map(period).collect()
}

/// Starts `serve` with a delivery that is retried after 5 ms.
pub(crate) fn deliver(workplace: &Workplace, name: &str, url: &str, arguments: &[&str]) -> Serving {
    deliver_with(workplace, name, url, arguments, &[])
}

pub(crate) fn deliver_with(
    workplace: &Workplace,
    name: &str,
    url: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Serving {
    let socket = workplace.path(&format!("{name}.sock"));
    workplace.write("token", &format!("{SECRET}\n"));
    let mut command = workplace.command(["serve", "--format", "json", "--no-collect", "--deliver", url]);
    command.args(one_socket(&socket, 1, 2)).args(["--deliver-token-file", "token", "--deliver-retry", "5ms"]);
    command.args(arguments).envs(environment.iter().copied());
    Serving::start(&mut command, 1)
}

pub(crate) fn url(receiver: &Receiver) -> String {
    format!("http://{}/{SECRET}", receiver.address)
}

pub(crate) fn periods(workplace: &Workplace) -> Vec<Value> {
    workplace.json(["status"])["periods"].as_array().unwrap().clone()
}

/// Returns the payload of a summary without stale rows.
pub(crate) fn payload(summary: &Value) -> Value {
    let mut payload = summary.clone();
    payload["schema"] = json!("boundary-usage/summary/1");
    payload["incomplete"] = json!([]);
    payload
}

/// Closes a period with the library.
pub(crate) async fn close(database: &Database) -> Result<Summary> {
    match database.collect(CollectOptions::default()).await? {
        Collection::Closed(summary) => Ok(summary),
        Collection::NotDue { age, .. } => bail!("not due: {age:?}"),
    }
}

pub(crate) async fn claim(database: &Database) -> Result<Option<Delivery>> {
    match database.claim_delivery(LEASE).await? {
        DeliveryClaim::Claimed(delivery) => Ok(Some(delivery)),
        DeliveryClaim::NothingDue(_) => Ok(None),
    }
}

on_each_database! {
    async fn d7_a_summary_is_sent_until_the_receiver_acknowledges_it(test) {
        let workplace = Workplace::on(&test.url);
        let summary = closed_periods(&workplace, 1).remove(0);
        let responses = [
            Reply::Status(500), Reply::HangUp, Reply::Nonsense, Reply::Status(307), Reply::Status(302),
            Reply::Hang, Reply::Late, Reply::Status(401), Reply::Status(204),
        ];
        let receiver = Receiver::start(responses)?;
        let mut serving = deliver(&workplace, "audit", &url(&receiver), &["--deliver-timeout", "2s"]);
        serving.wait_for_log("delivered");
        let ended = serving.stop();

        let received = receiver.received();
        assert_eq!(received.len(), responses.len(), "{}", ended.stderr);
        for request in &received {
            assert_eq!(request.line, format!("POST /{SECRET} HTTP/1.1"));
            assert_eq!(request.header("authorization"), format!("Bearer {SECRET}"));
            assert_eq!(request.header("content-type"), "application/json");
            assert_eq!(request.header("idempotency-key"), received[0].header("idempotency-key"));
            assert_eq!(request.body, payload(&summary));
        }
        ensure!(received[0].header("idempotency-key").len() == 36);
        let periods = periods(&workplace);
        ensure!(periods[0]["delivered_at"].is_string() && periods[0]["delivery"].is_null(), "{periods:?}");
        ensure!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
        assert_eq!(test.number("SELECT attempts FROM boundary_usage_deliveries").await?, responses.len() as i64);
        Ok(())
    }

    async fn d7_a_period_that_is_acknowledged_by_hand_is_not_sent(test) {
        let workplace = Workplace::on(&test.url);
        let ids: Vec<_> = closed_periods(&workplace, 2).iter().map(|period| period["period_id"].to_string()).collect();
        workplace.json(["collect", "--acknowledge", &ids[0]]);
        let receiver = Receiver::start([])?;
        let mut serving = deliver(&workplace, "audit", &url(&receiver), &[]);
        serving.wait_for_log("delivered");
        serving.stop();
        let received = receiver.received();
        assert_eq!(received.iter().map(|request| request.body["period_id"].to_string()).collect::<Vec<_>>(), ids[1..]);
        Ok(())
    }

    async fn d7_two_replicas_deliver_each_period_once(test) {
        let workplace = Workplace::on(&test.url);
        let summaries = closed_periods(&workplace, 4);
        let receiver = Receiver::start([])?;
        let replicas = ["a", "b"].map(|name| deliver(&workplace, name, &url(&receiver), &[]));
        while periods(&workplace).iter().any(|period| period["delivered_at"].is_null()) {}
        let logs = replicas.map(|replica| replica.stop().stderr).concat();
        assert_eq!(logs.matches("was_undelivered=true").count(), summaries.len(), "{logs}");
        let received = receiver.received();
        let keys: BTreeSet<_> = received.iter().map(|request| request.header("idempotency-key")).collect();
        assert_eq!((received.len(), keys.len()), (summaries.len(), summaries.len()));
        for summary in &summaries {
            assert_eq!(received.iter().filter(|request| request.body == payload(summary)).count(), 1);
        }
        Ok(())
    }

    async fn d7_a_delivery_of_a_killed_replica_is_repeated_with_the_same_key(test) {
        let workplace = Workplace::on(&test.url);
        closed_periods(&workplace, 1);
        let receiver = Receiver::start([Reply::Hang])?;
        let first = deliver(&workplace, "a", &url(&receiver), &[]);
        receiver.wait_for(1);
        first.kill();
        let under_way = &periods(&workplace)[0]["delivery"];
        assert_eq!((&under_way["under_way"], &under_way["attempts"]), (&json!(true), &json!(1)));
        let mut second = deliver(&workplace, "b", &url(&receiver), &[]);
        test.set_back("boundary_usage_deliveries", "next_attempt_at", 3600).await?;
        second.wait_for_log("delivered");
        second.stop();
        let received = receiver.received();
        assert_eq!(received.len(), 2);
        assert_eq!(received[0].header("idempotency-key"), received[1].header("idempotency-key"));
        Ok(())
    }

    async fn status_shows_an_undelivered_period_and_its_last_error(test) {
        let workplace = Workplace::on(&test.url);
        closed_periods(&workplace, 1);
        let receiver = Receiver::start([Reply::Status(503); 1000])?;
        let mut serving = deliver(&workplace, "audit", &url(&receiver), &[]);
        serving.wait_for_log("the delivery failed");
        serving.stop();
        let delivery = periods(&workplace)[0]["delivery"].clone();
        assert_eq!(delivery["last_error"], json!("the receiver returned status 503"));
        let human = workplace.run(["status"]).stdout;
        ensure!(human.contains("undelivered periods") && human.contains("the receiver returned status 503"), "{human}");
        ensure!(!format!("{human}{delivery}").contains(SECRET));
        Ok(())
    }

    async fn a_claim_belongs_to_one_replica_until_its_lease_ends(test) {
        let database = test.connect().await?;
        assert_eq!(database.claim_delivery(LEASE).await?, DeliveryClaim::NothingDue(None));
        let summaries = [close(&database).await?, close(&database).await?];
        let first = claim(&database).await?.unwrap();
        let second = claim(&database).await?.unwrap();
        let claimed = [&first, &second].map(|delivery| delivery.summary.period_id);
        assert_eq!(claimed, summaries.map(|summary| summary.period_id));
        let DeliveryClaim::NothingDue(Some(due)) = database.claim_delivery(LEASE).await? else {
            bail!("claimed twice")
        };
        ensure!(due <= LEASE, "{due:?}");
        // The second delivery fails, and it is due again later.
        ensure!(database.delivery_failed(&second, "refused", LEASE).await?);
        assert_eq!(claim(&database).await?, None);
        // The lease of the first delivery ends, so its late failure is not recorded.
        test.set_back("boundary_usage_deliveries", "next_attempt_at", 3600).await?;
        let again = claim(&database).await?.unwrap();
        assert_eq!((again.attempt, again.idempotency_key), (2, first.idempotency_key));
        ensure!(!database.delivery_failed(&first, "too late", LEASE).await?);
        let status = database.status().await?.periods.pop().unwrap().delivery.unwrap();
        ensure!(status.under_way && status.last_error.is_none(), "{status:?}");
        // An acknowledgement is recorded, even if its lease has ended.
        ensure!(database.acknowledge(first.summary.period_id).await?);
        ensure!(!database.acknowledge(again.summary.period_id).await?);
        Ok(())
    }

    async fn simultaneous_claims_get_different_periods(test) {
        let database = test.connect().await?;
        for _ in 0..4 {
            close(&database).await?;
        }
        let claims = futures_util::future::join_all((0..8).map(|_| claim(&database))).await;
        let mut claimed = Vec::new();
        for delivery in claims {
            claimed.extend(delivery?.map(|delivery| delivery.summary.period_id));
        }
        // A claim that ran at the same moment as another may get nothing. Later claims get the other periods.
        while let Some(delivery) = claim(&database).await? {
            claimed.push(delivery.summary.period_id);
        }
        claimed.sort_unstable();
        let periods = database.status().await?.periods;
        let closed: Vec<_> = periods.iter().rev().map(|period| period.summary.period_id).collect();
        assert_eq!(claimed, closed);
        Ok(())
    }
}

#[test]
fn the_token_file_is_read_again_for_each_attempt() -> Result<()> {
    let workplace = Workplace::new();
    closed_periods(&workplace, 1);
    let receiver = Receiver::start([Reply::Hang])?;
    let mut serving = deliver(&workplace, "audit", &url(&receiver), &["--deliver-timeout", "1s"]);
    receiver.wait_for(1);
    workplace.write("token", "renewed");
    serving.wait_for_log("delivered");
    assert_eq!(receiver.received()[1].header("authorization"), "Bearer renewed");
    std::fs::remove_file(workplace.path("token"))?;
    closed_periods(&workplace, 1);
    serving.wait_for_log("cannot read the token file token");
    Ok(())
}

#[tokio::test]
async fn a_delivery_uses_the_certificates_and_proxy_of_the_environment() -> Result<()> {
    let server = PostgresServer::with_tls()?;
    let [certificate, authority] = ["server", "ca"].map(|name| server.certificate(name));
    let receiver = Receiver::start_tls(&certificate, &certificate.with_extension("key"))?;
    let proxy = Proxy::start(["domain=localhost"])?;
    let workplace = Workplace::new();
    closed_periods(&workplace, 1);
    let url = format!("https://localhost:{}/{SECRET}", receiver.address.port());
    let through = format!("http://alice:secret@{}", proxy.address);
    let environment = [("SSL_CERT_FILE", authority.to_str().unwrap()), ("HTTPS_PROXY", through.as_str())];

    let mut untrusting = deliver_with(&workplace, "a", &url, &[], &environment[1..]);
    untrusting.wait_for_log("no authority that is trusted here has issued the server's certificate");
    untrusting.stop();
    assert_eq!(receiver.received().len(), 0);
    let mut serving = deliver_with(&workplace, "b", &url, &[], &environment);
    serving.wait_for_log("delivered");
    let log = serving.stop().stderr;
    ensure!(!log.contains("alice"), "{log}");
    assert_eq!(receiver.received()[0].header("authorization"), format!("Bearer {SECRET}"));
    let [workspaces, _, allowed, denied] = proxy.stop().await?;
    ensure!(workspaces == 1 && allowed >= 2 && denied == 0, "{allowed} tunnels were opened and {denied} refused");
    Ok(())
}

#[test]
fn an_unusable_receiver_is_a_usage_error_that_does_not_show_the_url() {
    let workplace = Workplace::new();
    let serve = |url: &str| {
        let mut command = workplace.command(["serve", "--deliver", url, "--deliver-token-file", "token"]);
        crate::program::Ended::from(command.args(one_socket(&workplace.path("a.sock"), 1, 2)).output().unwrap())
    };
    for url in ["hunter2", "ftp://hunter2/", "https://user:hunter2@localhost/", "http://example.com/hunter2"] {
        let refused = serve(url);
        refused.assert_failed(2, "--deliver");
        assert!(!refused.stderr.contains(SECRET), "{}", refused.stderr);
    }
}
