//! The status of a database with 175,200 periods and 100,000 replicas: bounded, and as fast as that of a small one.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use boundary_usage::{CollectOptions, Database, StatusScope};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::expected_usage::until;
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::usage::{flush, id, update};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::http::{get, json as status_json, with_http};
use crate::program::{Serving, Workplace, one_socket};

/// The half hours of ten years.
const PERIODS: u32 = 175_200;

const REPLICAS: u32 = 100_000;

/// The largest number of measurements of each database. The least time is the least disturbed by other load.
const ROUNDS: usize = 200;

/// The number of measurements before the first comparison.
const ROUNDS_MIN: usize = 5;

/// Creates periods that each lasted half an hour until now. All but the last 60 are delivered.
async fn insert_periods(test: &TestDatabase, count: u32) -> Result<()> {
    let [numbers, delivered] = [test.numbers(count), test.days_ago(0)];
    let (start, end) = match test.is_postgres {
        true => ("now() - (PLACE + 1) * interval '30 minutes'", "now() - PLACE * interval '30 minutes'"),
        false => (
            "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-' || ((PLACE + 1) * 30) || ' minutes')",
            "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-' || (PLACE * 30) || ' minutes')",
        ),
    };
    let [start, end] = [start, end].map(|time| time.replace("PLACE", &format!("({count} - value)")));
    test.execute(&format!(
        "INSERT INTO boundary_usage_periods (period_start, period_end, period_duration_ms, unique_workspaces, \
         unique_users, allowed_requests, denied_requests, replicas, replica_workspaces_sum, replica_users_sum, \
         stale_rows, stale_allowed_requests, stale_denied_requests, delivered_at)
         SELECT {start}, {end}, 1800000, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0,
             CASE WHEN value <= {count} - 60 THEN {delivered} END FROM {numbers} ORDER BY value"
    ))
    .await
}

async fn insert_replicas(test: &TestDatabase, count: u32) -> Result<()> {
    let (replica, time) = match test.is_postgres {
        true => ("gen_random_uuid()", "now() - value * interval '1 minute'"),
        false => (
            "printf('%08x-0000-4000-8000-000000000000', value * 2654435761 % 4294967296)",
            "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-' || value || ' minutes')",
        ),
    };
    let numbers = test.numbers(count);
    test.execute(&format!("INSERT INTO boundary_usage_replicas SELECT {replica}, 1, {time} FROM {numbers}")).await
}

async fn time_of(action: impl Future<Output = Result<(), boundary_usage::Error>>) -> Result<Duration> {
    let start = Instant::now();
    action.await?;
    Ok(start.elapsed())
}

/// Measures an action on a small database and on a large one, in turns, until the least times allow a conclusion.
async fn assert_at_most_twice(
    [small, large]: [&Database; 2],
    action: impl AsyncFn(&Database) -> Result<(), boundary_usage::Error>,
) -> Result<()> {
    let mut least = [Duration::MAX; 2];
    for round in 1..=ROUNDS {
        for (database, least) in [small, large].into_iter().zip(&mut least) {
            *least = time_of(action(database)).await?.min(*least);
        }
        if round >= ROUNDS_MIN && least[1] <= 2 * least[0] {
            return Ok(());
        }
    }
    bail!("it takes {:?} instead of {:?}", least[1], least[0])
}

/// The number of pages that are compared. Each needs a new reading of the database, which takes place once a second.
const PAGES: usize = 30;

/// The number of pages before the first comparison.
const PAGES_MIN: usize = 3;

/// The part of a response's time that does not come from the database: connection, rendering, scheduling.
const PAGE_SLACK: Duration = Duration::from_millis(5);

/// Starts `serve` without collections.
fn serve(url: &str) -> (Workplace, Serving) {
    let workplace = Workplace::on(url);
    let arguments = with_http(one_socket(&workplace.path("audit.sock"), 1, 2), &["--no-collect"]);
    let serving = workplace.serve(1, arguments);
    (workplace, serving)
}

/// Returns the time of a response for which the server read the database, instead of reusing its last reading.
async fn time_of_page(address: &str, path: &str) -> Result<Duration> {
    let mut time = Duration::ZERO;
    until("a request reads the database", async || {
        let (start, begun) = (Utc::now(), Instant::now());
        let response = get(address, path);
        time = begun.elapsed();
        let end = Utc::now();
        ensure!(response.code == 200, "{}", response.body);
        let read: DateTime<Utc> = serde_json::from_value(status_json(address)["database"]["at"].clone())?;
        Ok((start..=end).contains(&read))
    })
    .await?;
    Ok(time)
}

/// Measures a page of a small database and of a large one, in turns, until the least times allow a conclusion.
async fn assert_page_at_most_twice(addresses: [&str; 2], path: &str) -> Result<()> {
    let mut least = [Duration::MAX; 2];
    for round in 1..=PAGES {
        for (address, least) in addresses.into_iter().zip(&mut least) {
            *least = time_of_page(address, path).await?.min(*least);
        }
        if round >= PAGES_MIN && least[1] <= 2 * least[0] + PAGE_SLACK {
            return Ok(());
        }
    }
    bail!("{path} takes {:?} instead of {:?}", least[1], least[0])
}

async fn another(test: &TestDatabase) -> Result<TestDatabase> {
    if test.is_postgres { TestDatabase::postgres().await } else { TestDatabase::sqlite() }
}

on_each_database! {
    async fn the_status_and_a_collection_take_at_most_twice_as_long_as_in_a_small_database(test) {
        let other = another(&test).await?;
        let (small, large) = (other.connect().await?, test.connect().await?);
        // Both databases list the same number of rows, so only the sizes of the tables differ.
        for (test, database, periods, replicas) in [(&other, &small, 100, 100), (&test, &large, PERIODS, REPLICAS)] {
            insert_periods(test, periods).await?;
            insert_replicas(test, replicas).await?;
            flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        }
        let databases = [&small, &large];
        let [status, full] = [large.status().await?, large.full_status().await?];
        assert_eq!((status.periods.len(), status.replicas.len(), status.rows.len()), (60, 100, 1));
        assert_eq!((full.periods.len(), full.replicas.len()), (PERIODS as usize, REPLICAS as usize + 1));
        assert_at_most_twice(databases, async |database| database.status().await.map(drop)).await?;
        let collect = async |database: &Database| database.collect(CollectOptions::default()).await.map(drop);
        assert_at_most_twice(databases, collect).await?;
        assert_at_most_twice(databases, async |database| database.ages().await.map(drop)).await?;
        let servers = [&other, &test].map(|test| serve(&test.url));
        let addresses = servers.each_ref().map(|(_, serving)| serving.http());
        for path in ["/", "/status.json"] {
            assert_page_at_most_twice(addresses.each_ref().map(String::as_str), path).await?;
        }
        for path in ["/", "/status.json", "/metrics"] {
            let [small, large] = addresses.each_ref().map(|address| get(address, path).body.len());
            // The numbers of a large database have more digits.
            ensure!(large <= small + small / 10, "{path} has {large} instead of {small} bytes");
        }
        Ok(())
    }

    async fn the_status_lists_the_newest_and_counts_the_others(test) {
        let database = test.connect().await?;
        insert_periods(&test, 150).await?;
        insert_replicas(&test, 130).await?;
        let mut status = database.status().await?;
        let ids: Vec<_> = status.periods.iter().map(|period| period.summary.period_id).collect();
        // The newest 48, which are undelivered, and the oldest 20 of the 60 undelivered ones.
        let expected: Vec<_> = (103..=150).rev().chain((91..103).rev()).collect();
        assert_eq!(ids, expected);
        assert_eq!((status.more_periods.count, status.undelivered.count, status.undelivered.at_least), (90, 60, false));
        assert!(status.replicas.is_sorted_by_key(|replica| std::cmp::Reverse(replica.flushed_at)));
        assert_eq!((status.replicas.len(), status.more_replicas.count), (100, 30));
        status.more_replicas.at_least = true;
        assert_eq!(status.more_replicas.to_string(), "at least 30");
        let all = database.backend().status(StatusScope::All).await?;
        assert_eq!((all.periods.len(), all.replicas.len(), all.more_replicas.count), (150, 130, 0));
        Ok(())
    }

    async fn long_tables_are_not_counted_to_their_end(test) {
        let database = test.connect().await?;
        insert_replicas(&test, 1_050).await?;
        let more = database.status().await?.more_replicas;
        assert_eq!((more.count, more.at_least), (900, true));
        let workplace = Workplace::on(&test.url);
        let human = workplace.run(["status"]).stdout;
        ensure!(human.contains("and at least 980 more") && human.lines().count() < 40, "{human}");
        let all = workplace.run(["status", "--all"]).stdout;
        ensure!(all.lines().count() > 1_050 && !all.contains(" more"), "it has {} lines", all.lines().count());
        Ok(())
    }

    async fn the_sums_of_many_rows_are_complete_and_their_unique_counts_lower_bounds(test) {
        let database = test.connect().await?;
        for replica in 0..105 {
            flush(database.backend().as_ref(), id(replica), &update(1, replica..replica + 10, 5, 2)).await?;
        }
        let status = database.status().await?;
        let so_far = &status.so_far;
        assert_eq!((status.rows.len(), status.more_rows.count, status.more_rows.at_least), (100, 5, false));
        assert!(status.rows.is_sorted_by_key(|row| std::cmp::Reverse(row.updated_at)));
        assert_eq!((so_far.replicas, so_far.allowed_requests, so_far.denied_requests), (105, 525, 210));
        assert_eq!((so_far.replica_users_sum, so_far.replica_workspaces_sum), (1_050, 1_050));
        // The sketches of the 100 newest rows were read.
        assert!((109..114).contains(&so_far.unique_users), "{so_far:?}");
        assert_eq!(database.full_status().await?.so_far.unique_users, 114);
        let human = Workplace::on(&test.url).run(["status"]).stdout;
        ensure!(human.contains("and 85 more\ntogether at least 1"), "{human}");
        // A sum saturates instead of overflowing.
        test.execute(&format!("UPDATE boundary_usage_stats SET allowed_requests = {}", i64::MAX / 2)).await?;
        test.execute("UPDATE boundary_usage_stats SET denied_requests = 8589934599").await?;
        let so_far = database.status().await?.so_far;
        assert_eq!((so_far.allowed_requests, so_far.denied_requests), (i64::MAX as u64, 105 * 8_589_934_599));
        Ok(())
    }
}

#[tokio::test]
async fn the_page_and_json_are_bounded_and_count_the_others() -> Result<()> {
    let test = TestDatabase::sqlite()?;
    test.connect().await?;
    insert_periods(&test, 300).await?;
    insert_replicas(&test, 1_050).await?;
    let (_workplace, serving) = serve(&test.url);
    let status: Value = status_json(&serving.http());
    let status = &status["database"]["status"];
    assert_eq!(status["more_replicas"], json!({"count": 900, "at_least": true}));
    assert_eq!(status["more_periods"], json!({"count": 240, "at_least": false}));
    assert_eq!(status["replicas"].as_array().map(Vec::len), Some(100));
    let page = get(&serving.http(), "/").body;
    ensure!(page.contains("and at least 900 more, which flushed earlier"), "{page}");
    ensure!(page.contains(r#"id="undelivered-count">60"#), "{page}");
    serving.stop().json();
    Ok(())
}
