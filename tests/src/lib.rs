//! The equipment of the integration tests.

#![forbid(unsafe_code)]

pub mod faults;
pub mod model_database;
pub mod scenario;

use std::sync::OnceLock;

use boundary_usage::Plugin;

/// The embedded component, compiled once for all tests of a process.
pub fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| Plugin::embedded().expect("the embedded component can be compiled"))
}

/// A component in the text format, as bytes.
pub fn component_from_wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("a test's component is well-formed")
}
