//! What the databases' side costs: a flush beside the same SQL by hand, many replicas at once, a large collection.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use boundary_usage::{Backend, Clock, Collection, Database, Lock, LockMode, Options, Purpose, Tracker, Update};
use boundary_usage_tests::accounts::tracker_by_hand;
use boundary_usage_tests::plugin;
use boundary_usage_tests::restartable_postgres::RestartablePostgres;
use boundary_usage_tests::until;
use boundary_usage_tests::usage::{begin_flush, id, set, uniques};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::inputs::Input;
use crate::rounds::median;
use crate::start::{machine_bytes, peak_resident_bytes, resident_bytes};

/// A flush through the component against the same SQL, sent by hand over the same driver: in turn, many times.
pub(crate) struct FlushCost {
    /// As the caller of `flush` waits, whose thread is not the tracker's.
    pub(crate) across_threads_microseconds: f64,
    /// Where the tracker has no thread of its own, so that flush and statements by hand run on the same one.
    pub(crate) microseconds: f64,
    /// In the same round trips as the flush.
    pub(crate) sql_microseconds: f64,
    /// One statement after the other, as who writes them by hand sends them first.
    pub(crate) sql_by_statement_microseconds: f64,
}

/// How statements are sent by hand.
#[derive(Clone, Copy)]
enum ByHand {
    /// Locks and read go out with the begin, as those of a flush do.
    Together,
    /// Each on its own.
    ByStatement,
    /// The same, with the cutover lock exclusive, as in the reference.
    Alone,
}

/// A flush of the hot input's 1,000 workspaces and 100 users, into a row that has them. All wait for the same activity
/// first: what comes right after other database work finds caches warm and threads awake, and takes less. And who comes next
/// is drawn by lot: always in the same order, the ratio came out a tenth better.
pub(crate) async fn flush_cost(database: Database) -> Result<FlushCost> {
    const ROUNDS: usize = 300;
    let threaded = tracker_by_hand(1, &database).await?;
    let options = Options { clock: Clock::manual().0, ..Options::default() };
    let (local, running) = plugin().start_local(id(2), database.clone(), options).await?;
    let backend = database.backend().as_ref();
    let mut update = hot_update();
    let measure = async {
        let mut times = [const { Vec::new() }; 4];
        let mut lot = StdRng::seed_from_u64(1);
        for _ in 0..4 * ROUNDS {
            let contender = lot.random_range(0..4);
            update.flush += 1;
            track_hot(if contender == 0 { &threaded } else { &local }).await?;
            let start = Instant::now();
            match contender {
                0 => drop(threaded.flush().await?),
                1 => drop(local.flush().await?),
                2 => flush_by_hand(backend, id(3), &update, ByHand::Together).await?,
                _ => flush_by_hand(backend, id(3), &update, ByHand::ByStatement).await?,
            }
            times[contender].push(start.elapsed().as_secs_f64());
        }
        threaded.shutdown().await?;
        local.shutdown().await?;
        anyhow::Ok(times.map(|times| median(times) * 1e6))
    };
    let (measured, ()) = tokio::join!(measure, running);
    let [across_threads_microseconds, microseconds, sql_microseconds, sql_by_statement_microseconds] = measured?;
    database.close().await;
    Ok(FlushCost { across_threads_microseconds, microseconds, sql_microseconds, sql_by_statement_microseconds })
}

/// Tracks until every id has come, and waits until the component has them.
async fn track_hot(tracker: &Tracker) -> Result<()> {
    for number in 0..10_000 {
        let (workspace, owner) = Input::Hot.ids(number);
        tracker.try_track(workspace, owner, 1, 0)?;
    }
    until(|| tracker.status().waiting_activities == 0).await;
    Ok(())
}

/// What a flush of the hot input writes, but for its number.
fn hot_update() -> Update {
    let uniques = uniques(0..1_000, 0..100);
    Update { flush: 0, delta: uniques.clone(), cumulative: uniques, allowed: 1, denied: 0 }
}

/// The statements of a flush, without a component.
async fn flush_by_hand(backend: &dyn Backend, replica: Uuid, update: &Update, by_hand: ByHand) -> Result<()> {
    let mut transaction = match by_hand {
        ByHand::Together => backend.begin_flush(replica).await?.0,
        ByHand::ByStatement => {
            let mut transaction = begin_flush(backend, replica).await?;
            transaction.read(replica).await?;
            transaction
        }
        ByHand::Alone => {
            let mut transaction = backend.begin(Purpose::Collection).await?;
            transaction.acquire(Lock::Cutover, LockMode::Exclusive).await?;
            transaction.acquire(Lock::Replica(replica), LockMode::Exclusive).await?;
            transaction.read(replica).await?;
            transaction
        }
    };
    transaction.upsert(replica, update).await?;
    Ok(transaction.commit().await?)
}

/// Flushes a second of 200 replicas at once, with the shared cutover lock and with the exclusive one of the reference.
pub(crate) async fn flushes_per_second(server: &RestartablePostgres) -> Result<[f64; 2]> {
    const REPLICAS: u128 = 200;
    const FLUSHES: u64 = 5;
    const ROUNDS: u64 = 3;
    let mut databases = Vec::new();
    for _ in 0..REPLICAS {
        databases.push(Database::connect(&server.url()).await?);
    }
    let hot = hot_update();
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS * 2 {
        let (by_hand, rates) = match round % 2 {
            0 => (ByHand::Together, &mut rates[0]),
            _ => (ByHand::Alone, &mut rates[1]),
        };
        let start = Instant::now();
        let mut replicas = JoinSet::new();
        for (number, database) in databases.iter().cloned().enumerate() {
            let mut update = hot.clone();
            replicas.spawn(async move {
                for flush in round * FLUSHES + 1..=(round + 1) * FLUSHES {
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
