//! After the database's clock was ahead, nothing waits for the stored times in the future.

use std::time::Duration;

use anyhow::{Result, ensure};
use boundary_usage::{CollectOptions, Collection, Database, Summary};
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::usage::{flush, id, update};
use chrono::{TimeDelta, Utc};

use crate::delivery::{LEASE, claim, close};
use crate::http::{get, metric, with_http};
use crate::program::{Workplace, one_socket};

const YEAR: u32 = 365 * 86_400;

/// Collects like `serve`, which collects only a period that is due.
async fn collect_if_due(database: &Database) -> Result<Summary> {
    let options = CollectOptions { interval: Some(Duration::from_secs(1_800)), ..CollectOptions::default() };
    match database.collect(options).await? {
        Collection::Closed(summary) => Ok(summary),
        Collection::NotDue { age, .. } => anyhow::bail!("not due: {age:?}"),
    }
}

fn is_now(time: chrono::DateTime<Utc>) -> bool {
    (Utc::now() - time).abs() < TimeDelta::minutes(5)
}

on_each_database! {
    async fn a_first_period_that_starts_in_the_future_is_due(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        test.set_ahead("boundary_usage_deployment", "created_at", YEAR).await?;
        let summary = collect_if_due(&database).await?;
        assert_eq!((summary.unique_workspaces, summary.allowed_requests, summary.period_duration_ms), (3, 5, 0));
        ensure!(is_now(summary.period_start), "the period starts at {}", summary.period_start);
        ensure!(is_now(database.status().await?.period_start), "{:?}", database.status().await?.period_start);
        Ok(())
    }

    async fn a_later_period_that_starts_in_the_future_is_due(test) {
        let database = test.connect().await?;
        close(&database).await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        for column in ["period_end", "period_start"] {
            test.set_ahead("boundary_usage_periods", column, YEAR).await?;
        }
        let summary = collect_if_due(&database).await?;
        assert_eq!(summary.unique_workspaces, 3);
        ensure!(is_now(summary.period_start), "the period starts at {}", summary.period_start);
        // A collection by hand closes it, too.
        test.set_ahead("boundary_usage_periods", "period_end", YEAR).await?;
        let summary = close(&database).await?;
        ensure!(is_now(summary.period_start), "the period starts at {}", summary.period_start);
        let status = database.status().await?;
        ensure!(is_now(status.period_start), "{}", status.period_start);
        Ok(())
    }

    async fn serve_collects_a_period_whose_start_is_in_the_future(test) {
        test.connect().await?.close().await;
        test.set_ahead("boundary_usage_deployment", "created_at", 7_200).await?;
        let workplace = Workplace::on(&test.url);
        let socket = workplace.path("audit.sock");
        let more = ["-v", "--collect-interval", "1h"].map(str::to_owned);
        let mut serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(more));
        serving.wait_for_log("collected");
        serving.stop().json();
        Ok(())
    }

    async fn a_delivery_with_an_attempt_in_the_future_is_due(test) {
        let database = test.connect().await?;
        close(&database).await?;
        let first = claim(&database).await?.expect("it is due");
        ensure!(database.delivery_failed(&first, "the receiver returned status 500", LEASE).await?);
        for column in ["attempted_at", "next_attempt_at"] {
            test.set_ahead("boundary_usage_deliveries", column, 7_200).await?;
        }
        let again = claim(&database).await?;
        assert_eq!(again.map(|delivery| delivery.attempt), Some(2));
        Ok(())
    }

    async fn a_delivery_that_waits_longer_than_possible_is_due(test) {
        let database = test.connect().await?;
        close(&database).await?;
        ensure!(claim(&database).await?.is_some());
        // No lease lasts a year, so this one is treated as ended.
        test.set_ahead("boundary_usage_deliveries", "next_attempt_at", YEAR).await?;
        let again = claim(&database).await?;
        assert_eq!(again.map(|delivery| delivery.attempt), Some(2));
        Ok(())
    }

    async fn a_delivery_time_in_the_future_does_not_end_the_back_off(test) {
        let database = test.connect().await?;
        for _ in 0..3 {
            close(&database).await?;
        }
        let first = claim(&database).await?.expect("it is due");
        ensure!(database.acknowledge(first.summary.period_id).await?);
        let ahead = if test.is_postgres { "delivered_at + interval '1 year'" } else { "'2199-01-01T00:00:00.000000Z'" };
        let delivered = "delivered_at IS NOT NULL";
        test.execute(&format!("UPDATE boundary_usage_periods SET delivered_at = {ahead} WHERE {delivered}")).await?;
        let second = claim(&database).await?.expect("another is due");
        ensure!(database.delivery_failed(&second, "the receiver returned status 500", LEASE).await?);
        ensure!(claim(&database).await?.is_none(), "the destination is tried without a back-off");
        Ok(())
    }

    async fn metrics_show_the_ages_of_the_period_and_the_oldest_undelivered_summary(test) {
        let database = test.connect().await?;
        test.set_back("boundary_usage_deployment", "created_at", 9_000).await?;
        let workplace = Workplace::on(&test.url);
        let serving = workplace.serve(1, with_http(one_socket(&workplace.path("audit.sock"), 1, 2), &["--no-collect"]));
        let text = get(&serving.http(), "/metrics").body;
        let age = |text: &str| metric(text, "open_period_age_seconds").unwrap_or_else(|| panic!("no age in\n{text}"));
        ensure!((9_000.0..9_300.0).contains(&age(&text)), "{text}");
        assert_eq!(metric(&text, "oldest_undelivered_age_seconds"), Some(0.0), "{text}");

        close(&database).await?;
        test.set_back("boundary_usage_periods", "period_end", 5_000).await?;
        let aged = loop {
            // The metrics are cached for one second.
            let text = get(&serving.http(), "/metrics").body;
            if metric(&text, "oldest_undelivered_age_seconds") > Some(0.0) {
                break text;
            }
        };
        let undelivered = metric(&aged, "oldest_undelivered_age_seconds");
        ensure!(undelivered.is_some_and(|age| (5_000.0..5_300.0).contains(&age)), "{aged}");
        serving.kill();
        Ok(())
    }
}
