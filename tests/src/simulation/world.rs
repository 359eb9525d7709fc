//! The story of one run: replicas track, flush, break and restart, collectors collect; then everything heals, what is left
//! is flushed and collected, and the model judges.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{Activity, CollectOptions, Collection, OpenPeriod};
use tokio::task::spawn_local;
use tokio::time::timeout;
use uuid::Uuid;

use super::database::{Client, Server};
use super::process::Replica;
use super::run::Run;
use super::schedule::Fault;
use crate::{misbehaving_plugin, plugin, workspace_of};

/// How often a flush or a collection is tried once nothing fails any more; a component that still has a cue to break
/// fails some.
const LAST_TRIES: u32 = 30;

/// How far the clock is set ahead.
const YEAR_SECONDS: i64 = 365 * 24 * 3_600;

struct World {
    run: Arc<Run>,
    server: Arc<Server>,
    replicas: Vec<Rc<Replica>>,
    /// Whether the component is the one that breaks on cue.
    misbehaves: bool,
    workspaces: u64,
    users: u64,
    fresh: u64,
}

/// Plays a run to its end.
pub(super) async fn play(run: &Arc<Run>) {
    let (mut world, actions) = World::new(run);
    for replica in &world.replicas {
        replica.start().await;
    }
    for _ in 0..actions {
        world.act().await;
        let wait = run.schedule().next_action();
        run.pause(wait).await;
    }
    world.finish().await;
}

impl World {
    fn new(run: &Arc<Run>) -> (Self, u64) {
        let server = Server::new(run.clone());
        let (replicas, misbehaves, workspaces, users, actions) = {
            let mut schedule = run.schedule();
            let replicas = 1 + schedule.below(4);
            let misbehaves = schedule.chance(0.6) || run.mutation.is_some();
            (replicas, misbehaves, 1 + schedule.below(40), 1 + schedule.below(20), 20 + schedule.below(120))
        };
        let component = if misbehaves { misbehaving_plugin() } else { plugin() };
        let replicas = (1..=replicas).map(|number| Replica::new(number, &server, component)).collect();
        (Self { run: run.clone(), server, replicas, misbehaves, workspaces, users, fresh: 0 }, actions)
    }

    /// One thing happens: one of the faults, or else the daily round.
    async fn act(&mut self) {
        let replica = self.run.schedule().pick(&(0..self.replicas.len()).collect::<Vec<_>>());
        let replica = self.replicas[replica].clone();
        if self.break_component(&replica) || self.disturb(&replica).await {
            return;
        }
        let choice = self.run.schedule().below(20);
        match choice {
            0..11 => self.track(&replica),
            11..16 => {
                spawn_local(async move { replica.flush().await });
            }
            16..18 => self.collect(),
            _ => replica.start().await,
        }
    }

    /// A burst of activity, once in a while a large one.
    fn track(&mut self, replica: &Replica) {
        let count = {
            let mut schedule = self.run.schedule();
            match schedule.chance(0.01) {
                true => schedule.below(300),
                false => 1 + schedule.below(5),
            }
        };
        for _ in 0..count {
            let activity = self.activity();
            replica.track(activity);
        }
    }

    fn activity(&mut self) -> Activity {
        let mut schedule = self.run.schedule();
        let owner = id('u', schedule.below(self.users));
        // Activity without requests has a workspace of its own, by which the model tells where it went.
        if schedule.chance(0.1) {
            self.fresh += 1;
            return Activity { workspace: id('f', self.fresh), owner, allowed: 0, denied: 0 };
        }
        let workspace = id('w', schedule.below(self.workspaces));
        Activity { workspace, owner, allowed: 1 + schedule.below(1 << 20), denied: schedule.below(1 << 20) }
    }

    /// Cues the component; what carries the cue is activity like any other.
    fn break_component(&mut self, replica: &Rc<Replica>) -> bool {
        if !self.misbehaves {
            return false;
        }
        for (fault, cue) in Fault::OF_THE_COMPONENT {
            if self.run.strikes(fault, "world") {
                replica.may_break();
                let activity = Activity { workspace: workspace_of(cue), ..self.activity() };
                // The model needs requests to tell where it went.
                replica.track(Activity { allowed: activity.allowed.max(1), ..activity });
                return true;
            }
        }
        false
    }

    /// What happens to processes, clocks and the database as a whole.
    async fn disturb(&mut self, replica: &Rc<Replica>) -> bool {
        let fault = [
            Fault::Restart,
            Fault::Kill,
            Fault::HandleDropped,
            Fault::Outage,
            Fault::ClockJump,
            Fault::TimeLeap,
            Fault::CommitsForgotten,
            Fault::ClockAheadAYear,
            Fault::ShutdownWhileLocked,
            Fault::FileReplaced,
        ];
        let Some(fault) = fault.into_iter().find(|fault| self.run.strikes(*fault, "world")) else { return false };
        match fault {
            Fault::Restart => restart(replica, async |replica| replica.shut_down().await),
            Fault::Kill => restart(replica, async |replica| replica.kill().await),
            Fault::HandleDropped => restart(replica, async |replica| replica.let_go().await),
            Fault::Outage => {
                let duration = self.run.schedule().milliseconds(300_000);
                self.server.go_away(duration);
            }
            Fault::ClockJump => {
                let seconds = self.run.schedule().below(20_000).cast_signed() - 10_000;
                self.server.set_clock(seconds);
            }
            Fault::CommitsForgotten => {
                let commits = 1 + self.run.schedule().below(4);
                self.server.forget(usize::try_from(commits).expect("a small number"));
            }
            Fault::ClockAheadAYear => self.clock_ahead_a_year(),
            Fault::ShutdownWhileLocked => {
                self.hold_the_cutover_lock();
                restart(replica, async |replica| replica.shut_down().await);
            }
            Fault::FileReplaced => {
                let duration = self.run.schedule().milliseconds(300_000);
                self.server.replace(duration);
            }
            _ => {
                // A flush under way may be over its limit now, and its component is then given up.
                self.replicas.iter().for_each(|replica| replica.may_break());
                let leap = self.run.schedule().milliseconds(3_600_000);
                tokio::time::advance(leap).await;
            }
        }
        true
    }

    /// Sets the clock ahead, and back after a while.
    fn clock_ahead_a_year(&self) {
        let (server, duration) = (self.server.clone(), self.run.schedule().milliseconds(300_000));
        server.set_clock(YEAR_SECONDS);
        spawn_local(async move {
            tokio::time::sleep(duration).await;
            server.set_clock(-YEAR_SECONDS);
        });
    }

    /// As a collection that takes long.
    fn hold_the_cutover_lock(&self) {
        let (database, duration) = (self.server.database.clone(), self.run.schedule().milliseconds(15_000));
        spawn_local(async move {
            let held = database.hold_cutover().await;
            tokio::time::sleep(duration).await;
            drop(held);
        });
    }

    /// Collects beside all else; the collector may die half way.
    fn collect(&self) {
        let (run, database) = (self.run.clone(), self.server.connect(Client::Collector));
        let min_age = run.schedule().pick(&[None, None, None, Some(Duration::from_secs(60))]);
        let dies = run.strikes(Fault::CollectorKilled, Client::Collector);
        let dies_after = if dies { run.schedule().milliseconds(200) } else { Duration::from_secs(3_600) };
        let server = self.server.clone();
        spawn_local(async move {
            let before = server.open_period();
            let collect = database.collect(CollectOptions { min_age, max_staleness: None });
            match timeout(dies_after, collect).await {
                Ok(Ok(Collection::Closed(summary))) => run.note("c", format_args!("closed {}", summary.period_id)),
                Ok(Ok(Collection::NotDue { .. })) => {
                    run.note("c", "not due");
                    let OpenPeriod { start, now } = server.open_period();
                    // A clock that changed during the collection proves nothing.
                    if start > now && before.start == start && before.start > before.now {
                        run.model().violated(format!("a period that starts at {start} is not due at {now}"));
                    }
                }
                Ok(Err(error)) => run.note("c", format_args!("collect: {error}")),
                Err(_) => run.note("c", "the collector is dead"),
            }
        });
    }

    /// Nothing fails any more; everything must come out right.
    async fn finish(self) {
        self.run.note("world", "healed");
        self.run.schedule().heal();
        // Lost sessions end, and so do replicas that were ending.
        tokio::time::sleep(Duration::from_secs(600)).await;
        for replica in &self.replicas {
            replica.settled().await;
            replica.start().await;
            self.flush_to_success(replica).await;
        }
        self.collect_to_success().await;
        for replica in &self.replicas {
            replica.shut_down().await;
        }
        let tables = self.server.database.tables();
        let rows = tables.rows.len();
        if rows > 0 {
            self.run.model().violated(format!("after the last collection there are {rows} rows"));
        }
        self.run.model().ended(&tables.periods);
    }

    async fn flush_to_success(&self, replica: &Replica) {
        let mut last = None;
        for _ in 0..LAST_TRIES {
            match replica.flush().await {
                Some(Ok(_)) => return,
                Some(Err(error)) => last = Some(error.to_string()),
                None => {}
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        self.run.model().violated(format!("a flush does not succeed though nothing fails any more: {last:?}"));
    }

    async fn collect_to_success(&self) {
        let database = self.server.connect(Client::Collector);
        match database.collect(CollectOptions::default()).await {
            Ok(Collection::Closed(_)) => {}
            other => self.run.model().violated(format!("the last collection answered {other:?}")),
        }
    }
}

/// Ends a replica's process in some way, and starts the next one.
fn restart(replica: &Rc<Replica>, end: impl AsyncFnOnce(&Replica) + 'static) {
    let replica = replica.clone();
    spawn_local(async move {
        end(&replica).await;
        replica.start().await;
    });
}

/// Ids of a kind; never nil.
fn id(kind: char, number: u64) -> Uuid {
    Uuid::from_u64_pair(u64::from(kind), number)
}
