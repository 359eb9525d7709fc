//! A running instance of the component in its own store.
//!
//! One task owns the store and stays inside one `run_concurrent`. There, calls of `track` proceed while `flush` waits
//! for the database. A trap ends `run_concurrent`, the instance and all its calls. The tracker then creates a new
//! instance from the same compiled component.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use wasmtime::component::{Accessor, ResourceTable};
use wasmtime::{Store, StoreLimitsBuilder, UpdateDeadline};

use super::engine::{self, TickingEngine, Ticks};
use crate::activity::Activity;
use crate::bindings::boundary::usage::types;
use crate::bindings::{Tracker, TrackerPre};
use crate::capabilities::{HostState, ReplicaContext, from_component, validate_result};
use crate::error::Error;
use crate::options::Options;
use crate::records::Flushed;

/// The maximum data that the component may pass to the host in one call, in bytes: four full sketches and a reserve.
const HOSTCALL_BYTES_MAX: usize = 1 << 20;

/// The maximum number of handles that the component may hold simultaneously.
const HANDLES_MAX: usize = 8;

/// The time limit of a flush as a multiple of `flush_timeout`.
///
/// The host's database work ends within one `flush_timeout`. A component that needs as much time again is considered
/// hung.
const FLUSH_LIMITS: u32 = 2;

pub(crate) struct Instance {
    store: Store<HostState>,
    tracker: Tracker,
    cpu_watchdog: CpuWatchdog,
    context: Arc<ReplicaContext>,
}

/// The start of the component's current computation, which the epoch callback compares with the limit.
#[derive(Clone)]
struct CpuWatchdog {
    entered: Arc<AtomicU64>,
    ticks: Ticks,
}

impl CpuWatchdog {
    fn enter(&self) {
        self.entered.store(self.ticks.now(), Ordering::Relaxed);
    }
}

impl Instance {
    pub(super) async fn new(
        engine: &TickingEngine,
        component: &TrackerPre<HostState>,
        context: Arc<ReplicaContext>,
        options: &Options,
    ) -> Result<Self, Error> {
        let entered = Arc::new(AtomicU64::new(engine.ticks.now()));
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let limits = StoreLimitsBuilder::new()
            .memory_size(options.memory_limit_bytes)
            .memories(1)
            .tables(4)
            .instances(8)
            .trap_on_grow_failure(true)
            .build();
        let state = HostState {
            limits,
            table,
            context: context.clone(),
            unflushed: Some(context.ledger().unflushed().into()),
            entered: entered.clone(),
            is_flushing: false,
            has_open_transaction: false,
            snapshot_taken: None,
        };
        let mut store = Store::new(&engine.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        limit_computing(&mut store, engine.ticks.clone(), options);
        let cpu_watchdog = CpuWatchdog { entered, ticks: engine.ticks.clone() };
        cpu_watchdog.enter();
        let tracker = component.instantiate_async(&mut store).await.map_err(not_started)?;
        Ok(Self { store, tracker, cpu_watchdog, context })
    }

    /// Runs `act` with this instance until `act` ends or the component crashes.
    ///
    /// The instance makes progress only while `act` is polled. Afterwards the instance and its transaction are dropped.
    pub(crate) async fn run<R>(
        self,
        act: impl AsyncFnOnce(&InstanceHandle<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let Self { mut store, tracker, cpu_watchdog, context } = self;
        let flush_deadline = FlushDeadline::default();
        let calls = async |accessor: &Accessor<_>| {
            let (tracker, cpu_watchdog, context, flush_deadline) = (&tracker, &cpu_watchdog, &context, &flush_deadline);
            act(&InstanceHandle { accessor, tracker, cpu_watchdog, context, flush_deadline }).await
        };
        let mut running = pin!(store.run_concurrent(calls));
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut overdue = |context: &mut Context<'_>| {
            let passed = flush_deadline.has_passed(timer.as_mut(), context);
            passed.then(|| Poll::Ready(Err(wasmtime::Error::msg("its flush does not end"))))
        };
        let ran = poll_fn(|context| {
            // The deadline is checked first. A component that makes one call after the other exhausts Tokio's
            // cooperative budget, and a timer without budget stays pending.
            if let Some(ended) = overdue(context) {
                return ended;
            }
            cpu_watchdog.enter();
            match running.as_mut().poll(context) {
                // The poll above may have set the deadline.
                Poll::Pending => overdue(context).unwrap_or(Poll::Pending),
                ran => ran,
            }
        });
        ran.await.map_err(crashed)?
    }
}

/// The deadline of the running flush.
///
/// The deadline is checked outside the store, where the component cannot prevent the check.
#[derive(Default)]
struct FlushDeadline(Cell<Option<Instant>>);

impl FlushDeadline {
    /// Returns whether the deadline has passed, and otherwise arranges a wakeup.
    ///
    /// Deadlines only move forward. So the timer is reset only when it fires early, and not at each flush.
    fn has_passed(&self, mut timer: Pin<&mut Sleep>, context: &mut Context<'_>) -> bool {
        let Some(deadline) = self.0.get() else { return false };
        while timer.as_mut().poll(context).is_ready() {
            if deadline <= Instant::now() {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
        false
    }
}

/// A handle for calls into a running instance.
pub(crate) struct InstanceHandle<'a> {
    accessor: &'a Accessor<HostState>,
    tracker: &'a Tracker,
    cpu_watchdog: &'a CpuWatchdog,
    context: &'a ReplicaContext,
    flush_deadline: &'a FlushDeadline,
}

impl InstanceHandle<'_> {
    /// Passes activities to the component. The ledger must contain them already.
    pub(crate) async fn track(&self, activities: &[Activity]) -> Result<(), Error> {
        self.cpu_watchdog.enter();
        let activities = activities.iter().map(Into::into).collect();
        self.tracker.call_track(self.accessor, activities).await.map_err(crashed)
    }

    /// Calls `flush` and waits until all its work ends.
    ///
    /// `snapshot_taken` is notified after the component has taken the snapshot. Before that, the caller must not call
    /// `track`, so that ledger and component assign each activity to the same flush.
    pub(crate) async fn flush(&self, snapshot_taken: oneshot::Sender<()>) -> Result<Flushed, Error> {
        self.cpu_watchdog.enter();
        self.flush_deadline.0.set(Some(Instant::now() + self.context.flush_timeout * FLUSH_LIMITS));
        let is_due = self.context.ledger().has_to_flush();
        self.accessor.with(|mut access| {
            let state = access.data_mut();
            state.is_flushing = true;
            state.snapshot_taken = Some(snapshot_taken);
        });
        let replica = uuid(self.context.replica);
        let flushed = self.tracker.call_flush(self.accessor, replica).await.map_err(crashed)?;
        poll_fn(|context| self.accessor.poll_no_interesting_tasks(context)).await;
        self.flush_deadline.0.set(None);
        let left_open = self.accessor.with(|mut access| {
            let state = access.data_mut();
            state.is_flushing = false;
            state.has_open_transaction
        });
        if left_open {
            // The store is dropped, and the drop rolls back the transaction.
            return Err(crashed(wasmtime::Error::msg("it ended its flush with a transaction open")));
        }
        let end = self.context.ledger().flush_ends();
        let flushed = flushed.map(Into::into).map_err(from_component);
        validate_result(end, &flushed, is_due)?;
        flushed
    }
}

/// Makes the component trap if it computes longer than the limit without waiting.
fn limit_computing(store: &mut Store<HostState>, ticks: Ticks, options: &Options) {
    let limit = Ticks::of(options.cpu_limit);
    let text = format!("the component computed for longer than its limit of {:?}", options.cpu_limit);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |context| {
        if ticks.now().saturating_sub(context.data().entered()) > limit {
            return Err(wasmtime::Error::msg(text.clone()));
        }
        Ok(UpdateDeadline::Continue(1))
    });
}

fn not_started(error: wasmtime::Error) -> Error {
    let message = format!("the component cannot be started: {}{}", error.root_cause(), engine::address_space_hint());
    Error::Component { message, source: Some(error.into()) }
}

fn crashed(error: wasmtime::Error) -> Error {
    let message = format!("the component crashed and is replaced by a new instance: {}", error.root_cause());
    Error::Component { message, source: Some(error.into()) }
}

impl From<&Activity> for types::Activity {
    fn from(activity: &Activity) -> Self {
        Self {
            workspace: uuid(activity.workspace),
            owner: uuid(activity.owner),
            allowed: activity.allowed,
            denied: activity.denied,
        }
    }
}

fn uuid(uuid: uuid::Uuid) -> types::Uuid {
    let (high, low) = uuid.as_u64_pair();
    types::Uuid { high, low }
}

impl From<types::Flushed> for Flushed {
    fn from(flushed: types::Flushed) -> Self {
        match flushed {
            types::Flushed::Idle => Self::Idle,
            types::Flushed::Confirmed(flush) => Self::Confirmed { flush },
            types::Flushed::Written(written) => Self::Written { flush: written.flush, new_period: written.new_period },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_of_an_earlier_deadline_is_reset_for_the_current_one() {
        let deadline = FlushDeadline::default();
        let mut timer = pin!(sleep_until(Instant::now()));
        deadline.0.set(Some(Instant::now() + Duration::from_secs(1)));
        assert!(!poll_fn(|context| Poll::Ready(deadline.has_passed(timer.as_mut(), context))).await);
        let later = Instant::now() + Duration::from_secs(2);
        deadline.0.set(Some(later));
        let passed = poll_fn(|context| {
            let passed = deadline.has_passed(timer.as_mut(), context);
            if passed { Poll::Ready(()) } else { Poll::Pending }
        });
        // If the deadline does not wake the task, this timeout does, and the test fails because the time is wrong.
        tokio::time::timeout(Duration::from_secs(60), passed).await.expect("the deadline has passed by then");
        assert_eq!(Instant::now(), later);
    }
}
