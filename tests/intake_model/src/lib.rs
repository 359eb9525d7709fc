//! The tracker's intake, word for word, on the model checker's threads instead of the system's.
//!
//! [loom](https://docs.rs/loom) runs a test once for every order in which its threads can meet, and for every value that
//! an atomic number may have by the memory model. It reports a deadlock when no thread can run on: a wake-up that is missing.
//!
//! The intake takes locks, atomic numbers and wake-ups from `crate::threads` alone; this crate has a module of that name of
//! its own, and includes all else from the library.

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
