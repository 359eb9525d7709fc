//! The errors of the library. The intake uses only [`TrackError`].

#[path = "../../../host/boundary-usage/src/error.rs"]
#[allow(dead_code)]
mod library;

pub use library::TrackError;
