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

/// A tracker whose flushes are measured beside the same SQL sent by hand over the same driver.
pub(crate) struct Contest {
    pub(crate) name: &'static str,
    runs: Runs,
    ids: Ids,
}

#[derive(Clone, Copy)]
enum Runs {
    /// On the caller's thread, where the statements by hand run, too.
    Here,
    /// On a thread of its own: its caller's thread has to wake that, and to be woken.
    AcrossThreads,
}

#[derive(Clone, Copy)]
enum Ids {
    /// The period has them all.
    Known,
    /// There is a new workspace each time.
    New,
}

pub(crate) const CONTESTS: [Contest; 3] = [
    Contest { name: "flush", runs: Runs::Here, ids: Ids::Known },
    Contest { name: "flush_of_new_ids", runs: Runs::Here, ids: Ids::New },
    Contest { name: "flush_across_threads", runs: Runs::AcrossThreads, ids: Ids::Known },
];

/// Median microseconds.
pub(crate) struct FlushCosts {
    pub(crate) flush: f64,
    pub(crate) sql: f64,
}

/// How often each contender is measured, about.
const ROUNDS: u128 = 250;

/// Measures flushes of 1,000 workspaces and 100 users. Whatever comes next waits for the same first: that the tracker has the
/// activity. What comes right after other database work finds caches warm and threads awake, and takes less. And who comes
/// next is drawn by lot: always in the same order, ratios came out a tenth better.
pub(crate) async fn flush_costs(database: &Database, contest: &Contest) -> Result<FlushCosts> {
    let (replica, by_hand) = (Uuid::new_v4(), Uuid::new_v4());
    // A task of its own: joined, each wake-up of one side would look at the other.
    let local = LocalSet::new();
    let tracker = match contest.runs {
        Runs::AcrossThreads => tracker_by_hand(replica.as_u128(), database).await?,
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
        let mut lot = StdRng::seed_from_u64(1);
        for turn in 0..2 * ROUNDS {
            let drawn = lot.random_range(0..times.len());
            let count = times[drawn].len() as u64 + 1;
            let (new, uniques) = match contest.ids {
                Ids::Known => (None, UniquesUpdate::Unchanged),
                // By hand as by the tracker, a row has one id more each time: SQLite writes only what changes in a row
                // that stays as long as it was.
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

/// Tracks until every id has come, and a new workspace too if there is one, and waits until the component has them.
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

/// A replica's first flush of the period.
async fn begin_period(backend: &dyn Backend, replica: Uuid) -> Result<()> {
    let first = Update { flush: 1, uniques: UniquesUpdate::Delta(hot_uniques()), allowed: 1, denied: 0 };
    flush_by_hand(backend, replica, &first, LockMode::Shared).await
}

/// The statements of a flush without a component.
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
        let sketch = set(number * 1_000..number * 1_000 + 16_384).bytes;
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
