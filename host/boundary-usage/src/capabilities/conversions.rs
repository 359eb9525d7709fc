//! Conversions between the contract's types and those of this library.

use boundary_usage_tracker::{CompactThetaSketch, InDoubt, Snapshot, Unflushed};
use wasmtime::component::ResourceTableError;

use crate::bindings::boundary::usage::types;
use crate::error::{Error, chain};
use crate::records::{Sketch, StoredUsage, Uniques, UniquesUpdate, Update};

/// The failure of a host function.
#[derive(Debug)]
#[allow(unreachable_pub)] // The generated bindings use this type.
pub enum CallError {
    /// The component receives this error.
    Returned(types::Error),
    /// The component is faulty, so its instance ends.
    Trap(wasmtime::Error),
}

impl CallError {
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::Returned(types::Error::Refused(message.into()))
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Returned(error.into())
    }
}

impl From<ResourceTableError> for CallError {
    fn from(error: ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

impl types::Host for super::HostState {
    fn convert_error(&mut self, error: CallError) -> wasmtime::Result<types::Error> {
        match error {
            CallError::Returned(error) => Ok(error),
            CallError::Trap(error) => Err(error),
        }
    }
}

/// Reduces an error to its kind and one text. [`from_component`] restores the kind.
impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable { action, source } => Self::Unavailable(format!("{action} failed: {}", chain(&*source))),
            Error::Conflict { message } => Self::Conflict(message),
            Error::CommitUnknown { source } => Self::CommitUnknown(chain(&*source)),
            error @ Error::State { .. } => Self::State(chain(&error)),
            Error::Refused { message } => Self::Refused(message),
            other => Self::Refused(chain(&other)),
        }
    }
}

/// Converts an error that a component returned.
pub(crate) fn from_component(error: types::Error) -> Error {
    match error {
        types::Error::Unavailable(text) => Error::Unavailable { action: "the flush", source: text.into() },
        types::Error::Conflict(message) => Error::Conflict { message },
        types::Error::CommitUnknown(text) => Error::CommitUnknown { source: text.into() },
        types::Error::State(message) => Error::State { message, source: None },
        types::Error::Refused(message) => Error::Refused { message },
    }
}

impl From<StoredUsage> for types::StoredUsage {
    fn from(stored: StoredUsage) -> Self {
        Self { last_flush: stored.last_flush, uniques: stored.uniques.map(Into::into) }
    }
}

impl From<Uniques> for types::Uniques {
    fn from(uniques: Uniques) -> Self {
        Self { workspaces: uniques.workspaces.into(), users: uniques.users.into() }
    }
}

impl From<types::Update> for Update {
    fn from(update: types::Update) -> Self {
        let uniques = match update.uniques {
            types::UniquesUpdate::Delta(uniques) => UniquesUpdate::Delta(uniques.into()),
            types::UniquesUpdate::Cumulative(uniques) => UniquesUpdate::Cumulative(uniques.into()),
            types::UniquesUpdate::Unchanged => UniquesUpdate::Unchanged,
        };
        Self { flush: update.flush, uniques, allowed: update.allowed, denied: update.denied }
    }
}

impl From<types::Uniques> for Uniques {
    fn from(uniques: types::Uniques) -> Self {
        Self { workspaces: uniques.workspaces.into(), users: uniques.users.into() }
    }
}

impl From<types::Sketch> for Sketch {
    fn from(sketch: types::Sketch) -> Self {
        Self { count: sketch.count, bytes: sketch.bytes }
    }
}

impl From<Sketch> for types::Sketch {
    fn from(sketch: Sketch) -> Self {
        Self { count: sketch.count, bytes: sketch.bytes }
    }
}

impl From<&Unflushed> for types::Unflushed {
    fn from(unflushed: &Unflushed) -> Self {
        Self { delta: unflushed.delta.as_ref().map(Into::into), in_doubt: unflushed.in_doubt.as_ref().map(Into::into) }
    }
}

impl From<&InDoubt> for types::InDoubt {
    fn from(in_doubt: &InDoubt) -> Self {
        Self { flush: in_doubt.flush, snapshot: (&in_doubt.snapshot).into() }
    }
}

impl From<&Snapshot> for types::Snapshot {
    fn from(snapshot: &Snapshot) -> Self {
        let uniques = &snapshot.uniques;
        Self {
            uniques: types::Uniques { workspaces: (&uniques.workspaces).into(), users: (&uniques.users).into() },
            allowed: snapshot.allowed,
            denied: snapshot.denied,
        }
    }
}

impl From<&CompactThetaSketch> for types::Sketch {
    fn from(sketch: &CompactThetaSketch) -> Self {
        Self { count: sketch.count(), bytes: sketch.to_bytes() }
    }
}
