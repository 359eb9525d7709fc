//! Pruning deletes exactly what is old, on both databases (H6, D3).

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boundary_usage::{
    CollectOptions, Database, Error, PruneOptions, Pruned, ReportOptions, ReportRange, ReportRow, WindowLength,
};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::faults::{Fault, Faults};
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::usage::{flush, id, update};
use chrono::{Days, NaiveDate, Utc};
use futures_util::StreamExt;

use crate::authority::{assert_denied, database_with_roles, login};
use crate::checkpoint::{Process, REPLICA, new_state};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn periods_older_than(days: u32, undelivered: bool) -> PruneOptions {
    PruneOptions { periods_older_than: Some(days * DAY), undelivered, ..PruneOptions::default() }
}

fn replicas_idle_for(days: u32) -> PruneOptions {
    PruneOptions { replicas_idle_for: Some(days * DAY), ..PruneOptions::default() }
}

fn days_older_than(days: u32) -> PruneOptions {
    PruneOptions { days_older_than: Some(days * DAY), ..PruneOptions::default() }
}

/// Prunes, and checks that the preview counts the same and changes nothing.
async fn prune(database: &Database, options: PruneOptions) -> Result<Pruned> {
    let expected = database.prunable(options).await?;
    assert_eq!(database.prunable(options).await?, expected, "the preview changed something");
    let pruned = database.prune(options).await?;
    assert_eq!(pruned, expected, "the preview counted something else");
    Ok(pruned)
}

async fn set_time(test: &TestDatabase, table: &str, column: &str, days: u32, row: &str) -> Result<()> {
    let time = test.days_ago(days);
    test.execute(&format!("UPDATE boundary_usage_{table} SET {column} = {time} WHERE {row}")).await
}

async fn period_ids(database: &Database) -> Result<Vec<i64>> {
    Ok(database.full_status().await?.periods.iter().rev().map(|period| period.summary.period_id).collect())
}

fn today() -> NaiveDate {
    Utc::now().date_naive()
}

/// Adds ids to a day in the past, as a collection does, and deletes the periods that this needs.
async fn add_day(test: &TestDatabase, database: &Database, days_ago: u32, ids: std::ops::Range<u128>) -> Result<()> {
    test.execute("DELETE FROM boundary_usage_periods").await?;
    set_time(test, "deployment", "created_at", days_ago, "1 = 1").await?;
    let last = test.number("SELECT coalesce(max(last_flush), 0) FROM boundary_usage_replicas").await?;
    flush(database.backend().as_ref(), id(1), &update(1 + u64::try_from(last)?, ids, 5, 2)).await?;
    database.collect(CollectOptions::default()).await?;
    Ok(())
}

fn by(length: WindowLength) -> ReportOptions {
    let from = today().checked_sub_days(Days::new(1_500));
    ReportOptions { by: length, range: ReportRange::Dates { from, to: None } }
}

const LENGTHS: [WindowLength; 3] = [WindowLength::Day, WindowLength::Week, WindowLength::Month];

on_each_database! {
    async fn exactly_the_old_delivered_periods_are_deleted_and_never_the_newest(test) {
        let database = test.connect().await?;
        for _ in 0..5 {
            database.collect(CollectOptions::default()).await?;
        }
        for (period, age, is_delivered) in
            [(1, 500, true), (2, 399, true), (3, 500, false), (4, 401, true), (5, 500, true)]
        {
            set_time(&test, "periods", "period_start", 501, &format!("period_id = {period}")).await?;
            set_time(&test, "periods", "period_end", age, &format!("period_id = {period}")).await?;
            ensure!(!is_delivered || database.acknowledge(period).await?);
        }
        let start = database.status().await?.period_start;
        database.claim_delivery(DAY).await?;
        let pruned = prune(&database, periods_older_than(400, false)).await?;
        assert_eq!(pruned, Pruned { periods: 2, undelivered_kept: 1, ..Pruned::default() });
        assert_eq!(period_ids(&database).await?, [2, 3, 5]);
        assert_eq!(prune(&database, periods_older_than(400, false)).await?.periods, 0);
        assert_eq!(prune(&database, periods_older_than(400, true)).await?.periods, 1);
        assert_eq!(period_ids(&database).await?, [2, 5]);
        assert_eq!(test.number("SELECT count(*) FROM boundary_usage_deliveries").await?, 0);
        assert_eq!(database.status().await?.period_start, start, "the open period starts where the newest one ended");
        Ok(())
    }

    async fn exactly_the_idle_replicas_without_usage_are_deleted(test) {
        let database = test.connect().await?;
        for replica in 1..=4 {
            flush(database.backend().as_ref(), id(replica), &update(1, 0..3, 5, 2)).await?;
        }
        database.collect(CollectOptions::default()).await?;
        flush(database.backend().as_ref(), id(4), &update(2, 0..3, 5, 2)).await?;
        for (replica, age) in [(1, 91), (2, 89), (4, 100)] {
            set_time(&test, "replicas", "flushed_at", age, &format!("replica_id = '{}'", id(replica))).await?;
        }
        assert_eq!(prune(&database, replicas_idle_for(90)).await?, Pruned { replicas: 1, ..Pruned::default() });
        let replicas = database.status().await?.replicas;
        let replicas: Vec<_> = replicas.iter().map(|replica| (replica.replica, replica.last_flush)).collect();
        assert_eq!(replicas, [(id(3), 1), (id(2), 1), (id(4), 2)]);
        // A deleted replica starts again.
        flush(database.backend().as_ref(), id(1), &update(1, 0..3, 5, 2)).await?;
        Ok(())
    }

    async fn d3_a_checkpoint_that_returns_within_the_idle_time_counts_exactly_once(test) {
        let database = test.connect().await?;
        assert_eq!(returns_after(&test, &database, 89).await?, 5 + 7);
        Ok(())
    }

    async fn d3_a_checkpoint_that_returns_later_counts_only_its_flush_in_doubt_again(test) {
        let database = test.connect().await?;
        assert_eq!(returns_after(&test, &database, 91).await?, 5 + 5 + 7);
        Ok(())
    }

    async fn h6_numbers_after_the_pruned_days_stay_the_same(test) {
        let database = test.connect().await?;
        // Old ids return, are lost and are resurrected, and there are new ones.
        let old = [(1_400, 0..10), (1_399, 5..20), (1_250, 0..4)];
        let later = [(300, 0..15), (100, 12..40), (99, 0..30), (2, 20..50), (1, 0..60)];
        for (days_ago, ids) in old.into_iter().chain(later) {
            add_day(&test, &database, days_ago, ids).await?;
        }
        let mut before = Vec::new();
        for length in LENGTHS {
            before.push((database.report(by(length)).await?, database.retention(by(length)).await?));
        }
        assert_eq!(prune(&database, days_older_than(1_100)).await?, Pruned { days: 3, ..Pruned::default() });
        let last_pruned_day = today().checked_sub_days(Days::new(1_250));
        for (length, (report, retention)) in LENGTHS.into_iter().zip(before) {
            let pruned = database.report(by(length)).await?;
            assert_eq!((pruned.last_pruned_day, report.last_pruned_day), (last_pruned_day, None));
            let (flagged, kept): (Vec<_>, Vec<_>) = pruned.rows.iter().partition(|row| row.pruned);
            assert_eq!(flagged.len() + kept.len(), report.rows.len());
            assert!(kept.iter().all(|row| report.rows.contains(row)), "by {length:?}");
            let all_new: u64 = kept.iter().map(|row| row.users.counts.new).sum();
            assert_eq!((all_new, kept.last().unwrap().users.exact), (60 - 20, true), "by {length:?}");
            // The flag covers numbers that need earlier windows. These two do not.
            let after = flagged.iter().filter(|row| Some(row.start) > last_pruned_day);
            let same = |row: &&ReportRow| {
                report.rows.iter().any(|other| {
                    let (one, other) = (&row.users.counts, (&other.users.counts, other.start));
                    (one.active, one.new, row.start) == (other.0.active, other.0.new, other.1)
                })
            };
            assert!(after.clone().count() > 0 && after.clone().all(same), "by {length:?}");
            let cohorts = database.retention(by(length)).await?;
            assert_eq!(cohorts.last_pruned_day, last_pruned_day);
            for cohort in cohorts.cohorts.iter().filter(|cohort| !cohort.pruned) {
                assert!(retention.cohorts.contains(cohort), "by {length:?}: {cohort:?}");
            }
        }
        Ok(())
    }

    async fn h6_later_prunings_add_to_the_same_set(test) {
        let database = test.connect().await?;
        add_day(&test, &database, 1_300, 0..10).await?;
        assert_eq!(prune(&database, days_older_than(1_100)).await?.days, 1);
        add_day(&test, &database, 1_200, 5..20).await?;
        add_day(&test, &database, 5, 0..30).await?;
        assert_eq!(prune(&database, days_older_than(1_100)).await?.days, 1);
        let sums = "SELECT 1000 * unique_users + 10 * allowed_requests + periods FROM boundary_usage_before";
        assert_eq!(test.number(sums).await?, 20_000 + 100 + 2);
        let report = database.report(ReportOptions::default()).await?;
        assert_eq!((report.rows[0].users.counts.active, report.rows[0].users.counts.new), (30, 10));
        // The export has the set, too.
        let mut reader = database.read_history().await?;
        let exported = reader.pruned_days().next().await.context("no set")??;
        assert_eq!((exported.uniques.users.count, exported.allowed, exported.periods), (20, 10, 2));
        Ok(())
    }

    async fn the_day_of_the_open_period_stays(test) {
        let database = test.connect().await?;
        add_day(&test, &database, 10, 0..3).await?;
        add_day(&test, &database, 12, 0..3).await?;
        test.execute("DELETE FROM boundary_usage_periods").await?;
        set_time(&test, "deployment", "created_at", 10, "1 = 1").await?;
        assert_eq!(prune(&database, days_older_than(1)).await?.days, 1);
        flush(database.backend().as_ref(), id(2), &update(1, 0..5, 5, 2)).await?;
        database.collect(CollectOptions::default()).await?;
        assert_eq!(test.number("SELECT unique_users FROM boundary_usage_days").await?, 5);
        Ok(())
    }

    async fn a_pruning_whose_commit_fails_keeps_each_day_exactly_once(test) {
        let connected = test.connect().await?;
        for days_ago in 1_300..1_320 {
            add_day(&test, &connected, days_ago, 0..3).await?;
        }
        let (database, faults) = Faults::in_front_of(&connected);
        for fault in [Fault::Commit, Fault::CommitLost, Fault::CommitReplyLost] {
            faults.inject(fault);
            let Err(error) = database.prune(days_older_than(1_100)).await else { bail!("{fault:?} is not reported") };
            ensure!(!matches!(error, Error::Refused { .. }), "{error}");
            let periods = "SELECT CAST((SELECT count(*) FROM boundary_usage_days)
                + (SELECT coalesce(sum(periods), 0) FROM boundary_usage_before) AS BIGINT)";
            assert_eq!(test.number(periods).await?, 20, "{fault:?}");
        }
        // The batch with the lost reply was applied.
        assert_eq!(database.prune(days_older_than(1_100)).await?.days, 4);
        Ok(())
    }

    async fn prunings_flushes_and_collections_run_simultaneously(test) {
        let database = test.connect().await?;
        fill(&test, &database).await?;
        let options = PruneOptions {
            periods_older_than: Some(400 * DAY),
            undelivered: true,
            replicas_idle_for: Some(90 * DAY),
            days_older_than: Some(1_100 * DAY),
        };
        let pruning = || async { database.prune(options).await };
        let counting = async {
            for number in 1..=30 {
                while let Err(error) = flush(database.backend().as_ref(), id(1), &update(number, 0..3, 1, 0)).await {
                    ensure!(matches!(error, Error::Conflict { .. } | Error::Unavailable { .. }), "{error}");
                }
                database.collect(CollectOptions::default()).await?;
            }
            Ok(())
        };
        let (one, other, counted) = tokio::join!(pruning(), pruning(), counting);
        counted?;
        // Two prunings can conflict; the next one continues.
        for outcome in [one, other] {
            ensure!(matches!(outcome, Ok(_) | Err(Error::Conflict { .. })), "{outcome:?}");
        }
        database.prune(options).await?;
        assert!(database.prunable(options).await?.is_empty());
        let sum = "SELECT CAST(sum(allowed_requests) AS BIGINT) FROM boundary_usage_periods WHERE period_id > 12000";
        assert_eq!(test.number(sum).await?, 30);
        assert_eq!(test.number("SELECT allowed_requests FROM boundary_usage_days").await?, 30);
        assert_eq!(test.number("SELECT periods FROM boundary_usage_before").await?, 40);
        assert_eq!(test.number("SELECT count(*) FROM boundary_usage_replicas").await?, 1);
        Ok(())
    }
}

/// Leaves a flush with a lost reply and unflushed activity, prunes after this number of days, and starts again.
///
/// Returns all allowed requests.
async fn returns_after(test: &TestDatabase, database: &Database, days: u32) -> Result<u64> {
    let process = Process::start(database, new_state()).await;
    process.track(1, 5, 2);
    process.faults.inject(Fault::CommitReplyLost);
    ensure!(process.tracker.flush().await.is_err());
    process.track(2, 7, 3);
    process.checkpointed(12).await;
    let left = process.dies();
    database.collect(CollectOptions::default()).await?;
    set_time(test, "replicas", "flushed_at", days, &format!("replica_id = '{REPLICA}'")).await?;
    assert_eq!(prune(database, replicas_idle_for(90)).await?.replicas, u64::from(days > 90));
    let successor = Process::start(database, left).await;
    successor.tracker.flush().await?;
    let status = database.status().await?;
    Ok(status.so_far.allowed_requests
        + status.periods.iter().map(|period| period.summary.allowed_requests).sum::<u64>())
}

/// Adds 12,000 old periods, 12,000 idle replicas and 40 old days.
async fn fill(test: &TestDatabase, database: &Database) -> Result<()> {
    for days_ago in 1_300..1_340 {
        add_day(test, database, days_ago, 0..3).await?;
    }
    test.execute("DELETE FROM boundary_usage_periods").await?;
    test.execute("DELETE FROM boundary_usage_replicas").await?;
    let (time, numbers) = (test.days_ago(500), test.numbers(12_000));
    let overriding = if test.is_postgres { "OVERRIDING SYSTEM VALUE" } else { "" };
    test.execute(&format!(
        "INSERT INTO boundary_usage_periods (period_id, period_start, period_end, period_duration_ms, \
         unique_workspaces, unique_users, allowed_requests, denied_requests, replicas, replica_workspaces_sum, \
         replica_users_sum, stale_rows, stale_allowed_requests, stale_denied_requests) {overriding}
         SELECT value, {time}, {time}, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0 FROM {numbers}"
    ))
    .await?;
    if test.is_postgres {
        let next = "SELECT setval(pg_get_serial_sequence('boundary_usage_periods', 'period_id'), 12000)";
        test.execute(next).await?;
    }
    // The open period starts now.
    set_time(test, "periods", "period_end", 0, "period_id = 12000").await?;
    let replica =
        if test.is_postgres { "gen_random_uuid()" } else { "printf('%08x-0000-4000-8000-000000000000', value)" };
    test.execute(&format!("INSERT INTO boundary_usage_replicas SELECT {replica}, 1, {time} FROM {numbers}")).await
}

#[tokio::test]
async fn r9_a_collector_deletes_idle_replicas_and_a_pruner_also_periods_and_days() -> Result<()> {
    let test = database_with_roles().await?;
    let owner = test.connect().await?;
    owner.collect(CollectOptions::default()).await?;
    owner.collect(CollectOptions::default()).await?;
    set_time(&test, "replicas", "flushed_at", 91, "true").await?;
    test.execute("UPDATE boundary_usage_days SET day = day - 1200").await?;
    set_time(&test, "periods", "period_start", 402, "period_id = 1").await?;
    set_time(&test, "periods", "period_end", 401, "period_id = 1").await?;
    let url = login(&test, "boundary_usage_collector").await?;
    let collector = Database::connect(&url).await?;
    for options in [periods_older_than(400, true), days_older_than(1_100)] {
        let Err(error) = collector.prune(options).await else { bail!("the collector could delete more") };
        ensure!(error.to_string().contains("boundary_usage_pruner"), "{error}");
    }
    assert_denied(&url, &["UPDATE boundary_usage_before SET periods = 1"]).await?;
    assert_eq!(collector.prune(replicas_idle_for(90)).await?.replicas, 1);

    let url = login(&test, "boundary_usage_pruner").await?;
    let pruner = Database::connect(&url).await?;
    assert_eq!(pruner.prune(periods_older_than(400, true)).await?.periods, 1);
    assert_eq!(pruner.prune(days_older_than(1_100)).await?.days, 1);
    assert_eq!(pruner.prune(replicas_idle_for(90)).await?.replicas, 0);
    let denied = [
        "SELECT users_sketch FROM boundary_usage_stats",
        "DELETE FROM boundary_usage_stats",
        "UPDATE boundary_usage_periods SET delivered_at = now()",
        "SELECT hashing_key FROM boundary_usage_deployment",
        "DELETE FROM boundary_usage_before",
        "CREATE TABLE of_ones_own (id int)",
    ];
    assert_denied(&url, &denied).await
}
