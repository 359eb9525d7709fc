//! The equipment of the integration tests.

#![forbid(unsafe_code)]

pub mod accounts;
pub mod browser;
pub mod child;
pub mod databases;
pub mod faults;
pub mod fuzzing;
pub mod loopback;
pub mod model_database;
pub mod postgres_proxy;
pub mod postgres_server;
pub mod receiver;
pub mod restartable_postgres;
pub mod scenario;
pub mod simulation;
pub mod usage;

use std::sync::OnceLock;
use std::time::Duration;

use boundary_usage::Plugin;
use uuid::Uuid;

/// The embedded component, compiled once for all tests of a process.
pub fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| Plugin::embedded().expect("the embedded component can be compiled"))
}

/// The file of the component that misbehaves on cue.
pub const MISBEHAVING_COMPONENT: &str = concat!(env!("OUT_DIR"), "/misbehaving.wasm");

/// The component that misbehaves on cue, compiled once for all tests of a process.
pub fn misbehaving_plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/misbehaving.wasm"));
    PLUGIN.get_or_init(|| Plugin::from_bytes(bytes).expect("the component that misbehaves can be compiled"))
}

/// The workspace that is a cue for [`misbehaving_plugin`]; `guest/src/misbehaving.rs` says for what.
pub fn cue(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x6d69_7362_6568_6176, number)
}

/// Waits for a condition that nothing announces.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A component in the text format, as bytes.
pub fn component_from_wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("a test's component is well-formed")
}
