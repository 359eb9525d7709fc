//! The tracker's intake with the threads of a model checker instead of the system's threads.
//!
//! [loom](https://docs.rs/loom) runs a test once for each interleaving of its threads, and for each value that an
//! atomic variable may have in the memory model. If a wake-up is missing and no thread can continue, it reports a
//! deadlock.
//!
//! The intake uses locks, atomic variables and wake-ups only through `crate::threads`. This crate has another module of
//! that name, and includes all other modules from the library.

#![forbid(unsafe_code)]

#[path = "../../../host/boundary-usage/src/activity.rs"]
#[allow(dead_code)]
mod activity;
mod error;
#[path = "../../../host/boundary-usage/src/intake/mod.rs"]
#[allow(dead_code)]
mod intake;
pub mod model;
mod threads;

pub use activity::Activity;
pub use error::TrackError;
