//! The engine: how components are compiled, and the ticks by which their computing time is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use wasmtime::{Config, Engine};

use crate::error::Error;

/// How often a computing component is interrupted to look at its time.
const TICK: Duration = Duration::from_millis(10);

/// By default the runtime reserves 4 GiB of address space for each instance's memory, which makes bounds checks needless. It
/// takes none of the machine's memory. Below this limit of the address space, in bytes, there is no room for that.
const RESERVATIONS_BYTES: u64 = 64 << 30;

/// What is reserved for a memory that grows, where there is little address space, in bytes.
const GROWTH_BYTES: u64 = 1 << 20;

/// The guard behind a memory, where there is little address space, in bytes.
const GUARD_BYTES: u64 = 64 << 10;

/// With how little address space the program starts and compiles the component, in MiB: measured, with room to spare.
const ADDRESS_SPACE_NEEDED_MIB: u64 = 512;

/// With less than this, the component is not even tried, in bytes.
const ADDRESS_SPACE_MIN_BYTES: u64 = 96 << 20;

/// The limit of this process's address space in bytes, as `ulimit -v` sets it.
fn address_space_limit() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// What to do if something fails for want of memory. Empty if the address space is not limited.
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

/// One engine, and the thread that counts its ticks for as long as the engine is in use.
#[derive(Clone)]
pub(super) struct TickingEngine {
    pub(super) engine: Engine,
    pub(super) ticks: Ticks,
}

/// Ticks since the engine was made.
#[derive(Clone, Default)]
pub(super) struct Ticks(Arc<AtomicU64>);

impl Ticks {
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// How many ticks a duration lasts, at least one.
    pub(super) fn of(duration: Duration) -> u64 {
        u64::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl TickingEngine {
    pub(super) fn new() -> Result<Self, Error> {
        if address_space_limit().is_some_and(|limit| limit < ADDRESS_SPACE_MIN_BYTES) {
            // Further on, a thread that cannot be started would be a panic.
            let message = format!("there is too little address space{}", address_space_hint());
            return Err(Error::Component { message, source: None });
        }
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.epoch_interruption(true);
        if address_space_limit().is_some_and(|limit| limit < RESERVATIONS_BYTES) {
            // Bounds are then checked by the compiled code, and a memory that grows may be moved.
            config.memory_reservation(0).memory_reservation_for_growth(GROWTH_BYTES).memory_guard_size(GUARD_BYTES);
        }
        let engine = Engine::new(&config).map_err(|error| Error::Component {
            message: format!("the WebAssembly engine cannot be set up on this machine{}", address_space_hint()),
            source: Some(error.into()),
        })?;
        let ticking = Self { engine, ticks: Ticks::default() };
        ticking.start()?;
        Ok(ticking)
    }

    /// An operating system thread, because a component that computes for ever would stop an async runtime's timers.
    fn start(&self) -> Result<(), Error> {
        let engine = self.engine.weak();
        let ticks = self.ticks.clone();
        let tick = move || {
            while let Some(engine) = engine.upgrade() {
                ticks.0.fetch_add(1, Ordering::Relaxed);
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        };
        let thread = std::thread::Builder::new().name("boundary-usage-ticks".into()).spawn(tick);
        thread.map(drop).map_err(|error| Error::Component {
            message: format!(
                "cannot start the thread that limits the component's computing time{}",
                address_space_hint()
            ),
            source: Some(error.into()),
        })
    }
}
