//! Costs of the databases: a flush compared with its SQL alone, many replicas, and a large collection.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use boundary_usage::{
    Backend, Clock, CollectOptions, Collection, Database, Lock, LockMode, Options, Purpose, Tracker, Uniques,
    UniquesUpdate, Update,
};
use boundary_usage_tests::expected_usage::manual_tracker;
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

/// A comparison of a tracker's flushes with the same SQL through the same driver.
pub(crate) struct Contest {
    pub(crate) name: &'static str,
    runs: Runs,
    ids: Ids,
}

#[derive(Clone, Copy)]
enum Runs {
    /// The tracker runs on the caller's thread, like the SQL alone.
    Here,
    /// The tracker runs on another thread, so each flush wakes that thread and then the caller's.
    AcrossThreads,
}

#[derive(Clone, Copy)]
enum Ids {
    /// The period already contains all ids.
    Known,
    /// Each flush has a new workspace.
    New,
}

pub(crate) const CONTESTS: [Contest; 3] = [
    Contest { name: "flush", runs: Runs::Here, ids: Ids::Known },
    Contest { name: "flush_of_new_ids", runs: Runs::Here, ids: Ids::New },
    Contest { name: "flush_across_threads", runs: Runs::AcrossThreads, ids: Ids::Known },
];

/// Median times in microseconds.
pub(crate) struct FlushCosts {
    pub(crate) flush: f64,
    pub(crate) sql: f64,
}

/// The approximate number of measurements of each contender.
const ROUNDS: u128 = 250;

/// Measures flushes of 1,000 workspaces and 100 users.
///
/// A contender that runs directly after other database work is faster, because caches are warm and threads are awake.
/// So the tracker receives its activity before each measurement, and the order of the contenders is random. A fixed
/// order improved the ratios by a tenth.
pub(crate) async fn flush_costs(database: &Database, contest: &Contest) -> Result<FlushCosts> {
    let (replica, by_hand) = (Uuid::new_v4(), Uuid::new_v4());
    // The tracker is a separate task. If it were joined with the measurement, each wake-up would poll both.
    let local = LocalSet::new();
    let tracker = match contest.runs {
        Runs::AcrossThreads => manual_tracker(replica.as_u128(), database).await?,
        Runs::Here => {
            let options = Options { clock: Clock::manual().0, ..Options::default() };
            let (tracker, running) = plugin().start_local(replica, database.clone(), options).await?;
            local.spawn_local(running);
            tracker
        }
    };
    let backend = database.backend().as_ref();
    begin_period(backend, by_hand).await?;
    let measure = async {
        let mut times: [Vec<f64>; 2] = Default::default();
        let mut random = StdRng::seed_from_u64(1);
        for turn in 0..2 * ROUNDS {
            let drawn = random.random_range(0..times.len());
            let count = times[drawn].len() as u64 + 1;
            let (new, uniques) = match contest.ids {
                Ids::Known => (None, UniquesUpdate::Unchanged),
                // The sketches grow by one id each time, as the tracker's do. SQLite writes less if a row keeps its
                // length.
                Ids::New => {
                    let cumulative = uniques(0..1_000 + u128::from(count), 0..100);
                    ((drawn == 0).then(|| id(1_000_000 + turn)), UniquesUpdate::Cumulative(cumulative))
                }
            };
            let update = Update { flush: count + 1, uniques, allowed: 1, denied: 0 };
            track_hot(&tracker, new).await?;
            let start = Instant::now();
            match drawn {
                0 => drop(tracker.flush().await?),
                _ => flush_by_hand(backend, by_hand, &update, LockMode::Shared).await?,
            }
            times[drawn].push(start.elapsed().as_secs_f64() * 1e6);
        }
        tracker.shutdown().await?;
        anyhow::Ok(times)
    };
    let [flush, sql] = local.run_until(measure).await?.map(median);
    Ok(FlushCosts { flush, sql })
}

/// Tracks all ids of the hot input and a new workspace, if any, and waits until the component has them.
async fn track_hot(tracker: &Tracker, new: Option<Uuid>) -> Result<()> {
    for number in 0..10_000 {
        let (workspace, owner) = Input::Hot.ids(number);
        tracker.try_track(if number == 0 { new.unwrap_or(workspace) } else { workspace }, owner, 1, 0)?;
    }
    until(|| tracker.status().waiting_activities == 0).await;
    Ok(())
}

fn hot_uniques() -> Uniques {
    uniques(0..1_000, 0..100)
}

/// Writes a replica's first flush of the period.
async fn begin_period(backend: &dyn Backend, replica: Uuid) -> Result<()> {
    let first = Update { flush: 1, uniques: UniquesUpdate::Delta(hot_uniques()), allowed: 1, denied: 0 };
    flush_by_hand(backend, replica, &first, LockMode::Shared).await
}

/// Sends the statements of a flush without a component.
async fn flush_by_hand(backend: &dyn Backend, replica: Uuid, update: &Update, cutover: LockMode) -> Result<()> {
    let mut transaction = match cutover {
        LockMode::Shared => begin_flush(backend, replica).await?,
        LockMode::Exclusive => {
            let mut transaction = backend.begin(Purpose::Collection).await?;
            transaction.acquire(Lock::Cutover, cutover).await?;
            transaction.acquire(Lock::Replica(replica), LockMode::Exclusive).await?;
            transaction
        }
    };
    transaction.read(replica).await?;
    transaction.upsert(replica, update).await?;
    Ok(transaction.commit().await?)
}

/// Returns the flushes per second of 200 simultaneous replicas, with the cutover lock shared and exclusive.
///
/// The reference takes its lock exclusively.
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
        let (cutover, rates) = match round % 2 {
            0 => (LockMode::Shared, &mut rates[0]),
            _ => (LockMode::Exclusive, &mut rates[1]),
        };
        let start = Instant::now();
        let mut replicas = JoinSet::new();
        for (number, database) in databases.iter().cloned().enumerate() {
            let mut update = later.clone();
            replicas.spawn(async move {
                for flush in round * FLUSHES + 2..(round + 1) * FLUSHES + 2 {
                    update.flush = flush;
                    flush_by_hand(database.backend().as_ref(), id(100 + number as u128), &update, cutover).await?;
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

/// The costs of a collection of full sketches.
pub(crate) struct LargeCollection {
    pub(crate) seconds: f64,
    /// The growth of the process's memory during the collection.
    pub(crate) growth_bytes: u64,
}

/// Collects this number of rows, each with two sketches of this number of ids.
pub(crate) async fn collect_rows(
    server: &RestartablePostgres,
    rows: u64,
    ids: u128,
    without_history: bool,
) -> Result<LargeCollection> {
    let database = Database::connect(&server.url()).await?;
    database.collect(Default::default()).await?;
    let mut connection = PgConnection::connect(&server.url()).await?;
    // Few different sketches keep the union small, so it must compare every hash of every row.
    for number in 0..8 {
        let sketch = set(number * ids / 16..number * ids / 16 + ids).bytes;
        let insert = "INSERT INTO boundary_usage_stats (replica_id, unique_workspaces_count, unique_users_count,
            allowed_requests, workspaces_sketch, users_sketch)
            SELECT gen_random_uuid(), 1, 1, 1, $1, $1 FROM generate_series(1, $2)";
        let each = i64::try_from(rows / 8)?;
        connection.execute(sqlx::query(insert).bind(sketch).bind(each)).await?;
    }
    // Otherwise the deleted rows of earlier collections would fill the disk.
    connection.execute("VACUUM boundary_usage_stats").await?;
    connection.execute("CHECKPOINT").await?;
    let before = resident_bytes();
    std::fs::write("/proc/self/clear_refs", "5").context("cannot start to measure the peak of memory")?;
    let start = Instant::now();
    let options = CollectOptions { without_history, ..CollectOptions::default() };
    let Collection::Closed(summary) = database.collect(options).await? else {
        anyhow::bail!("the period was not closed")
    };
    let seconds = start.elapsed().as_secs_f64();
    let growth_bytes = peak_resident_bytes().saturating_sub(before);
    ensure!(summary.replicas == rows && summary.allowed_requests == rows, "{summary:?}");
    database.close().await;
    Ok(LargeCollection { seconds, growth_bytes })
}

/// Starts a server with `fsync` and with enough connections for 200 replicas.
///
/// Its cache is a quarter of the machine's memory, as the manual of PostgreSQL recommends.
pub(crate) async fn postgres() -> Result<RestartablePostgres> {
    let cache = machine_bytes() / 4 / (1 << 20);
    let settings = format!("-c max_connections=250 -c shared_buffers={cache}MB -c max_wal_size=4GB");
    RestartablePostgres::start(&settings).await
}
