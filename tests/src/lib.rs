//! Support for the integration tests, such as databases, proxies and a simulation.

#![forbid(unsafe_code)]

pub mod browser;
pub mod child;
pub mod databases;
pub mod expected_usage;
pub mod faults;
pub mod fuzzing;
pub mod loopback;
pub mod model_database;
pub mod pgbouncer;
pub mod postgres_proxy;
pub mod postgres_server;
pub mod receiver;
pub mod restartable_postgres;
pub mod scenario;
pub mod simulation;
pub mod usage;

use std::sync::OnceLock;
use std::time::Duration;

use boundary_usage::{Error, Flushed, Plugin, Tracker};
pub use boundary_usage_misbehaving::Cue;
use uuid::Uuid;

/// Returns the embedded component, compiled once for all tests of a process.
pub fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| Plugin::embedded().expect("the embedded component can be compiled"))
}

/// The path of the misbehaving component.
pub const MISBEHAVING_COMPONENT: &str = concat!(env!("OUT_DIR"), "/misbehaving.wasm");

/// Returns the misbehaving component, compiled once for all tests of a process.
pub fn misbehaving_plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/misbehaving.wasm"));
    PLUGIN.get_or_init(|| Plugin::from_bytes(bytes).expect("the misbehaving component can be compiled"))
}

/// Returns the workspace whose activity is a cue for [`misbehaving_plugin`].
pub fn workspace_of(cue: Cue) -> Uuid {
    Uuid::from_u128(cue.workspace())
}

/// Flushes until a flush succeeds. A flush fails if the component crashes during it.
///
/// # Panics
///
/// Panics if a flush fails for another reason.
pub async fn flush_to_success(tracker: &Tracker) -> Flushed {
    loop {
        match tracker.flush().await {
            Ok(flushed) => return flushed,
            Err(Error::Component { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Polls a condition until it is true.
///
/// It is for conditions that cannot wake a waiting task.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Converts a component from the text format to the binary format.
pub fn component_from_wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("a test's component is well-formed")
}
