//! The component: loaded once, instantiated for each tracker.

use std::path::Path;

use uuid::Uuid;

use crate::database::Database;
use crate::error::Error;
use crate::options::Options;
use crate::tracker::Tracker;

static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tracker.wasm"));

/// The engine and the compiled component, shared by all trackers that are started from it. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {}

impl Plugin {
    /// Compiles the component that this library carries.
    pub fn embedded() -> Result<Self, Error> {
        Self::from_bytes(EMBEDDED)
    }

    /// Compiles a component file.
    pub fn from_file(_path: impl AsRef<Path>) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Compiles a component.
    pub fn from_bytes(_bytes: &[u8]) -> Result<Self, Error> {
        unimplemented!()
    }

    /// The component that this library carries, for other hosts.
    pub fn embedded_bytes() -> &'static [u8] {
        EMBEDDED
    }

    /// Names of the interfaces and functions that the component imports and exports.
    pub fn contract(&self) -> Contract {
        unimplemented!()
    }

    /// Starts a tracker.
    pub async fn start(&self, _replica: Uuid, _database: Database, _options: Options) -> Result<Tracker, Error> {
        unimplemented!()
    }
}

/// What a component imports and exports.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Contract {
    /// Imported interfaces, with the contract's version.
    pub imports: Vec<String>,
    /// Exported functions.
    pub exports: Vec<String>,
}
