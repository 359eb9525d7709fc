//! One living instance of the component, in a store of its own.
//!
//! One task owns the store for good and stays inside one `run_concurrent`: there `flush` waits for the database while
//! `track` is called beside it, on the same instance. A trap ends `run_concurrent` and with it the instance, every call
//! under way included; a new instance is then made from the same compiled component.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

use wasmtime::component::{Accessor, ResourceTable};
use wasmtime::{Store, StoreLimitsBuilder, UpdateDeadline};

use super::bindings::boundary::usage::types;
use super::bindings::{Tracker, TrackerPre};
use super::capabilities::{Capabilities, Grants, from_component};
use super::engine::{TickingEngine, Ticks};
use crate::activity::Activity;
use crate::error::Error;
use crate::options::Options;
use crate::tracker::Flushed;

/// What the component may hand to the host in one call, in bytes: four full sketches and room to spare.
const HOSTCALL_BYTES_MAX: usize = 1 << 20;

/// Handles that the component may hold at once.
const HANDLES_MAX: usize = 8;

/// How long a flush may take, in limits of its database work: that ends by itself, and a component that then still does
/// not end never will.
const FLUSH_LIMITS: u32 = 2;

pub(crate) struct Instance {
    store: Store<Capabilities>,
    tracker: Tracker,
    meter: Meter,
    grants: Arc<Grants>,
    snapshot_taken: watch::Sender<bool>,
    /// When the flush that runs must be over. Watched from outside the store: inside, a component that computes would
    /// keep the watch from being looked at.
    flush_deadline: watch::Sender<Option<Instant>>,
}

/// Tells when the component last began to compute.
#[derive(Clone)]
struct Meter {
    entered: Arc<AtomicU64>,
    ticks: Ticks,
}

impl Meter {
    fn enter(&self) {
        self.entered.store(self.ticks.now(), Ordering::Relaxed);
    }
}

impl Instance {
    pub(super) async fn new(
        engine: &TickingEngine,
        component: &TrackerPre<Capabilities>,
        grants: Arc<Grants>,
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
        let snapshot_taken = watch::Sender::new(false);
        let state = Capabilities {
            limits,
            table,
            grants: grants.clone(),
            left_over: Some(grants.ledger().left_over().into()),
            entered: entered.clone(),
            beginning: None,
            transaction_open: false,
            snapshot_taken: snapshot_taken.clone(),
        };
        let mut store = Store::new(&engine.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        limit_computing(&mut store, engine.ticks.clone(), options);
        let meter = Meter { entered, ticks: engine.ticks.clone() };
        meter.enter();
        let tracker = component.instantiate_async(&mut store).await.map_err(broken)?;
        Ok(Self { store, tracker, meter, grants, snapshot_taken, flush_deadline: watch::Sender::new(None) })
    }

    /// Runs `act` with this instance, until it ends or the component breaks. `act` must be polled for the instance to
    /// make progress. The instance is gone after that, and so is what it held, a transaction for example.
    pub(crate) async fn run<R>(self, act: impl AsyncFnOnce(&Calls<'_>) -> Result<R, Error>) -> Result<R, Error> {
        let Self { mut store, tracker, meter, grants, snapshot_taken, flush_deadline } = self;
        let calls = async |accessor: &Accessor<_>| {
            let (tracker, meter, grants) = (&tracker, &meter, &grants);
            let (snapshot_taken, flush_deadline) = (&snapshot_taken, &flush_deadline);
            act(&Calls { accessor, tracker, meter, grants, snapshot_taken, flush_deadline }).await
        };
        let running = store.run_concurrent(calls);
        let mut running = pin!(running);
        let ran = poll_fn(|context| {
            meter.enter();
            running.as_mut().poll(context)
        });
        tokio::select! {
            // The deadline first: a component that asks for one thing after the other uses up what Tokio lets a task do
            // in one go, and a timer that is polled after that answers that it is not over.
            biased;
            () = passed(flush_deadline.subscribe()) => Err(broken(wasmtime::Error::msg("its flush does not end"))),
            ran = ran => ran.map_err(broken)?,
        }
    }
}

/// Waits until a deadline is set and passes.
async fn passed(mut deadline: watch::Receiver<Option<Instant>>) {
    loop {
        let set = *deadline.borrow_and_update();
        let passes = async {
            match set {
                Some(set) => tokio::time::sleep_until(set).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = passes => return,
            changed = deadline.changed() => changed.expect("the instance that runs holds the sender"),
        }
    }
}

/// The calls into a running instance.
pub(crate) struct Calls<'a> {
    accessor: &'a Accessor<Capabilities>,
    tracker: &'a Tracker,
    meter: &'a Meter,
    grants: &'a Grants,
    snapshot_taken: &'a watch::Sender<bool>,
    flush_deadline: &'a watch::Sender<Option<Instant>>,
}

impl Calls<'_> {
    /// Hands activities to the component. They must be in the ledger.
    pub(crate) async fn track(&self, activities: &[Activity]) -> Result<(), Error> {
        self.meter.enter();
        let activities = activities.iter().map(Into::into).collect();
        self.tracker.call_track(self.accessor, activities).await.map_err(broken)
    }

    /// Has the component flush, and waits for the end of all that it does for that.
    pub(crate) async fn flush(&self) -> Result<Flushed, Error> {
        self.meter.enter();
        self.snapshot_taken.send_replace(false);
        self.flush_deadline.send_replace(Some(Instant::now() + self.grants.flush_timeout * FLUSH_LIMITS));
        // Where there is nothing to flush, no transaction is opened.
        let beginning = self.grants.ledger().has_to_flush().then(|| self.grants.begin());
        self.accessor.with(|mut access| access.data_mut().beginning = beginning);
        let replica = uuid(self.grants.replica);
        let flushed = self.tracker.call_flush(self.accessor, replica).await.map_err(broken)?;
        poll_fn(|context| self.accessor.poll_no_interesting_tasks(context)).await;
        self.flush_deadline.send_replace(None);
        // Of a component that did not begin it.
        self.accessor.with(|mut access| access.data_mut().beginning = None);
        self.grants.ledger().flush_ends();
        flushed.map(Into::into).map_err(from_component)
    }

    /// Waits until the flush that has been called has taken its snapshot. Only then may `track` be called again: so the
    /// ledger and the component draw the line between this flush and the next at the same activity.
    pub(crate) async fn snapshot_taken(&self) {
        let mut taken = self.snapshot_taken.subscribe();
        taken.wait_for(|taken| *taken).await.expect("the instance that runs holds the sender");
    }
}

/// A component that computes for longer than the limit, without waiting for anything, is interrupted with a trap.
fn limit_computing(store: &mut Store<Capabilities>, ticks: Ticks, options: &Options) {
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

fn broken(error: wasmtime::Error) -> Error {
    let message = format!("the component broke, and is replaced by a new instance: {}", error.root_cause());
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
