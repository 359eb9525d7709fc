//! PostgreSQL under fire: killed, restarted, cut off, full, busy. Replicas go on tracking, come back by themselves, and
//! what all periods hold together is exactly what was tracked.
//!
//! The servers, the sockets and the driver are real; `postgres_proxy` cuts connections at the message that matters.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use boundary_usage::{Clock, Collection, Database, Error, Flushed, Options, Tracker};
use boundary_usage_tests::accounts::{Accounts, tracker_by_hand, tracker_by_itself, until};
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::plugin;
use boundary_usage_tests::postgres_proxy::{Cut, PostgresProxy};
use boundary_usage_tests::restartable_postgres::RestartablePostgres;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Replicas that flush by themselves.
async fn replicas(database: &Database) -> Result<Vec<Tracker>> {
    let mut trackers = Vec::new();
    for replica in 1..=3 {
        trackers.push(tracker_by_itself(replica, database).await?);
    }
    Ok(trackers)
}

fn begin_flush(tracker: &Tracker) -> JoinHandle<Result<Flushed, Error>> {
    let tracker = tracker.clone();
    tokio::spawn(async move { tracker.flush().await })
}

/// Waits until as many sessions are in the state that a condition on `pg_stat_activity` describes.
async fn sessions(pool: &PgPool, count: i64, condition: &str) -> Result<()> {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {condition}");
    until(condition, async || {
        Ok(sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql.clone())).fetch_one(pool).await? == count)
    })
    .await
}

#[tokio::test]
async fn d3_kill_9_and_restarts_in_the_middle_of_commits_lose_and_double_nothing() -> Result<()> {
    let server = RestartablePostgres::start("").await?;
    let proxy = PostgresProxy::in_front_of(&server.url()).await?;
    let database = Database::connect(&proxy.url).await?;
    let (trackers, mut accounts) = (replicas(&database).await?, Accounts::default());
    for is_kill in [true, false, true, false, true] {
        // Each commit that is on its way brings the activity for the next.
        for commits in proxy.commits()..proxy.commits() + 10 {
            accounts.track_many(&trackers, 1);
            proxy.committing(commits + 1).await;
        }
        if is_kill {
            server.crash().await?
        } else {
            server.stop().await?
        }
        accounts.track_many(&trackers, 100);
        for tracker in &trackers {
            until("a flush fails", async || Ok(tracker.status().last_error.is_some())).await?;
        }
        server.start_again().await?;
        accounts.settle(&database).await?;
    }
    assert!(trackers.iter().all(|tracker| tracker.status().restarts == 0));
    Ok(())
}

/// A server whose commits wait for a standby that there is not: what they write is on the disk, and not yet answered.
async fn hang_commits(pool: &PgPool) -> Result<()> {
    pool.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await?;
    pool.execute("SELECT pg_reload_conf()").await?;
    until("the setting has been read", async || {
        let set = sqlx::query_scalar::<_, String>("SELECT current_setting('synchronous_standby_names')");
        Ok(set.fetch_one(pool).await? == "nobody")
    })
    .await
}

#[tokio::test]
async fn d3_a_commit_that_kill_9_cut_short_is_found_applied_after_the_restart() -> Result<()> {
    let server = RestartablePostgres::start("").await?;
    let database = Database::connect(&server.url()).await?;
    let (tracker, mut accounts) = (tracker_by_hand(1, &database).await?, Accounts::default());
    let pool = PgPool::connect(&server.url()).await?;
    hang_commits(&pool).await?;
    accounts.track_many(std::slice::from_ref(&tracker), 3);
    let flush = begin_flush(&tracker);
    sessions(&pool, 1, "wait_event = 'SyncRep'").await?;
    server.crash().await?;
    assert!(matches!(flush.await?, Err(Error::CommitUnknown { .. })));
    accounts.track(&tracker);

    server.start_again().await?;
    let mut admin = PgConnection::connect(&server.url()).await?;
    admin.execute("ALTER SYSTEM RESET synchronous_standby_names").await?;
    admin.execute("SELECT pg_reload_conf()").await?;
    assert_eq!(tracker.flush().await?, Flushed::Written { flush: 2, new_period: false });
    accounts.check(&database).await
}

#[tokio::test]
async fn d3_a_commit_that_kill_9_forestalled_is_sent_again_after_the_restart() -> Result<()> {
    let server = RestartablePostgres::start("").await?;
    let proxy = PostgresProxy::in_front_of(&server.url()).await?;
    let database = Database::connect(&proxy.url).await?;
    let (tracker, mut accounts) = (tracker_by_hand(1, &database).await?, Accounts::default());
    accounts.track(&tracker);
    proxy.cut(Cut::CommitDelayed);
    let unknown = tracker.flush().await;
    assert!(matches!(unknown, Err(Error::CommitUnknown { .. })), "{unknown:?}");
    server.crash().await?;
    accounts.track(&tracker);
    assert!(matches!(tracker.flush().await, Err(Error::Unavailable { .. })));
    server.start_again().await?;
    assert_eq!(tracker.flush().await?, Flushed::Written { flush: 1, new_period: true });
    accounts.check(&database).await
}

/// A database of the shared server behind a proxy, with a tracker that flushes when told.
struct Wired {
    test: TestDatabase,
    proxy: PostgresProxy,
    database: Database,
    tracker: Tracker,
    accounts: Accounts,
}

impl Wired {
    async fn new() -> Result<Self> {
        let test = TestDatabase::postgres().await?;
        let proxy = PostgresProxy::in_front_of(&test.url).await?;
        let database = Database::connect(&proxy.url).await?;
        let tracker = tracker_by_hand(1, &database).await?;
        Ok(Self { test, proxy, database, tracker, accounts: Accounts::default() })
    }
}

#[tokio::test]
async fn d2_and_d3_a_connection_cut_at_any_point_of_a_flush_loses_and_doubles_nothing() -> Result<()> {
    let Wired { proxy, database, tracker, mut accounts, .. } = Wired::new().await?;
    // The cut; whether a collection comes before the next flush.
    let cuts = [Cut::Write, Cut::Commit, Cut::Reply].into_iter().flat_map(|cut| [(cut, false), (cut, true)]);
    for (cut, is_collected) in cuts {
        accounts.track(&tracker);
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
        let found = tracker.flush().await?;
        assert_eq!(matches!(found, Flushed::Confirmed { .. }), cut == Cut::Reply, "{cut:?}: {found:?}");
        accounts.check(&database).await?;
    }
    Ok(())
}

#[tokio::test]
async fn d3_a_write_that_goes_out_with_its_commit_is_in_doubt_when_cut_and_counts_once() -> Result<()> {
    let Wired { proxy, database, tracker, .. } = Wired::new().await?;
    let track = || tracker.track(Uuid::from_u128(1), Uuid::from_u128(2), 1, 0);
    track()?;
    tracker.flush().await?;
    // From here on the ids are known, so that no sketch has to be sent.
    for cut in [Cut::Write, Cut::Commit, Cut::Reply] {
        track()?;
        proxy.cut(cut);
        let unknown = tracker.flush().await;
        assert!(matches!(unknown, Err(Error::CommitUnknown { .. })), "{cut:?}: {unknown:?}");
        assert_eq!(proxy.pending(), 0);
        let found = tracker.flush().await?;
        assert_eq!(matches!(found, Flushed::Confirmed { .. }), cut == Cut::Reply, "{cut:?}: {found:?}");
    }
    let Collection::Closed(summary) = database.collect(Default::default()).await? else { bail!("nothing to collect") };
    assert_eq!((summary.unique_workspaces, summary.unique_users, summary.allowed_requests), (1, 1, 4));
    Ok(())
}

#[tokio::test]
async fn d3_a_commit_that_arrives_late_is_waited_for_and_counts_once() -> Result<()> {
    let Wired { test, proxy, database, tracker, mut accounts } = Wired::new().await?;
    accounts.track(&tracker);
    proxy.cut(Cut::CommitDelayed);
    let unknown = tracker.flush().await;
    assert!(matches!(unknown, Err(Error::CommitUnknown { .. })), "{unknown:?}");
    // The lost transaction is still open: the next flush must not look before it has ended.
    accounts.track(&tracker);
    let next = begin_flush(&tracker);
    let pool = PgPool::connect(&test.url).await?;
    sessions(&pool, 1, "datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'").await?;
    proxy.deliver();
    assert_eq!(next.await??, Flushed::Written { flush: 2, new_period: false });
    accounts.check(&database).await
}

#[tokio::test]
async fn d3_a_server_that_falls_silent_at_a_commit_is_given_up_in_time() -> Result<()> {
    let Wired { proxy, database, mut accounts, .. } = Wired::new().await?;
    let clock = Clock::manual().0;
    let options = Options { clock, flush_timeout: Duration::from_millis(500), ..Options::default() };
    let tracker = plugin().start(Uuid::from_u128(2), database.clone(), options).await?;
    accounts.track(&tracker);
    proxy.cut(Cut::Silence);
    // On a slow machine the time can be over before the commit.
    until("the commit is given up", async || match tracker.flush().await {
        Err(Error::CommitUnknown { .. }) => Ok(true),
        Err(Error::Unavailable { .. }) => Ok(false),
        other => bail!("{other:?} from a server that is silent"),
    })
    .await?;
    accounts.track(&tracker);
    until("a flush gets through", async || Ok(tracker.flush().await.is_ok())).await?;
    accounts.check(&database).await
}

#[tokio::test]
async fn d7_a_collection_whose_commit_or_reply_is_lost_closes_the_period_once() -> Result<()> {
    let Wired { proxy, database, tracker, mut accounts, .. } = Wired::new().await?;
    for (cut, periods) in [(Cut::Commit, 0), (Cut::Reply, 1)] {
        accounts.track(&tracker);
        tracker.flush().await?;
        proxy.cut(cut);
        let unknown = database.collect(Default::default()).await;
        assert!(matches!(unknown, Err(Error::CommitUnknown { .. })), "{cut:?}: {unknown:?}");
        assert_eq!(database.status().await?.periods.len(), periods, "{cut:?}");
    }
    accounts.check(&database).await
}

#[tokio::test]
async fn d2_a_server_without_a_free_connection_refuses_and_is_tried_again() -> Result<()> {
    let server = RestartablePostgres::start("-c max_connections=6 -c superuser_reserved_connections=0").await?;
    let database = Database::connect(&server.url()).await?;
    let (trackers, mut accounts) = (replicas(&database).await?, Accounts::default());
    accounts.track_many(&trackers, 10);
    accounts.settle(&database).await?;
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
    accounts.track_many(&trackers, 10);
    for tracker in &trackers {
        until("a flush is refused for want of a connection", async || {
            let error = tracker.status().last_error;
            Ok(error.is_some_and(|error| error.contains("too many clients")))
        })
        .await?;
    }
    accounts.track_many(&trackers, 10);
    drop(others);
    accounts.settle(&database).await
}

#[tokio::test]
async fn d6_locks_held_for_longer_than_their_limit_fail_flushes_and_lose_nothing() -> Result<()> {
    // Both at once, so that the test waits for the limit once.
    tokio::try_join!(
        longer_than_its_limit("SELECT pg_advisory_lock(9)", "the cutover lock for more than 5 s"),
        longer_than_its_limit("SELECT pg_advisory_lock(9, 1)", "has not ended within 5 s"),
    )?;
    Ok(())
}

async fn longer_than_its_limit(lock: &'static str, expected: &str) -> Result<()> {
    let test = TestDatabase::postgres().await?;
    let database = test.connect().await?;
    let (tracker, mut accounts) = (tracker_by_hand(1, &database).await?, Accounts::default());
    let mut holder = PgConnection::connect(&test.url).await?;
    holder.execute(lock).await?;
    accounts.track(&tracker);
    let flush = begin_flush(&tracker);
    let pool = PgPool::connect(&test.url).await?;
    let waiting = "datname = current_database() AND wait_event = 'advisory'";
    sessions(&pool, 1, waiting).await?;
    accounts.track_many(std::slice::from_ref(&tracker), 1_000);
    let Err(error) = flush.await? else { bail!("flushed past a lock that another holds") };
    assert!(matches!(error, Error::Conflict { .. }) && error.to_string().contains(expected), "{error}");
    // The next one waits again, and gets through when the holder goes away.
    let next = begin_flush(&tracker);
    sessions(&pool, 1, waiting).await?;
    holder.close().await?;
    next.await??;
    accounts.check(&database).await
}

/// Settings that a database administrator may make for all sessions, too short for anything that waits.
const SHORT_LIMITS: &str = "lock_timeout statement_timeout idle_in_transaction_session_timeout";

#[tokio::test]
async fn d6_limits_that_the_server_sets_neither_shorten_nor_lengthen_those_of_a_flush() -> Result<()> {
    let Wired { test, database, tracker, mut accounts, .. } = Wired::new().await?;
    let name = test.url.rsplit('/').next().context("the URL ends with the database")?;
    let pool = PgPool::connect(&test.url).await?;
    for (limit, seconds) in [("1s", 1), ("0", 0)] {
        for setting in SHORT_LIMITS.split(' ') {
            test.execute(&format!("ALTER DATABASE {name} SET {setting} = '{limit}'")).await?;
        }
        // Sessions that began before have the old ones.
        test.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'boundary-usage'",
        )
        .await?;
        let mut collector = PgConnection::connect(&test.url).await?;
        collector.execute("SET statement_timeout = 0").await?;
        collector.execute("SELECT pg_advisory_lock(9)").await?;
        accounts.track(&tracker);
        let flush = begin_flush(&tracker);
        let waiting = format!(
            "datname = current_database() AND wait_event = 'advisory'
             AND clock_timestamp() - query_start > interval '{seconds} seconds' + interval '100 ms'"
        );
        sessions(&pool, 1, &waiting).await?;
        collector.close().await?;
        flush.await??;
    }
    accounts.check(&database).await
}

#[tokio::test]
async fn d2_a_statement_that_the_server_cancels_is_tried_again() -> Result<()> {
    let Wired { test, database, tracker, mut accounts, .. } = Wired::new().await?;
    accounts.track(&tracker);
    let mut migration = PgConnection::connect(&test.url).await?;
    let mut lock = migration.begin().await?;
    lock.execute("LOCK TABLE boundary_usage_stats").await?;
    let flush = begin_flush(&tracker);
    let pool = PgPool::connect(&test.url).await?;
    let waiting = "datname = current_database() AND wait_event = 'relation'";
    sessions(&pool, 1, waiting).await?;
    accounts.track(&tracker);
    // The same answer as that of a time limit for statements, without the wait for it.
    test.execute(&format!("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waiting}")).await?;
    let cancelled = flush.await?;
    assert!(matches!(cancelled, Err(Error::Unavailable { .. })), "{cancelled:?}");
    lock.rollback().await?;
    tracker.flush().await?;
    accounts.check(&database).await
}

#[tokio::test]
async fn d2_a_full_disk_fails_flushes_and_collections_and_loses_nothing() -> Result<()> {
    let server = RestartablePostgres::start_on_a_disk_of("128m").await?;
    let database = Database::connect(&server.url()).await?;
    let (trackers, mut accounts) = (replicas(&database).await?, Accounts::default());
    accounts.track_many(&trackers, 10);
    accounts.settle(&database).await?;
    server.fill_disk().await?;
    accounts.track_until_flushes_fail(&trackers, &database, "").await?;
    accounts.track_many(&trackers, 10);
    assert!(server.log()?.contains("No space left on device"));
    server.clear_disk().await?;
    // A log that cannot be written ends the server; one that an operator starts again when there is room.
    if PgConnection::connect(&server.url()).await.is_err() {
        server.stop().await.or_else(|_| Ok::<_, anyhow::Error>(()))?;
        server.start_again().await?;
    }
    accounts.settle(&database).await
}
