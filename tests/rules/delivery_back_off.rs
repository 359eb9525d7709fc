//! Deliveries back off per destination.
//!
//! The number of waiting summaries and of delivering replicas does not increase the attempts at a failing receiver.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use boundary_usage::DeliveryClaim;
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::receiver::{Receiver, Reply};
use serde_json::json;

use crate::delivery::{LEASE, claim, close, closed_periods, deliver, periods, url};
use crate::program::{Workplace, one_socket};

/// The shortest time for five attempts, if the first delay is 200 ms and each delay is twice the one before.
const FIVE_ATTEMPTS: Duration = Duration::from_millis(200 + 400 + 800 + 1_600);

const RETRY: [&str; 2] = ["--deliver-retry", "200ms"];

/// Starts `serve` with a delivery whose first delay is 200 ms.
fn deliver_slowly(workplace: &Workplace, name: &str, receiver: &Receiver) -> crate::program::Serving {
    let mut command = workplace.command(["serve", "--format", "json", "--no-collect", "--deliver", &url(receiver)]);
    command.args(one_socket(&workplace.path(name), 1, 2)).args(RETRY);
    crate::program::Serving::start(&mut command, 1)
}

/// Returns the time until a delivery is due.
async fn due_in(test: &boundary_usage_tests::databases::TestDatabase) -> Result<Duration> {
    match test.connect().await?.claim_delivery(LEASE).await? {
        DeliveryClaim::NothingDue(Some(due)) => Ok(due),
        other => bail!("a delivery is due: {other:?}"),
    }
}

on_each_database! {
    async fn many_undelivered_periods_share_one_back_off(test) {
        let workplace = Workplace::on(&test.url);
        closed_periods(&workplace, 1);
        let database = test.connect().await?;
        for _ in 0..40 {
            close(&database).await?;
        }
        let receiver = Receiver::start([Reply::Status(429); 5])?;
        let started = Instant::now();
        let serving = deliver_slowly(&workplace, "a.sock", &receiver);
        receiver.wait_for(5);
        ensure!(started.elapsed() >= FIVE_ATTEMPTS, "five attempts within {:?}", started.elapsed());
        // After the first successful delivery, the others follow immediately.
        let all = receiver.wait_for(5 + 41);
        ensure!(all.len() == 46, "{} requests", all.len());
        serving.stop();
        Ok(())
    }

    async fn replicas_share_the_back_off(test) {
        let workplace = Workplace::on(&test.url);
        closed_periods(&workplace, 1);
        let database = test.connect().await?;
        for _ in 0..10 {
            close(&database).await?;
        }
        let receiver = Receiver::start([Reply::Status(503); 5])?;
        let started = Instant::now();
        let replicas = ["a.sock", "b.sock", "c.sock"].map(|name| deliver_slowly(&workplace, name, &receiver));
        receiver.wait_for(5);
        ensure!(started.elapsed() >= FIVE_ATTEMPTS, "five attempts within {:?}", started.elapsed());
        receiver.wait_for(5 + 11);
        replicas.into_iter().for_each(|replica| drop(replica.stop()));
        Ok(())
    }

    async fn a_restarted_process_respects_the_back_off(test) {
        let workplace = Workplace::on(&test.url);
        closed_periods(&workplace, 3);
        let receiver = Receiver::start([Reply::RetryAfter(503, 3_600)])?;
        let mut serving = deliver(&workplace, "a", &url(&receiver), &[]);
        serving.wait_for_log("the delivery failed");
        serving.kill();
        let serving = deliver(&workplace, "b", &url(&receiver), &[]);
        let due = due_in(&test).await?;
        ensure!(due > Duration::from_secs(3_500), "{due:?}");
        serving.stop();
        assert_eq!(receiver.received().len(), 1);
        Ok(())
    }

    async fn retry_after_is_respected_in_seconds_and_as_a_date(test) {
        for reply in [Reply::RetryAfter(429, 3_600), Reply::RetryAt(503, 3_600), Reply::RetryAfter(500, 3_600)] {
            let workplace = Workplace::on(&test.url);
            closed_periods(&workplace, 2);
            let receiver = Receiver::start([reply])?;
            let mut serving = deliver(&workplace, "audit", &url(&receiver), &[]);
            serving.wait_for_log("the delivery failed");
            serving.stop();
            let due = due_in(&test).await?;
            ensure!(due > Duration::from_secs(3_500) && due <= Duration::from_secs(3_700), "{reply:?}: {due:?}");
            assert_eq!(receiver.received().len(), 1, "{reply:?}");
            test.execute("DELETE FROM boundary_usage_deliveries").await?;
            test.execute("DELETE FROM boundary_usage_periods").await?;
        }
        Ok(())
    }

    async fn retry_after_is_limited_to_one_day(test) {
        let workplace = Workplace::on(&test.url);
        closed_periods(&workplace, 1);
        let receiver = Receiver::start([Reply::RetryAfter(503, u32::MAX)])?;
        let mut serving = deliver(&workplace, "audit", &url(&receiver), &[]);
        serving.wait_for_log("the delivery failed");
        serving.stop();
        let due = due_in(&test).await?;
        ensure!(due > Duration::from_secs(86_000) && due <= Duration::from_secs(86_400), "{due:?}");
        Ok(())
    }

    async fn after_a_410_the_receiver_is_not_retried_before_a_restart(test) {
        let workplace = Workplace::on(&test.url);
        closed_periods(&workplace, 3);
        let receiver = Receiver::start([Reply::Status(410)])?;
        let mut serving = deliver(&workplace, "audit", &url(&receiver), &[]);
        serving.wait_for_log("the receiver returned status 410");
        receiver.wait_for(1);
        let log = serving.stop().stderr;
        assert_eq!(receiver.received().len(), 1, "{log}");
        ensure!(log.contains("restart") && log.contains("collect --acknowledge"), "{log}");
        let periods = periods(&workplace);
        let error = periods.iter().find_map(|period| period["delivery"]["last_error"].as_str());
        ensure!(error.is_some_and(|error| error.contains("410") && error.contains("restart")));

        let mut restarted = deliver(&workplace, "audit", &url(&receiver), &[]);
        receiver.wait_for(4);
        restarted.wait_for_log("delivered");
        restarted.stop();
        Ok(())
    }

    async fn a_refused_summary_does_not_delay_other_summaries(test) {
        let database = test.connect().await?;
        let [refused, other] = [close(&database).await?, close(&database).await?];
        let first = claim(&database).await?.expect("the oldest");
        assert_eq!(first.summary.period_id, refused.period_id);
        ensure!(database.delivery_failed(&first, "the receiver returned status 400", Duration::ZERO).await?);
        let second = claim(&database).await?.expect("the one with the fewest attempts");
        assert_eq!((second.summary.period_id, second.attempt), (other.period_id, 1));
        Ok(())
    }

    async fn a_failing_destination_gets_one_attempt_at_a_time(test) {
        let database = test.connect().await?;
        for _ in 0..4 {
            close(&database).await?;
        }
        let first = claim(&database).await?.expect("one is due");
        ensure!(database.delivery_failed(&first, "the receiver returned status 500", Duration::ZERO).await?);
        let claims = futures_util::future::join_all((0..6).map(|_| claim(&database))).await;
        let claimed: Vec<_> = claims.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        assert_eq!(claimed.len(), 1, "a failing receiver gets one attempt at a time");
        ensure!(database.acknowledge(claimed[0].summary.period_id).await?);
        ensure!(claim(&database).await?.is_some() && claim(&database).await?.is_some(), "a success ends the back-off");
        Ok(())
    }
}

#[test]
fn durations_of_deliveries_have_limits() {
    let workplace = Workplace::new();
    let serve = |flag: &str, value: &str| {
        let mut command = workplace.command(["serve", "--deliver", "http://127.0.0.1:1/", flag, value]);
        crate::program::Ended::from(command.args(one_socket(&workplace.path("a.sock"), 1, 2)).output().unwrap())
    };
    for (flag, value, most) in [
        ("--deliver-timeout", "8000y", "from 1ms to 1h"),
        ("--deliver-timeout", "61m", "from 1ms to 1h"),
        ("--deliver-timeout", "0s", "from 1ms to 1h"),
        ("--deliver-retry", "8000y", "from 1ms to 5m"),
        ("--deliver-retry", "301s", "from 1ms to 5m"),
    ] {
        let refused = serve(flag, value);
        refused.assert_failed(2, flag);
        refused.assert_failed(2, most);
    }
    assert_eq!(json!(workplace.files()), json!([]));
}
