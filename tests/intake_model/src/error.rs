//! The library's errors, of which the intake has one.

#[path = "../../../host/boundary-usage/src/error.rs"]
#[allow(dead_code)]
mod library;

pub use library::TrackError;
