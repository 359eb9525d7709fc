//! What the databases' side costs: a flush beside the same SQL by hand, many replicas at once, a large collection.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use boundary_usage::{
    Backend, Clock, Collection, Database, Lock, LockMode, Options, Purpose, Tracker, Uniques, UniquesUpdate, Update,
};
use boundary_usage_tests::accounts::tracker_by_hand;
use boundary_usage_tests::plugin;
use boundary_usage_tests::restartable_postgres::RestartablePostgres;
use boundary_usage_tests::until;
use boundary_usage_tests::usage::{begin_flush, id, set, uniques};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::{JoinSet, LocalSet};
use uuid::Uuid;

use crate::inputs::Input;
use crate::rounds::median;
use crate::start::{machine_bytes, peak_resident_bytes, resident_bytes};

/// How statements are sent by hand.
#[derive(Clone, Copy)]
enum ByHand {
    /// In the round trips of the flush: locks and read with the begin, and the write with the commit, where that is one.
    Together,
    /// Each on its own, as who writes them by hand sends them first.
    ByStatement,
    /// The same, with the cutover lock exclusive, as in the reference.
    Alone,
}

/// Who takes part in [`flush_costs`].
#[derive(Clone, Copy)]
enum Contender {
    /// A tracker with a thread of its own: its caller's thread has to wake that, and to be woken.
    AcrossThreads,
    /// A tracker on the caller's thread, where the statements by hand run, too.
    Here,
    /// A tracker that has a new workspace each time.
    HereWithNewIds,
    /// Statements without a component.
    Sql(ByHand, Ids),
}

/// Which statements: those of a flush whose ids the period has, or those of one that brings new ones.
#[derive(Clone, Copy)]
enum Ids {
    Known,
    New,
}

/// Flushes through the component, and the same SQL sent by hand over the same driver.
const CONTENDERS: [(&str, Contender); 7] = [
    ("flush", Contender::Here),
    ("flush_across_threads", Contender::AcrossThreads),
    ("sql", Contender::Sql(ByHand::Together, Ids::Known)),
    ("sql_by_statement", Contender::Sql(ByHand::ByStatement, Ids::Known)),
    ("flush_of_new_ids", Contender::HereWithNewIds),
    ("sql_of_new_ids", Contender::Sql(ByHand::Together, Ids::New)),
    ("sql_of_new_ids_by_statement", Contender::Sql(ByHand::ByStatement, Ids::New)),
];

/// Median microseconds of flushes of 1,000 workspaces and 100 users. Whatever comes next waits for the same first: that all
/// trackers have the same activity. What comes right after other database work finds caches warm and threads awake, and takes
/// less. And who comes next is drawn by lot: always in the same order, ratios came out a tenth better.
pub(crate) async fn flush_costs(database: Database) -> Result<[(&'static str, f64); CONTENDERS.len()]> {
    const ROUNDS: usize = 300;
    let across_threads = tracker_by_hand(1, &database).await?;
    let options = Options { clock: Clock::manual().0, ..Options::default() };
    let (here, running) = plugin().start_local(id(2), database.clone(), options.clone()).await?;
    let (with_new_ids, running_too) = plugin().start_local(id(3), database.clone(), options).await?;
    // Tasks of their own: joined, each wake-up of one would look at all of them.
    let local = LocalSet::new();
    let trackers = [local.spawn_local(running), local.spawn_local(running_too)];
    let backend = database.backend().as_ref();
    let mut by_hand = Vec::new();
    for (number, (_, contender)) in (10..).zip(CONTENDERS) {
        begin_period(backend, id(number)).await?;
        let uniques = match contender {
            // As many as the tracker with new ids has half way.
            Contender::Sql(_, Ids::New) => UniquesUpdate::Cumulative(uniques(0..1_000 + ROUNDS as u128 / 2, 0..100)),
            _ => UniquesUpdate::Unchanged,
        };
        by_hand.push((id(number), Update { flush: 1, uniques, allowed: 1, denied: 0 }));
    }
    let measure = async {
        let mut times = [const { Vec::new() }; CONTENDERS.len()];
        let mut lot = StdRng::seed_from_u64(1);
        for turn in 0..CONTENDERS.len() * ROUNDS {
            let drawn = lot.random_range(0..CONTENDERS.len());
            let contender = CONTENDERS[drawn].1;
            let new = matches!(contender, Contender::HereWithNewIds).then(|| id(1_000_000 + turn as u128));
            track_hot([(&across_threads, None), (&here, None), (&with_new_ids, new)]).await?;
            let start = Instant::now();
            match contender {
                Contender::AcrossThreads => drop(across_threads.flush().await?),
                Contender::Here => drop(here.flush().await?),
                Contender::HereWithNewIds => drop(with_new_ids.flush().await?),
                Contender::Sql(sent, _) => {
                    let (replica, update) = &mut by_hand[drawn];
                    update.flush += 1;
                    flush_by_hand(backend, *replica, update, sent).await?;
                }
            }
            times[drawn].push(start.elapsed().as_secs_f64());
        }
        for tracker in [across_threads, here, with_new_ids] {
            tracker.shutdown().await?;
        }
        anyhow::Ok(times)
    };
    let mut times = local.run_until(measure).await?.into_iter();
    for tracker in trackers {
        local.run_until(tracker).await?;
    }
    database.close().await;
    Ok(CONTENDERS.map(|(name, _)| (name, median(times.next().unwrap_or_default()) * 1e6)))
}

/// Tracks until every id has come, and a new workspace too where there is one, and waits until the components have them.
async fn track_hot(trackers: [(&Tracker, Option<Uuid>); 3]) -> Result<()> {
    for (tracker, new) in trackers {
        for number in 0..10_000 {
            let (workspace, owner) = Input::Hot.ids(number);
            tracker.try_track(if number == 0 { new.unwrap_or(workspace) } else { workspace }, owner, 1, 0)?;
        }
    }
    until(|| trackers.iter().all(|(tracker, _)| tracker.status().waiting_activities == 0)).await;
    Ok(())
}

fn hot_uniques() -> Uniques {
    uniques(0..1_000, 0..100)
}

/// A replica's first flush of the period.
async fn begin_period(backend: &dyn Backend, replica: Uuid) -> Result<()> {
    let first = Update { flush: 1, uniques: UniquesUpdate::Delta(hot_uniques()), allowed: 1, denied: 0 };
    flush_by_hand(backend, replica, &first, ByHand::ByStatement).await
}

/// The statements of a flush, without a component.
async fn flush_by_hand(backend: &dyn Backend, replica: Uuid, update: &Update, by_hand: ByHand) -> Result<()> {
    let mut transaction = match by_hand {
        ByHand::Together => {
            let (transaction, _) = backend.begin_flush(replica).await?;
            return Ok(transaction.upsert_and_commit(replica, update).await?);
        }
        ByHand::ByStatement => begin_flush(backend, replica).await?,
        ByHand::Alone => {
            let mut transaction = backend.begin(Purpose::Collection).await?;
            transaction.acquire(Lock::Cutover, LockMode::Exclusive).await?;
            transaction.acquire(Lock::Replica(replica), LockMode::Exclusive).await?;
            transaction
        }
    };
    transaction.read(replica).await?;
    transaction.upsert(replica, update).await?;
    Ok(transaction.commit().await?)
}

/// Flushes a second of 200 replicas at once, with the shared cutover lock and with the exclusive one of the reference.
pub(crate) async fn flushes_per_second(server: &RestartablePostgres) -> Result<[f64; 2]> {
    const REPLICAS: u128 = 200;
    const FLUSHES: u64 = 5;
    const ROUNDS: u64 = 3;
    let mut databases = Vec::new();
    for number in 0..REPLICAS {
        let database = Database::connect(&server.url()).await?;
        begin_period(database.backend().as_ref(), id(100 + number)).await?;
        databases.push(database);
    }
    let later = Update { flush: 0, uniques: UniquesUpdate::Cumulative(hot_uniques()), allowed: 1, denied: 0 };
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS * 2 {
        let (by_hand, rates) = match round % 2 {
            0 => (ByHand::Together, &mut rates[0]),
            _ => (ByHand::Alone, &mut rates[1]),
        };
        let start = Instant::now();
        let mut replicas = JoinSet::new();
        for (number, database) in databases.iter().cloned().enumerate() {
            let mut update = later.clone();
            replicas.spawn(async move {
                for flush in round * FLUSHES + 2..(round + 1) * FLUSHES + 2 {
                    update.flush = flush;
                    flush_by_hand(database.backend().as_ref(), id(100 + number as u128), &update, by_hand).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(replica) = replicas.join_next().await {
            replica??;
        }
        rates.push((REPLICAS as u64 * FLUSHES) as f64 / start.elapsed().as_secs_f64());
    }
    for database in databases {
        database.close().await;
    }
    Ok(rates.map(median))
}

/// A collection of full sketches.
pub(crate) struct LargeCollection {
    pub(crate) seconds: f64,
    /// How far the process's memory grew during it.
    pub(crate) growth_bytes: u64,
}

/// Collects as many rows, each with two sketches of 16,384 ids.
pub(crate) async fn collect_full_rows(server: &RestartablePostgres, rows: u64) -> Result<LargeCollection> {
    let database = Database::connect(&server.url()).await?;
    database.collect(Default::default()).await?;
    let mut connection = PgConnection::connect(&server.url()).await?;
    // Different ones, and few enough of them that the union has to look at every hash of every row.
    for number in 0..8 {
        let sketch = set(number * 1_000..number * 1_000 + 16_384).sketch;
        let insert = "INSERT INTO boundary_usage_stats (replica_id, unique_workspaces_count, unique_users_count,
            allowed_requests, workspaces_sketch, users_sketch)
            SELECT gen_random_uuid(), 16384, 16384, 1, $1, $1 FROM generate_series(1, $2)";
        let each = i64::try_from(rows / 8)?;
        connection.execute(sqlx::query(insert).bind(sketch).bind(each)).await?;
    }
    let before = resident_bytes();
    std::fs::write("/proc/self/clear_refs", "5").context("cannot start to measure the peak of memory")?;
    let start = Instant::now();
    let Collection::Closed(summary) = database.collect(Default::default()).await? else {
        anyhow::bail!("the period is closed whatever its age")
    };
    let seconds = start.elapsed().as_secs_f64();
    let growth_bytes = peak_resident_bytes().saturating_sub(before);
    ensure!(summary.replicas == rows && summary.allowed_requests == rows, "{summary:?}");
    database.close().await;
    Ok(LargeCollection { seconds, growth_bytes })
}

/// A server that writes through to its disk, for as many connections as 200 replicas have. Its cache is a quarter of the
/// machine's memory, as the manual of PostgreSQL advises.
pub(crate) async fn postgres() -> Result<RestartablePostgres> {
    let cache = machine_bytes() / 4 / (1 << 20);
    let settings = format!("-c max_connections=250 -c shared_buffers={cache}MB -c max_wal_size=16GB");
    RestartablePostgres::start(&settings).await
}
