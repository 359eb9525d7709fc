//! The command `deliver`, and signatures of deliveries by the Standard Webhooks specification.
//!
//! `make test-webhooks` verifies the signatures with the specification's reference libraries.

use boundary_usage_tests::on_each_database;
use boundary_usage_tests::receiver::{Received, Receiver, Reply};
use serde_json::{Value, json};

use crate::delivery::{close, closed_periods, deliver, payload, periods, url};
use crate::program::{Ended, Workplace};

/// A secret in the format of the specification.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Runs `deliver` for a receiver.
fn run(workplace: &Workplace, receiver: &Receiver, more: &[&str]) -> Ended {
    let mut command = workplace.command(["deliver", "--format", "json", "--deliver", &url(receiver)]);
    command.args(more).output().unwrap().into()
}

/// Returns the values of the headers by which a receiver recognizes and verifies a delivery.
fn identity(request: &Received) -> [&str; 2] {
    ["webhook-id", "idempotency-key"].map(|name| request.header(name))
}

on_each_database! {
    async fn due_summaries_are_delivered_once(test) {
        let workplace = Workplace::on(&test.url);
        let summaries = closed_periods(&workplace, 2);
        let receiver = Receiver::start([])?;
        assert_eq!(run(&workplace, &receiver, &[]).json(), json!({ "delivered": [1, 2], "next_due_ms": null }));
        assert_eq!(run(&workplace, &receiver, &[]).json(), json!({ "delivered": [], "next_due_ms": null }));
        let bodies: Vec<_> = receiver.received().into_iter().map(|request| request.body).collect();
        assert_eq!(bodies, summaries.iter().map(payload).collect::<Vec<_>>());
        Ok(())
    }

    async fn a_failed_delivery_is_an_error_and_is_due_later(test) {
        let workplace = Workplace::on(&test.url);
        closed_periods(&workplace, 2);
        let receiver = Receiver::start([Reply::RetryAfter(503, 3_600)])?;
        run(&workplace, &receiver, &[]).assert_failed(1, "the summary of period 1 is undelivered");
        let again = run(&workplace, &receiver, &[]).json();
        let wait = again["next_due_ms"].as_u64().unwrap();
        assert!(again["delivered"] == json!([]) && (3_000_000..=3_600_000).contains(&wait), "{again}");
        assert_eq!(receiver.received().len(), 1);
        Ok(())
    }

    async fn a_dry_run_shows_the_requests_and_changes_nothing(test) {
        let workplace = Workplace::on(&test.url);
        closed_periods(&workplace, 2);
        workplace.write("secrets", SECRET);
        let before = periods(&workplace);
        let receiver = Receiver::start([])?;
        let secret = ["--deliver-secret-file", "secrets"];
        let shown = run(&workplace, &receiver, &[secret[0], secret[1], "--dry-run"]);
        assert!(!shown.stdout.contains("hunter2") && !shown.stdout.contains(SECRET), "{}", shown.stdout);
        assert_eq!((periods(&workplace), receiver.received().len()), (before, 0));

        let requests = shown.json()["requests"].as_array().unwrap().clone();
        run(&workplace, &receiver, &secret).assert_succeeded();
        let received = receiver.received();
        assert_eq!((requests.len(), received.len()), (2, 2));
        for (shown, sent) in requests.iter().zip(&received) {
            assert_eq!((&shown["body"], &shown["period_id"]), (&sent.body, &sent.body["period_id"]));
            let headers: Vec<(String, String)> = serde_json::from_value(shown["headers"].clone())?;
            let id = headers.iter().find(|(name, _)| name == "webhook-id").map(|(_, id)| id.as_str());
            assert_eq!(id, Some(sent.header("webhook-id")));
        }
        Ok(())
    }

    async fn a_dry_run_shows_more_requests_than_a_status_lists(test) {
        let workplace = Workplace::on(&test.url);
        let database = test.connect().await?;
        for _ in 0..80 {
            close(&database).await?;
        }
        let receiver = Receiver::start([])?;
        let shown = run(&workplace, &receiver, &["--dry-run"]).json();
        let requests = shown["requests"].as_array().unwrap();
        let periods: Vec<_> = requests.iter().map(|request| request["period_id"].as_i64().unwrap()).collect();
        assert_eq!(periods, (1..=80).collect::<Vec<_>>());
        Ok(())
    }

    async fn all_attempts_of_a_period_have_the_same_webhook_id(test) {
        let workplace = Workplace::on(&test.url);
        closed_periods(&workplace, 2);
        workplace.write("secrets", &format!("{SECRET}\n"));
        let receiver = Receiver::start([Reply::Status(500), Reply::HangUp])?;
        let mut serving = deliver(&workplace, "audit", &url(&receiver), &["--deliver-secret-file", "secrets"]);
        while periods(&workplace).iter().any(|period| period["delivered_at"].is_null()) {}
        serving.wait_for_log("delivered");
        serving.stop();
        let received = receiver.received();
        let of = |period: u64| {
            let requests = received.iter().filter(move |request| request.body["period_id"] == json!(period));
            requests.map(identity).collect::<Vec<_>>()
        };
        let (first, second) = (of(1), of(2));
        assert_eq!(first.len() + second.len(), 4);
        for identities in [&first, &second] {
            assert!(identities.iter().all(|identity| *identity == identities[0]), "{identities:?}");
        }
        assert_ne!(first[0][0], second[0][0]);
        Ok(())
    }
}

#[test]
fn without_secrets_a_delivery_is_not_signed() {
    let workplace = Workplace::new();
    closed_periods(&workplace, 1);
    let receiver = Receiver::start([]).unwrap();
    run(&workplace, &receiver, &[]).assert_succeeded();
    assert_eq!(receiver.received()[0].header("webhook-signature"), "");
}

#[test]
fn a_renewed_secret_needs_no_restart() {
    let workplace = Workplace::new();
    closed_periods(&workplace, 1);
    workplace.write("secrets", SECRET);
    let receiver = Receiver::start([]).unwrap();
    let mut serving = deliver(&workplace, "audit", &url(&receiver), &["--deliver-secret-file", "secrets"]);
    serving.wait_for_log("delivered");
    let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    workplace.write("secrets", &format!("{other}\n{SECRET}\n"));
    closed_periods(&workplace, 1);
    serving.wait_for_log("delivered");
    serving.stop();
    let signatures: Vec<_> =
        receiver.received().iter().map(|request| request.header("webhook-signature").split(' ').count()).collect();
    assert_eq!(signatures, [1, 2]);
}

#[test]
fn a_faulty_secret_file_is_a_usage_error_and_is_not_shown() {
    let workplace = Workplace::new();
    closed_periods(&workplace, 1);
    let receiver = Receiver::start([]).unwrap();
    workplace.write("secrets", "whsec_hunter2hunter2\n");
    let ended = run(&workplace, &receiver, &["--deliver-secret-file", "secrets"]);
    ended.assert_failed(2, "line 1 of the secret file secrets is not a secret");
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    run(&workplace, &receiver, &["--deliver-secret-file", "missing"]).assert_failed(2, "cannot read the secret file");
    workplace.run(["deliver"]).assert_failed(2, "--deliver or BOUNDARY_USAGE_DELIVER");
    assert!(receiver.received().is_empty());
}

#[test]
fn the_schema_lists_all_fields_of_the_payload() {
    let workplace = Workplace::new();
    let summary = closed_periods(&workplace, 1).remove(0);
    let schema: Value = serde_json::from_str(include_str!("../../docs/summary.schema.json")).unwrap();
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut sent = fields(&payload(&summary));
    sent.sort();
    let mut described = fields(&schema["properties"]);
    described.sort();
    assert_eq!(described, sent);
    let required = schema["required"].as_array().unwrap();
    assert_eq!(required.len(), sent.len(), "every field is always there");
}
