//! The engine: how components are compiled, and the ticks by which their computing time is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::{Config, Engine};

use crate::error::Error;

/// How often a computing component is interrupted to look at its time.
const TICK: Duration = Duration::from_millis(10);

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
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.epoch_interruption(true);
        let engine = Engine::new(&config).map_err(|error| Error::Component {
            message: "the WebAssembly engine cannot be set up on this machine".into(),
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
            message: "cannot start the thread that limits the component's computing time".into(),
            source: Some(error.into()),
        })
    }
}
