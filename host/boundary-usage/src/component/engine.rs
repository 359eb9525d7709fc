//! The engine, which compiles components, and the ticks that measure their computing time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use wasmtime::{Config, Engine};

use crate::error::Error;

/// The time between checks of a component's computing time.
const TICK: Duration = Duration::from_millis(10);

/// The address space limit, in bytes, below which the runtime makes no reservations.
///
/// By default the runtime reserves 4 GiB of address space per instance, so compiled code needs no bounds checks. A
/// reservation uses no physical memory.
const RESERVATIONS_BYTES: u64 = 64 << 30;

/// The reservation for the growth of a memory if address space is limited, in bytes.
const GROWTH_BYTES: u64 = 1 << 20;

/// The guard behind a memory if address space is limited, in bytes.
const GUARD_BYTES: u64 = 64 << 10;

/// The address space that the program needs to compile the component, in MiB.
///
/// The number is the measured value and a reserve.
const ADDRESS_SPACE_NEEDED_MIB: u64 = 512;

/// The address space limit, in bytes, below which the engine is not created.
const ADDRESS_SPACE_MIN_BYTES: u64 = 96 << 20;

/// Returns the limit of this process's address space in bytes, as set by `ulimit -v`.
fn address_space_limit() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// Returns a hint for errors that a limited address space may cause. The hint is empty if there is no limit.
pub(super) fn address_space_hint() -> String {
    let hint = |limit| {
        format!(
            " (the address space of this process is limited to {} MiB by `ulimit -v`; it needs about {} MiB)",
            limit >> 20,
            ADDRESS_SPACE_NEEDED_MIB
        )
    };
    address_space_limit().map(hint).unwrap_or_default()
}

/// An engine and a thread that counts its ticks. The last clone ends the thread and waits for it.
#[derive(Clone)]
pub(super) struct TickingEngine {
    pub(super) engine: Engine,
    pub(super) ticks: Ticks,
    _thread: Arc<TickingThread>,
}

/// The ticking thread, which ends when this is dropped.
///
/// A thread that outlives its tracker would still execute code of a library that a process unloads.
struct TickingThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for TickingThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread only adds and waits, so it has not panicked.
            let _ = thread.join();
        }
    }
}

/// The ticks since the creation of the engine.
#[derive(Clone, Default)]
pub(super) struct Ticks(Arc<AtomicU64>);

impl Ticks {
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Converts a duration to ticks, at least one.
    pub(super) fn of(duration: Duration) -> u64 {
        u64::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl TickingEngine {
    /// Creates an engine, which may install handlers of process signals.
    pub(super) fn new(signal_handlers: bool) -> Result<Self, Error> {
        if address_space_limit().is_some_and(|limit| limit < ADDRESS_SPACE_MIN_BYTES) {
            // Without this check, the runtime would panic because it cannot start a thread.
            let message = format!("there is too little address space{}", address_space_hint());
            return Err(Error::Component { message, source: None });
        }
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.epoch_interruption(true);
        config.signals_based_traps(signal_handlers);
        if address_space_limit().is_some_and(|limit| limit < RESERVATIONS_BYTES) {
            // Without reservations, compiled code checks bounds, and a memory may move when it grows.
            config.memory_reservation(0).memory_reservation_for_growth(GROWTH_BYTES).memory_guard_size(GUARD_BYTES);
        }
        let engine = Engine::new(&config).map_err(|error| Error::Component {
            message: format!("the WebAssembly engine cannot be set up on this machine{}", address_space_hint()),
            source: Some(error.into()),
        })?;
        let ticks = Ticks::default();
        let thread = TickingThread::start(&engine, &ticks)?;
        Ok(Self { engine, ticks, _thread: Arc::new(thread) })
    }
}

impl TickingThread {
    /// Starts the ticking thread.
    ///
    /// A timer of an async runtime could not count the ticks, because a component that computes forever would block it.
    fn start(engine: &Engine, ticks: &Ticks) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let (engine, ticks, stopped) = (engine.clone(), ticks.clone(), stop.clone());
        let tick = move || {
            while !stopped.load(Ordering::Relaxed) {
                ticks.0.fetch_add(1, Ordering::Relaxed);
                engine.increment_epoch();
                std::thread::park_timeout(TICK);
            }
        };
        let thread = std::thread::Builder::new().name("boundary-usage-ticks".into()).spawn(tick);
        let thread = thread.map_err(|error| Error::Component {
            message: format!(
                "cannot start the thread that limits the component's computing time{}",
                address_space_hint()
            ),
            source: Some(error.into()),
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}
