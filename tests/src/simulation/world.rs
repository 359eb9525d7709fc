//! The actions of a run.
//!
//! Replicas track, flush, crash and restart, and collectors collect. At the end all faults stop, all unflushed activity
//! is flushed and collected, and the model checks the result.

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

/// The highest number of attempts of a replica's last flush, after all faults stop.
///
/// Some fail, because a component may not have acted on its last cue yet.
const LAST_ATTEMPTS: u32 = 30;

/// The offset of a clock that is a year ahead.
const YEAR_SECONDS: i64 = 365 * 24 * 3_600;

struct World {
    run: Arc<Run>,
    server: Arc<Server>,
    replicas: Vec<Rc<Replica>>,
    /// Whether the replicas run the misbehaving component.
    misbehaves: bool,
    workspaces: u64,
    users: u64,
    fresh: u64,
}

/// Runs all actions of a run, and checks the result.
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

    /// Runs one action: a fault if one strikes, otherwise an ordinary action.
    async fn act(&mut self) {
        let replica = self.run.schedule().pick(&(0..self.replicas.len()).collect::<Vec<_>>());
        let replica = self.replicas[replica].clone();
        if self.cue_component(&replica) || self.disturb(&replica).await {
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

    /// Tracks a burst of activities, which is seldom large.
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
        // Activity without requests has a new workspace, so that the model can recognise the flush that carries it.
        if schedule.chance(0.1) {
            self.fresh += 1;
            return Activity { workspace: id('f', self.fresh), owner, allowed: 0, denied: 0 };
        }
        let workspace = id('w', schedule.below(self.workspaces));
        Activity { workspace, owner, allowed: 1 + schedule.below(1 << 20), denied: schedule.below(1 << 20) }
    }

    /// Tracks a cue if a fault of the component strikes.
    ///
    /// The cue is also an ordinary activity. Returns whether a fault struck.
    fn cue_component(&mut self, replica: &Rc<Replica>) -> bool {
        if !self.misbehaves {
            return false;
        }
        for (fault, cue) in Fault::OF_THE_COMPONENT {
            if self.run.strikes(fault, "world") {
                replica.allow_restart();
                let activity = Activity { workspace: workspace_of(cue), ..self.activity() };
                // Without requests, the model could not recognise the flush that carries it.
                replica.track(Activity { allowed: activity.allowed.max(1), ..activity });
                return true;
            }
        }
        false
    }

    /// Runs a fault of a process, a clock or the database, and returns whether one struck.
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
            Fault::HandleDropped => restart(replica, async |replica| replica.drop_handle().await),
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
                // A running flush may now exceed its time limit. Its component is then replaced.
                self.replicas.iter().for_each(|replica| replica.allow_restart());
                let leap = self.run.schedule().milliseconds(3_600_000);
                tokio::time::advance(leap).await;
            }
        }
        true
    }

    /// Sets the clock forward by a year, and back later.
    fn clock_ahead_a_year(&self) {
        let (server, duration) = (self.server.clone(), self.run.schedule().milliseconds(300_000));
        server.set_clock(YEAR_SECONDS);
        spawn_local(async move {
            tokio::time::sleep(duration).await;
            server.set_clock(-YEAR_SECONDS);
        });
    }

    /// Holds the cutover lock exclusively for a while, like a long collection.
    fn hold_the_cutover_lock(&self) {
        let (database, duration) = (self.server.database.clone(), self.run.schedule().milliseconds(15_000));
        spawn_local(async move {
            let held = database.hold_cutover().await;
            tokio::time::sleep(duration).await;
            drop(held);
        });
    }

    /// Starts a collection, which may be killed before its end.
    fn collect(&self) {
        let (run, database) = (self.run.clone(), self.server.connect(Client::Collector));
        let interval = run.schedule().pick(&[None, None, None, Some(Duration::from_secs(60))]);
        let is_killed = run.strikes(Fault::CollectorKilled, Client::Collector);
        let time_limit = if is_killed { run.schedule().milliseconds(200) } else { Duration::from_secs(3_600) };
        let server = self.server.clone();
        spawn_local(async move {
            let before = server.open_period();
            let collect = database.collect(CollectOptions { interval, ..CollectOptions::default() });
            match timeout(time_limit, collect).await {
                Ok(Ok(Collection::Closed(summary))) => run.note("c", format_args!("closed {}", summary.period_id)),
                Ok(Ok(Collection::NotDue { .. })) => {
                    run.note("c", "not due");
                    let OpenPeriod { start, now, .. } = server.open_period();
                    // The check is valid only if the clock was not set during the collection.
                    if start > now && before.start == start && before.start > before.now {
                        run.model().violated(format!("a period that starts at {start} is not due at {now}"));
                    }
                }
                Ok(Err(error)) => run.note("c", format_args!("collect: {error}")),
                Err(_) => run.note("c", "the collector was killed"),
            }
        });
    }

    /// Stops all faults, flushes and collects all activity, and checks the result.
    async fn finish(self) {
        self.run.note("world", "healed");
        self.run.schedule().heal();
        // Lost sessions end in the meantime, and so do replicas that are ending.
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
            self.run.model().violated(format!("there are {rows} rows after the last collection"));
        }
        self.run.model().ended(&tables.periods);
        self.run.model().check_days(&tables.days);
    }

    async fn flush_to_success(&self, replica: &Replica) {
        let mut last = None;
        for _ in 0..LAST_ATTEMPTS {
            match replica.flush().await {
                Some(Ok(_)) => return,
                Some(Err(error)) => last = Some(error.to_string()),
                None => {}
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        self.run.model().violated(format!("a flush does not succeed after all faults stopped: {last:?}"));
    }

    async fn collect_to_success(&self) {
        let database = self.server.connect(Client::Collector);
        match database.collect(CollectOptions::default()).await {
            Ok(Collection::Closed(_)) => {}
            other => self.run.model().violated(format!("the last collection returned {other:?}")),
        }
    }
}

/// Ends a replica's process with `end`, and starts the next one.
fn restart(replica: &Rc<Replica>, end: impl AsyncFnOnce(&Replica) + 'static) {
    let replica = replica.clone();
    spawn_local(async move {
        end(&replica).await;
        replica.start().await;
    });
}

/// Returns an id of a kind, which is never nil.
fn id(kind: char, number: u64) -> Uuid {
    Uuid::from_u64_pair(u64::from(kind), number)
}
