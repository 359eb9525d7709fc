//! The component: loaded and compiled once, checked against the contract, instantiated for each tracker.
//!
//! This module is the only one that knows the component runtime. Inside, `engine` and `cache` see to compiled code,
//! `contract` says what a component lacks, `capabilities` are the functions that a component may call, `transaction` is
//! what they act on, `comparison` compares what it writes with the host's own account, and `instance` runs it.

mod bindings;
mod cache;
mod capabilities;
mod comparison;
mod contract;
mod engine;
mod instance;
mod transaction;

use std::path::Path;
use std::sync::{Arc, Mutex};

use uuid::Uuid;
use wasmtime::component::{Component, HasSelf, Linker};

pub use cache::CompileCache;
pub(crate) use capabilities::Grants;
pub use contract::Contract;
pub(crate) use instance::{Calls, Instance};

use self::bindings::TrackerPre;
use self::capabilities::Capabilities;
use self::engine::TickingEngine;
use crate::checkpoint::{self, Found, Keeper};
use crate::database::Database;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::options::Options;
use crate::tracker::Tracker;

static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tracker.wasm"));

static EMBEDDED_BLOCKING: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tracker-blocking.wasm"));

/// The engine and the compiled component, shared by all trackers that are started from it. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    engine: TickingEngine,
    component: TrackerPre<Capabilities>,
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
        bindings::Tracker::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut Capabilities| state)
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

    /// Starts a tracker for this replica on this database, with a thread of its own. No two trackers that run at the
    /// same time may have the same replica id.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] for a nil replica id or options out of range; [`Error::State`] when the state directory
    /// cannot be used, or is in use for this replica; errors of the database.
    pub async fn start(&self, replica: Uuid, database: Database, options: Options) -> Result<Tracker, Error> {
        let grants = grants(replica, database, &options).await?;
        Tracker::start(self.clone(), grants, options).await
    }

    /// Starts a tracker without a thread of its own: the future is all its work, to be run to its end beside the caller's
    /// own work, on one thread (it is not [`Send`]; `tokio::task::LocalSet` is one way). For hosts with a single thread,
    /// and for simulations, which want one order of events.
    ///
    /// While the component computes, for up to [`Options::cpu_limit`], that thread does nothing else; and
    /// [`Tracker::track`] must not be called on it, because it would wait for itself when the intake is full:
    /// [`Tracker::try_track`] is the way. The future ends after a [`shutdown`](Tracker::shutdown), or after the last flush
    /// when all handles are gone. To drop it earlier is to kill the tracker: what was not flushed is lost.
    ///
    /// # Errors
    ///
    /// As [`Plugin::start`].
    pub async fn start_local(
        &self,
        replica: Uuid,
        database: Database,
        options: Options,
    ) -> Result<(Tracker, impl Future<Output = ()> + use<>), Error> {
        let grants = grants(replica, database, &options).await?;
        Tracker::start_local(self.clone(), grants, options).await
    }

    pub(crate) async fn instantiate(&self, grants: Arc<Grants>, options: &Options) -> Result<Instance, Error> {
        Instance::new(&self.engine, &self.component, grants, options).await
    }
}

fn compile(engine: &TickingEngine, bytes: &[u8], cache: &CompileCache) -> Result<Component, Error> {
    cache.compile(&engine.engine, bytes).map_err(|error| Error::Component {
        message: format!("this is not a WebAssembly component that can be compiled{}", engine::address_space_hint()),
        source: Some(error.into()),
    })
}

/// Checks what a tracker is started with, and makes what its instances are granted.
async fn grants(replica: Uuid, database: Database, options: &Options) -> Result<Arc<Grants>, Error> {
    if replica.is_nil() {
        return Err(Error::Configuration {
            message: "the replica id is the nil UUID; every replica has an id of its own".into(),
        });
    }
    options.check()?;
    let hashing_key = database.backend().hashing_key().await?;
    let found = match &options.state_directory {
        Some(directory) => Some(checkpoint::find(directory.clone(), replica, hashing_key, &database).await?),
        None => None,
    };
    let ledger = Ledger::new(hashing_key, found.as_ref().and_then(Found::since));
    let ledger = Arc::new(Mutex::new(ledger));
    let keeper = found.map(|found| Keeper::new(replica, found, ledger.clone(), database.runtime().clone()));
    let keeper = keeper.map(Arc::new);
    if let Some(keeper) = keeper.as_ref().filter(|_| database.is_connected()) {
        keeper.judge(&database).await?;
    }
    let flush_timeout = options.flush_timeout;
    Ok(Arc::new(Grants { replica, database, hashing_key, flush_timeout, ledger, keeper }))
}
