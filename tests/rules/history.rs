//! The history on both databases: what a collection adds to a day, and what a report reads (H1 to H3, H7, H8).

use anyhow::{Result, bail, ensure};
use boundary_usage::{
    CollectOptions, Collection, Database, Error, HashingKey, KeyFingerprint, ReportOptions, ReportRange, Summary,
    WindowLength,
};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::faults::{Fault, Faults};
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::usage::{flush, id, update};
use chrono::NaiveDate;

use crate::authority::{database_with_roles, login};

/// Closes the period as if it had started at `start`, after a flush of these ids.
pub(crate) async fn close_at(
    test: &TestDatabase,
    database: &Database,
    start: &str,
    number: u64,
    ids: u128,
) -> Result<Summary> {
    test.execute(&format!("UPDATE boundary_usage_deployment SET created_at = '{start}'")).await?;
    test.execute(&format!("UPDATE boundary_usage_periods SET period_end = '{start}', period_start = '{start}'"))
        .await?;
    flush(database.backend().as_ref(), id(1), &update(number, 0..ids, 5, 2)).await?;
    match database.collect(CollectOptions::default()).await? {
        Collection::Closed(summary) => Ok(summary),
        other => bail!("{other:?}"),
    }
}

pub(crate) fn day(start: &str) -> String {
    // SQLite stores times with microseconds.
    format!("{start}.000000Z")
}

async fn days(test: &TestDatabase) -> Result<i64> {
    test.number("SELECT count(*) FROM boundary_usage_days").await
}

fn january(day: u32) -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(2026, 1, day)
}

on_each_database! {
    async fn h1_a_collection_adds_its_period_to_the_day_on_which_it_started(test) {
        let database = test.connect().await?;
        close_at(&test, &database, &day("2026-01-05T10:00:00"), 1, 3).await?;
        close_at(&test, &database, &day("2026-01-05T23:59:59"), 2, 5).await?;
        close_at(&test, &database, &day("2026-01-07T00:00:00"), 3, 4).await?;
        assert_eq!(days(&test).await?, 2);
        let range = ReportRange::Dates { from: january(5), to: january(8) };
        let report = database.report(ReportOptions { by: WindowLength::Day, range }).await?;
        let rows: Vec<_> = report.rows.iter().map(|row| {
            let users = row.users.counts;
            (row.start.to_string(), row.allowed_requests, row.denied_requests, users.active, users.new, users.lost)
        }).collect();
        assert_eq!(rows, [
            ("2026-01-05".into(), 10, 4, 5, 5, 0),
            ("2026-01-06".into(), 0, 0, 0, 0, 5),
            ("2026-01-07".into(), 5, 2, 4, 0, 0),
        ]);
        // The periods ended long after midnight.
        assert!(report.rows[0].spans_midnight && !report.rows[1].spans_midnight && report.rows[0].complete);
        Ok(())
    }

    async fn h1_a_period_reaches_its_day_exactly_once_whatever_happens_to_the_commit(test) {
        let connected = test.connect().await?;
        let (database, faults) = Faults::in_front_of(&connected);
        for (number, fault) in [(1, Fault::Commit), (2, Fault::CommitLost), (3, Fault::CommitReplyLost)] {
            flush(connected.backend().as_ref(), id(1), &update(number, 0..3, 5, 2)).await.or_else(|error| {
                // The row of the failed collection is still there.
                if matches!(error, Error::Conflict { .. }) { Ok(()) } else { Err(error) }
            })?;
            faults.inject(fault);
            ensure!(database.collect(CollectOptions::default()).await.is_err());
        }
        database.collect(CollectOptions::default()).await?;
        let report = connected.report(ReportOptions::default()).await?;
        let allowed: u64 = report.rows.iter().map(|row| row.allowed_requests).sum();
        let periods: u64 = connected.status().await?.periods.iter().map(|period| period.summary.allowed_requests).sum();
        assert_eq!((allowed, allowed), (periods, 5));
        Ok(())
    }

    async fn h3_without_history_no_day_is_kept(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        database.collect(CollectOptions { without_history: true, ..CollectOptions::default() }).await?;
        assert_eq!((days(&test).await?, database.status().await?.periods.len()), (0, 1));
        Ok(())
    }

    async fn a_period_without_usage_adds_no_day(test) {
        let database = test.connect().await?;
        database.collect(CollectOptions::default()).await?;
        assert_eq!(days(&test).await?, 0);
        let report = database.report(ReportOptions::default()).await?;
        assert_eq!((report.rows.len(), report.rows[0].complete), (1, false));
        Ok(())
    }

    async fn a_day_is_complete_when_it_is_over_and_no_open_period_belongs_to_it(test) {
        let database = test.connect().await?;
        close_at(&test, &database, &day("2026-01-05T10:00:00"), 1, 3).await?;
        let range = ReportRange::Dates { from: january(5), to: january(6) };
        let options = ReportOptions { by: WindowLength::Day, range };
        assert!(database.report(options).await?.rows[0].complete);
        // The open period contains usage and started on that day.
        let end = day("2026-01-05T11:00:00");
        test.execute(&format!("UPDATE boundary_usage_periods SET period_end = '{end}'")).await?;
        assert!(database.report(options).await?.rows[0].complete, "the open period has no usage");
        flush(database.backend().as_ref(), id(1), &update(2, 0..3, 5, 2)).await?;
        assert!(!database.report(options).await?.rows[0].complete);
        Ok(())
    }

    async fn a_damaged_day_is_named_and_no_collection_overwrites_it(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        database.collect(CollectOptions::default()).await?;
        let damage = if test.is_postgres { r"'\x2a'" } else { "x'2a'" };
        test.execute(&format!("UPDATE boundary_usage_days SET users_sketch = {damage}")).await?;
        let today = chrono::Utc::now().date_naive().to_string();
        let Err(error) = database.report(ReportOptions::default()).await else { bail!("a damaged day was reported") };
        ensure!(error.to_string().contains(&today) && error.to_string().contains("users sketch"), "{error}");
        flush(database.backend().as_ref(), id(1), &update(2, 0..3, 5, 2)).await?;
        let Err(error) = database.collect(CollectOptions::default()).await else { bail!("it was collected") };
        ensure!(error.to_string().contains(&today), "{error}");
        assert_eq!(database.status().await?.rows.len(), 1);
        Ok(())
    }

    async fn h8_a_report_changes_nothing(test) {
        let database = test.connect().await?;
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        database.collect(CollectOptions::default()).await?;
        flush(database.backend().as_ref(), id(1), &update(2, 0..3, 5, 2)).await?;
        let content = async || {
            let status = database.status().await?;
            anyhow::Ok(format!("{:?} {:?} {:?}", status.rows, status.replicas, status.periods))
        };
        let before = content().await?;
        let report = database.report(ReportOptions::default()).await?;
        database.retention(ReportOptions::default()).await?;
        assert_eq!(database.report(ReportOptions::default()).await?, report);
        assert_eq!(content().await?, before);
        Ok(())
    }

    async fn a_schema_is_created_with_a_given_key_and_another_key_is_refused(test) {
        let (key, other) = (HashingKey(1, 2), HashingKey(3, 4));
        let database = Database::create(&test.url, key).await?;
        assert_eq!(database.backend().hashing_key().await?, key);
        assert_eq!(database.key_fingerprint().await?, KeyFingerprint::of(key));
        Database::create(&test.url, key).await?;
        let Err(error) = Database::create(&test.url, other).await.map(drop) else { bail!("accepted another key") };
        for fingerprint in [key, other].map(|key| KeyFingerprint::of(key).to_string()) {
            ensure!(error.to_string().contains(&fingerprint), "{error}");
        }
        assert_eq!(test.connect().await?.backend().hashing_key().await?, key);
        Ok(())
    }
}

#[tokio::test]
async fn h8_the_collectors_role_can_report_and_add_days_but_not_delete_them() -> Result<()> {
    let test = database_with_roles().await?;
    let url = login(&test, "boundary_usage_collector").await?;
    let database = Database::connect(&url).await?;
    database.collect(CollectOptions::default()).await?;
    let report = database.report(ReportOptions::default()).await?;
    assert_eq!(report.rows.last().unwrap().users.counts.active, 3);
    database.retention(ReportOptions::default()).await?;
    assert_eq!(database.key_fingerprint().await?, test.connect().await?.key_fingerprint().await?);
    crate::authority::assert_denied(&url, &["DELETE FROM boundary_usage_days"]).await?;
    let replica = login(&test, "boundary_usage_replica").await?;
    crate::authority::assert_denied(
        &replica,
        &["SELECT * FROM boundary_usage_days", "INSERT INTO boundary_usage_days (day) VALUES ('2026-01-01')"],
    )
    .await
}
