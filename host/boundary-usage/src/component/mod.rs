//! The component: compiled once, checked against the contract, and instantiated for each tracker.
//!
//! Only this module, `capabilities` and `bindings` use the component runtime.
//!
//! | file | duty |
//! | --- | --- |
//! | `engine.rs` | configures the runtime and measures computing time |
//! | `compile_cache.rs` | stores compiled components on disk |
//! | `contract.rs` | lists the imports and exports of a component and checks them |
//! | `instance.rs` | runs an instance within its limits |

mod compile_cache;
mod contract;
mod engine;
mod instance;

use std::path::Path;
use std::sync::Arc;

use wasmtime::component::{Component, HasSelf, Linker};

pub use compile_cache::CompileCache;
pub use contract::Contract;
pub(crate) use instance::{Instance, InstanceHandle};

use self::engine::TickingEngine;
use crate::bindings::{self, TrackerPre};
use crate::capabilities::{HostState, ReplicaContext};
use crate::error::Error;
use crate::options::Options;

static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tracker.wasm"));

static EMBEDDED_BLOCKING: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tracker-blocking.wasm"));

/// The options of a compilation. `CompileOptions::default()` suits a program in Rust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileOptions {
    /// The place of the compile cache. Default: [`CompileCache::User`].
    pub cache: CompileCache,
    /// Whether the component runtime may install handlers of process signals such as SIGSEGV. Default: true.
    ///
    /// Without them, compiled code checks the bounds of memory itself, and is slower. A library in a foreign process
    /// must not install any.
    pub signal_handlers: bool,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self { cache: CompileCache::User, signal_handlers: true }
    }
}

/// A compiled component, from which trackers are started. Clones are cheap.
#[derive(Clone)]
pub struct Plugin {
    engine: TickingEngine,
    component: TrackerPre<HostState>,
    contract: Contract,
}

impl Plugin {
    /// Compiles the embedded component, or loads it from [`CompileCache::User`].
    ///
    /// # Errors
    ///
    /// - [`Error::Component`] if WebAssembly cannot run on this machine.
    pub fn embedded() -> Result<Self, Error> {
        Self::from_bytes(EMBEDDED)
    }

    /// Compiles a component file.
    ///
    /// # Errors
    ///
    /// - [`Error::Component`] if the file cannot be read.
    /// - Those of [`Plugin::from_bytes`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| Error::Component {
            message: format!("cannot read the component {}", path.display()),
            source: Some(error.into()),
        })?;
        Self::from_bytes(&bytes)
    }

    /// Compiles a component, or loads it from [`CompileCache::User`].
    ///
    /// # Errors
    ///
    /// - [`Error::Component`] if the bytes are not a component, or if it does not fulfil the contract.
    ///   The message lists missing exports and unknown imports.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::with_options(bytes, &CompileOptions::default())
    }

    /// Compiles a component with options. An unusable cache is ignored.
    ///
    /// # Errors
    ///
    /// - Those of [`Plugin::from_bytes`].
    pub fn with_options(bytes: &[u8], options: &CompileOptions) -> Result<Self, Error> {
        let engine = TickingEngine::new(options.signal_handlers)?;
        let component = compile(&engine, bytes, &options.cache)?;
        let contract = Contract::of(&engine.engine, &component);
        contract.check()?;
        let mut linker = Linker::new(&engine.engine);
        let mismatch = |error: wasmtime::Error| Error::Component {
            message: format!("the component's types are not those of the contract {}", contract::PACKAGE),
            source: Some(error.into()),
        };
        bindings::Tracker::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut HostState| state)
            .map_err(mismatch)?;
        let component = linker.instantiate_pre(&component).and_then(TrackerPre::new).map_err(mismatch)?;
        Ok(Self { engine, component, contract })
    }

    /// Returns the embedded component, for other hosts.
    pub fn embedded_bytes() -> &'static [u8] {
        EMBEDDED
    }

    /// Returns the tracker as a component of the world `tracker-blocking`.
    ///
    /// This world is for hosts whose runtime does not support `async func`. This library cannot load such a component.
    pub fn embedded_blocking_bytes() -> &'static [u8] {
        EMBEDDED_BLOCKING
    }

    /// Returns the imports and exports of any component.
    ///
    /// # Errors
    ///
    /// - [`Error::Component`] if the bytes are not a component.
    pub fn contract_of(bytes: &[u8]) -> Result<Contract, Error> {
        let engine = TickingEngine::new(true)?;
        let component = compile(&engine, bytes, &CompileCache::User)?;
        Ok(Contract::of(&engine.engine, &component))
    }

    /// Returns the imports and exports of this component.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    pub(crate) async fn instantiate(&self, context: Arc<ReplicaContext>, options: &Options) -> Result<Instance, Error> {
        Instance::new(&self.engine, &self.component, context, options).await
    }
}

fn compile(engine: &TickingEngine, bytes: &[u8], cache: &CompileCache) -> Result<Component, Error> {
    cache.compile(&engine.engine, bytes).map_err(|error| Error::Component {
        message: format!("this is not a WebAssembly component that can be compiled{}", engine::address_space_hint()),
        source: Some(error.into()),
    })
}
