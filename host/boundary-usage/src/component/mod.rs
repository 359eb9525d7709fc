//! The component: loaded and compiled once, checked against the contract, instantiated for each tracker.
//!
//! This module is the only one that knows the component runtime. Inside, `engine` and `cache` see to compiled code,
//! `contract` says what a component lacks, `capabilities` are the functions that a component may call, `transaction` is
//! what they act on, `comparison` compares what it writes with the host's own account, and `instance` runs it.

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

/// The engine and the compiled component, shared by all trackers that are started from it. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    engine: TickingEngine,
    component: TrackerPre<HostState>,
    contract: Contract,
}

impl Plugin {
    /// Compiles the component that this library carries, or loads what an earlier process has compiled:
    /// [`CompileCache::User`].
    ///
    /// # Errors
    ///
    /// When the machine does not let WebAssembly run.
    pub fn embedded() -> Result<Self, Error> {
        Self::from_bytes(EMBEDDED)
    }

    /// Compiles a component file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, and as [`Plugin::from_bytes`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| Error::Component {
            message: format!("cannot read the component {}", path.display()),
            source: Some(error.into()),
        })?;
        Self::from_bytes(&bytes)
    }

    /// Compiles a component, with the user's cache.
    ///
    /// # Errors
    ///
    /// [`Error::Component`] when the bytes are not a component, or one of another contract: the message says what it
    /// lacks, or what it asks for that this host does not have.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::with_cache(bytes, &CompileCache::User)
    }

    /// Compiles a component, with this cache.
    ///
    /// # Errors
    ///
    /// As [`Plugin::from_bytes`]. A cache that cannot be used is no error.
    pub fn with_cache(bytes: &[u8], cache: &CompileCache) -> Result<Self, Error> {
        let engine = TickingEngine::new()?;
        let component = compile(&engine, bytes, cache)?;
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

    /// The component that this library carries, as a file for other hosts.
    pub fn embedded_bytes() -> &'static [u8] {
        EMBEDDED
    }

    /// The same tracker for hosts whose runtime knows no `async func`, as a file for them: the world
    /// `tracker-blocking`. This library loads the other one.
    pub fn embedded_blocking_bytes() -> &'static [u8] {
        EMBEDDED_BLOCKING
    }

    /// What a component imports and exports, whichever world it is of.
    ///
    /// # Errors
    ///
    /// [`Error::Component`] when the bytes are not a component.
    pub fn contract_of(bytes: &[u8]) -> Result<Contract, Error> {
        let engine = TickingEngine::new()?;
        let component = compile(&engine, bytes, &CompileCache::User)?;
        Ok(Contract::of(&engine.engine, &component))
    }

    /// What the component imports and exports.
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
