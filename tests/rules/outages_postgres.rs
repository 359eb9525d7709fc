//! Outages of PostgreSQL: killed, restarted, disconnected, full, busy.
//!
//! Replicas continue to track and recover without help. All periods together contain exactly the tracked activity. The
//! servers, the sockets and the driver are real, and `postgres_proxy` cuts connections at the chosen message.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use boundary_usage::{Clock, Collection, Database, Error, Flushed, Options, Tracker};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::expected_usage::{ExpectedUsage, automatic_tracker, manual_tracker, until};
use boundary_usage_tests::plugin;
use boundary_usage_tests::postgres_proxy::{Cut, PostgresProxy};
use boundary_usage_tests::restartable_postgres::RestartablePostgres;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Starts replicas that flush at an interval.
async fn replicas(database: &Database) -> Result<Vec<Tracker>> {
    let mut trackers = Vec::new();
    for replica in 1..=3 {
        trackers.push(automatic_tracker(replica, database).await?);
    }
    Ok(trackers)
}

fn begin_flush(tracker: &Tracker) -> JoinHandle<Result<Flushed, Error>> {
    let tracker = tracker.clone();
    tokio::spawn(async move { tracker.flush().await })
}

/// Waits until this number of sessions meet a condition on `pg_stat_activity`.
async fn sessions(pool: &PgPool, count: i64, condition: &str) -> Result<()> {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {condition}");
    until(condition, async || {
        Ok(sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql.clone())).fetch_one(pool).await? == count)
    })
    .await
}

#[tokio::test]
async fn d3_kill_9_and_restarts_during_commits_lose_and_double_nothing() -> Result<()> {
    let server = RestartablePostgres::start("").await?;
    let proxy = PostgresProxy::in_front_of(&server.url()).await?;
    let database = Database::connect(&proxy.url).await?;
    let (trackers, mut expected) = (replicas(&database).await?, ExpectedUsage::default());
    for is_kill in [true, false, true, false, true] {
        // Each commit triggers the activity for the next one.
        for commits in proxy.commits()..proxy.commits() + 10 {
            expected.track_many(&trackers, 1);
            proxy.committing(commits + 1).await;
        }
        if is_kill {
            server.crash().await?
        } else {
            server.stop().await?
        }
        expected.track_many(&trackers, 100);
        for tracker in &trackers {
            until("a flush fails", async || Ok(tracker.status().last_error.is_some())).await?;
        }
        server.start_again().await?;
        expected.settle(&database).await?;
    }
    assert!(trackers.iter().all(|tracker| tracker.status().restarts == 0));
    Ok(())
}

/// Makes commits wait for a standby that does not exist, so that they are on the disk and have no reply.
async fn hang_commits(pool: &PgPool) -> Result<()> {
    pool.execute("ALTER SYSTEM SET synchronous_standby_names = 'missing'").await?;
    pool.execute("SELECT pg_reload_conf()").await?;
    until("the setting has been read", async || {
        let set = sqlx::query_scalar::<_, String>("SELECT current_setting('synchronous_standby_names')");
        Ok(set.fetch_one(pool).await? == "missing")
    })
    .await
}

#[tokio::test]
async fn d3_a_commit_on_the_disk_before_kill_9_is_confirmed_after_the_restart() -> Result<()> {
    let server = RestartablePostgres::start("").await?;
    let database = Database::connect(&server.url()).await?;
    let (tracker, mut expected) = (manual_tracker(1, &database).await?, ExpectedUsage::default());
    let pool = PgPool::connect(&server.url()).await?;
    hang_commits(&pool).await?;
    expected.track_many(std::slice::from_ref(&tracker), 3);
    let flush = begin_flush(&tracker);
    sessions(&pool, 1, "wait_event = 'SyncRep'").await?;
    server.crash().await?;
    assert!(matches!(flush.await?, Err(Error::CommitUnknown { .. })));
    expected.track(&tracker);

    server.start_again().await?;
    let mut admin = PgConnection::connect(&server.url()).await?;
    admin.execute("ALTER SYSTEM RESET synchronous_standby_names").await?;
    admin.execute("SELECT pg_reload_conf()").await?;
    assert_eq!(tracker.flush().await?, Flushed::Written { flush: 2, new_period: false });
    expected.check(&database).await
}

#[tokio::test]
async fn d3_a_commit_that_kill_9_prevented_is_sent_again_after_the_restart() -> Result<()> {
    let server = RestartablePostgres::start("").await?;
    let proxy = PostgresProxy::in_front_of(&server.url()).await?;
    let database = Database::connect(&proxy.url).await?;
    let (tracker, mut expected) = (manual_tracker(1, &database).await?, ExpectedUsage::default());
    expected.track(&tracker);
    proxy.cut(Cut::CommitDelayed);
    let unknown = tracker.flush().await;
    assert!(matches!(unknown, Err(Error::CommitUnknown { .. })), "{unknown:?}");
    server.crash().await?;
    expected.track(&tracker);
    assert!(matches!(tracker.flush().await, Err(Error::Unavailable { .. })));
    server.start_again().await?;
    assert_eq!(tracker.flush().await?, Flushed::Written { flush: 1, new_period: true });
    expected.check(&database).await
}

/// A database behind a proxy, with a tracker that flushes on request.
struct Proxied {
    test: TestDatabase,
    proxy: PostgresProxy,
    database: Database,
    tracker: Tracker,
    expected: ExpectedUsage,
}

impl Proxied {
    async fn new() -> Result<Self> {
        let test = TestDatabase::postgres().await?;
        let proxy = PostgresProxy::in_front_of(&test.url).await?;
        let database = Database::connect(&proxy.url).await?;
        let tracker = manual_tracker(1, &database).await?;
        Ok(Self { test, proxy, database, tracker, expected: ExpectedUsage::default() })
    }
}

#[tokio::test]
async fn d2_and_d3_a_connection_cut_at_any_point_of_a_flush_loses_and_doubles_nothing() -> Result<()> {
    let Proxied { proxy, database, tracker, mut expected, .. } = Proxied::new().await?;
    // The cut, and whether a collection follows before the next flush.
    let cuts = [Cut::Write, Cut::Commit, Cut::Reply].into_iter().flat_map(|cut| [(cut, false), (cut, true)]);
    for (cut, is_collected) in cuts {
        expected.track(&tracker);
        proxy.cut(cut);
        let failed = tracker.flush().await;
        match cut {
            Cut::Write => assert!(matches!(failed, Err(Error::Unavailable { .. })), "{cut:?}: {failed:?}"),
            _ => assert!(matches!(failed, Err(Error::CommitUnknown { .. })), "{cut:?}: {failed:?}"),
        }
        assert_eq!(proxy.pending(), 0);
        if is_collected {
            database.collect(Default::default()).await?;
        }
        let resolved = tracker.flush().await?;
        assert_eq!(matches!(resolved, Flushed::Confirmed { .. }), cut == Cut::Reply, "{cut:?}: {resolved:?}");
        expected.check(&database).await?;
    }
    Ok(())
}

#[tokio::test]
async fn d3_a_cut_flush_of_known_ids_counts_once() -> Result<()> {
    let Proxied { proxy, database, tracker, .. } = Proxied::new().await?;
    let track = || tracker.track(Uuid::from_u128(1), Uuid::from_u128(2), 1, 0);
    track()?;
    tracker.flush().await?;
    // The period now has both ids, so the next flushes send no sketch.
    for cut in [Cut::Write, Cut::Commit, Cut::Reply] {
        track()?;
        proxy.cut(cut);
        let failed = tracker.flush().await;
        match cut {
            Cut::Write => assert!(matches!(failed, Err(Error::Unavailable { .. })), "{cut:?}: {failed:?}"),
            _ => assert!(matches!(failed, Err(Error::CommitUnknown { .. })), "{cut:?}: {failed:?}"),
        }
        assert_eq!(proxy.pending(), 0);
        let resolved = tracker.flush().await?;
        assert_eq!(matches!(resolved, Flushed::Confirmed { .. }), cut == Cut::Reply, "{cut:?}: {resolved:?}");
    }
    let Collection::Closed(summary) = database.collect(Default::default()).await? else { bail!("nothing to collect") };
    assert_eq!((summary.unique_workspaces, summary.unique_users, summary.allowed_requests), (1, 1, 4));
    Ok(())
}

#[tokio::test]
async fn d3_the_next_flush_waits_for_a_late_commit_which_counts_once() -> Result<()> {
    let Proxied { test, proxy, database, tracker, mut expected } = Proxied::new().await?;
    expected.track(&tracker);
    proxy.cut(Cut::CommitDelayed);
    let unknown = tracker.flush().await;
    assert!(matches!(unknown, Err(Error::CommitUnknown { .. })), "{unknown:?}");
    // The lost transaction is still open, so the next flush must not read before it has ended.
    expected.track(&tracker);
    let next = begin_flush(&tracker);
    let pool = PgPool::connect(&test.url).await?;
    sessions(&pool, 1, "datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'").await?;
    proxy.deliver();
    assert_eq!(next.await??, Flushed::Written { flush: 2, new_period: false });
    expected.check(&database).await
}

#[tokio::test]
async fn d3_a_flush_whose_commit_has_no_reply_ends_at_its_time_limit() -> Result<()> {
    let Proxied { proxy, database, mut expected, .. } = Proxied::new().await?;
    let clock = Clock::manual().0;
    let options = Options { clock, flush_timeout: Duration::from_millis(500), ..Options::default() };
    let tracker = plugin().start(Uuid::from_u128(2), database.clone(), options).await?;
    expected.track(&tracker);
    proxy.cut(Cut::Silence);
    // On a slow machine the limit can be reached before the commit.
    until("a commit times out", async || match tracker.flush().await {
        Err(Error::CommitUnknown { .. }) => Ok(true),
        Err(Error::Unavailable { .. }) => Ok(false),
        other => bail!("{other:?} without a reply to the commit"),
    })
    .await?;
    expected.track(&tracker);
    until("a flush succeeds", async || Ok(tracker.flush().await.is_ok())).await?;
    expected.check(&database).await
}

#[tokio::test]
async fn d7_a_collection_without_a_commit_reply_closes_the_period_at_most_once() -> Result<()> {
    let Proxied { proxy, database, tracker, mut expected, .. } = Proxied::new().await?;
    for (cut, periods) in [(Cut::Commit, 0), (Cut::Reply, 1)] {
        expected.track(&tracker);
        tracker.flush().await?;
        proxy.cut(cut);
        let unknown = database.collect(Default::default()).await;
        assert!(matches!(unknown, Err(Error::CommitUnknown { .. })), "{cut:?}: {unknown:?}");
        assert_eq!(database.status().await?.periods.len(), periods, "{cut:?}");
    }
    expected.check(&database).await
}

#[tokio::test]
async fn d2_flushes_are_retried_until_the_server_has_a_free_connection() -> Result<()> {
    let server = RestartablePostgres::start("-c max_connections=6 -c superuser_reserved_connections=0").await?;
    let database = Database::connect(&server.url()).await?;
    let (trackers, mut expected) = (replicas(&database).await?, ExpectedUsage::default());
    expected.track_many(&trackers, 10);
    expected.settle(&database).await?;
    let mut others = vec![PgConnection::connect(&server.url()).await?];
    others[0]
        .execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
        AND backend_type = 'client backend'",
        )
        .await?;
    until("no connection is free", async || match PgConnection::connect(&server.url()).await {
        Ok(connection) => {
            others.push(connection);
            Ok(false)
        }
        Err(error) => Ok(error.as_database_error().is_some_and(|error| error.code() == Some("53300".into()))),
    })
    .await?;
    expected.track_many(&trackers, 10);
    for tracker in &trackers {
        until("a flush fails because no connection is free", async || {
            let error = tracker.status().last_error;
            Ok(error.is_some_and(|error| error.contains("too many clients")))
        })
        .await?;
    }
    expected.track_many(&trackers, 10);
    drop(others);
    expected.settle(&database).await
}

#[tokio::test]
async fn d6_locks_held_beyond_their_limit_fail_flushes_and_lose_nothing() -> Result<()> {
    // Both run simultaneously, so that the test waits for the limit only once.
    tokio::try_join!(
        held_beyond_its_limit("SELECT pg_advisory_lock(9)", "the cutover lock for more than 5 s"),
        held_beyond_its_limit("SELECT pg_advisory_lock(9, 1)", "has not ended within 5 s"),
    )?;
    Ok(())
}

async fn held_beyond_its_limit(lock: &'static str, message: &str) -> Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let (tracker, mut expected) = (manual_tracker(1, &database).await?, ExpectedUsage::default());
    let mut holder = PgConnection::connect(&test.url).await?;
    holder.execute(lock).await?;
    expected.track(&tracker);
    let flush = begin_flush(&tracker);
    let pool = PgPool::connect(&test.url).await?;
    let waiting = "datname = current_database() AND wait_event = 'advisory'";
    sessions(&pool, 1, waiting).await?;
    expected.track_many(std::slice::from_ref(&tracker), 1_000);
    let Err(error) = flush.await? else { bail!("flushed despite a lock of another session") };
    assert!(matches!(error, Error::Conflict { .. }) && error.to_string().contains(message), "{error}");
    // The next flush waits again, and succeeds when the holder disconnects.
    let next = begin_flush(&tracker);
    sessions(&pool, 1, waiting).await?;
    holder.close().await?;
    next.await??;
    expected.check(&database).await
}

/// Settings with which an administrator can limit all sessions.
const LIMITS: &str = "lock_timeout statement_timeout idle_in_transaction_session_timeout";

#[tokio::test]
async fn d6_time_limits_of_the_server_do_not_change_those_of_a_flush() -> Result<()> {
    let Proxied { test, database, tracker, mut expected, .. } = Proxied::new().await?;
    let name = test.url.rsplit('/').next().context("the URL ends with the database")?;
    let pool = PgPool::connect(&test.url).await?;
    for (limit, seconds) in [("1s", 1), ("0", 0)] {
        for setting in LIMITS.split(' ') {
            test.execute(&format!("ALTER DATABASE {name} SET {setting} = '{limit}'")).await?;
        }
        // Older sessions keep the previous settings, so they must end.
        test.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'boundary-usage'",
        )
        .await?;
        let mut collector = PgConnection::connect(&test.url).await?;
        collector.execute("SET statement_timeout = 0").await?;
        collector.execute("SELECT pg_advisory_lock(9)").await?;
        expected.track(&tracker);
        let flush = begin_flush(&tracker);
        let waiting = format!(
            "datname = current_database() AND wait_event = 'advisory'
             AND clock_timestamp() - query_start > interval '{seconds} seconds' + interval '100 ms'"
        );
        sessions(&pool, 1, &waiting).await?;
        collector.close().await?;
        flush.await??;
    }
    expected.check(&database).await
}

#[tokio::test]
async fn d2_a_flush_whose_statement_is_cancelled_loses_nothing() -> Result<()> {
    let Proxied { test, database, tracker, mut expected, .. } = Proxied::new().await?;
    expected.track(&tracker);
    let mut migration = PgConnection::connect(&test.url).await?;
    let mut lock = migration.begin().await?;
    lock.execute("LOCK TABLE boundary_usage_stats").await?;
    let flush = begin_flush(&tracker);
    let pool = PgPool::connect(&test.url).await?;
    let waiting = "datname = current_database() AND wait_event = 'relation'";
    sessions(&pool, 1, waiting).await?;
    expected.track(&tracker);
    // The server replies as it does at `statement_timeout`, but immediately.
    test.execute(&format!("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waiting}")).await?;
    let cancelled = flush.await?;
    assert!(matches!(cancelled, Err(Error::Unavailable { .. })), "{cancelled:?}");
    lock.rollback().await?;
    tracker.flush().await?;
    expected.check(&database).await
}

#[tokio::test]
async fn d2_a_full_disk_fails_flushes_and_collections_and_loses_nothing() -> Result<()> {
    let server = RestartablePostgres::start_on_a_disk_of("128m").await?;
    let database = Database::connect(&server.url()).await?;
    let (trackers, mut expected) = (replicas(&database).await?, ExpectedUsage::default());
    expected.track_many(&trackers, 10);
    expected.settle(&database).await?;
    server.fill_disk().await?;
    expected.track_until_flushes_fail(&trackers, &database, "").await?;
    expected.track_many(&trackers, 10);
    assert!(server.log()?.contains("No space left on device"));
    server.clear_disk().await?;
    // The server may have ended because it could not write its log. An operator would start it again.
    if PgConnection::connect(&server.url()).await.is_err() {
        server.stop().await.or_else(|_| Ok::<_, anyhow::Error>(()))?;
        server.start_again().await?;
    }
    expected.settle(&database).await
}
