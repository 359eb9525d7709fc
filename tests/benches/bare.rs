//! The component without the library, to measure the cost of a call into it and its memory.
//!
//! `track` needs only the imports that an instance uses at its start. All other imports trap.

use boundary_usage::Plugin;
use wasmtime::component::{Component, ComponentType, InstancePre, Lift, Linker, Lower, TypedFunc, Val};
use wasmtime::{Config, Engine, ResourceLimiter, Result, Store};

use crate::inputs::Input;

#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(record)]
pub(crate) struct Id {
    high: u64,
    low: u64,
}

#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(record)]
pub(crate) struct Activity {
    workspace: Id,
    owner: Id,
    allowed: u64,
    denied: u64,
}

impl Activity {
    pub(crate) fn of(input: Input, number: u64) -> Self {
        let (workspace, owner) = input.ids(number);
        let id = |uuid: uuid::Uuid| {
            let (high, low) = uuid.as_u64_pair();
            Id { high, low }
        };
        Self { workspace: id(workspace), owner: id(owner), allowed: 1, denied: 0 }
    }
}

/// Records the largest size of the memory.
#[derive(Default)]
struct Memory {
    bytes: usize,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.bytes = self.bytes.max(desired);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }
}

/// A compiled component, ready to be instantiated.
pub(crate) struct Bare {
    engine: Engine,
    component: InstancePre<Memory>,
}

/// An instance of the component.
pub(crate) struct Instance {
    store: Store<Memory>,
    track: TypedFunc<(Vec<Activity>,), ()>,
}

impl Bare {
    /// Compiles the component with the engine settings of the library.
    pub(crate) fn compile() -> Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.epoch_interruption(true);
        let engine = Engine::new(&config)?;
        let component = Component::from_binary(&engine, Plugin::embedded_bytes())?;
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&component)?;
        linker.allow_shadowing(true);
        let mut transactions = linker.instance("boundary:usage/transactions@0.1.0")?;
        transactions.func_wrap("hashing-key", |_, (): ()| Ok(((1_u64, 2_u64),)))?;
        transactions.func_new("restore", |_, _, _, results| {
            let nothing = |name: &str| (name.to_owned(), Val::Option(None));
            results[0] = Val::Record(vec![nothing("delta"), nothing("in-doubt")]);
            Ok(())
        })?;
        let component = linker.instantiate_pre(&component)?;
        Ok(Self { engine, component })
    }

    pub(crate) async fn instantiate(&self) -> Result<Instance> {
        let mut store = Store::new(&self.engine, Memory::default());
        store.limiter(|memory| memory);
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = self.component.instantiate_async(&mut store).await?;
        let track = instance.get_typed_func(&mut store, "track")?;
        Ok(Instance { store, track })
    }
}

impl Instance {
    pub(crate) async fn track(&mut self, activities: Vec<Activity>) -> Result<()> {
        self.track.call_async(&mut self.store, (activities,)).await
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().bytes
    }
}

/// Converts an error of the runtime into one of the benchmark.
pub(crate) fn runtime_error(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("the bare component: {error:?}")
}
