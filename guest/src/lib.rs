//! The usage tracker: what is counted, when it is written, and how nothing counts twice.
//!
//! This crate is the middle of the flow *proxy → intake → **component** → transaction → database*. The rules are plain
//! Rust without bindings and without I/O, and their tests run natively. The module `component` is compiled for
//! WebAssembly only. The feature `tracker` exports the rules as the world `tracker`. The feature `tracker-blocking`
//! exports the rules as the world `tracker-blocking`, for hosts without `async func`.
//!
//! | file | duty |
//! | --- | --- |
//! | `tracker.rs` | starts and ends flushes (R2, R3), keeps the activity of failed ones (D2), bounds memory (R6) |
//! | `recording.rs` | counts what `track` receives (R1) |
//! | `snapshot.rs` | holds what one flush carries, with request counts that saturate |
//! | `flush.rs` | decides what to write (R5, D1) and whether a lost commit was applied (D3) |
//! | `sketch/` | counts unique ids: keyed, mergeable, bounded (D1, D4); the collection uses it too |
//! | `component.rs` | runs one transaction in its order (R4) and converts WIT types |
//! | `component/` | adapts the two worlds, lets tests replace steps (`hooks.rs`), and replaces the standard library |

#![deny(unsafe_code)]
// The component is built without the standard library. Hosts and tests link this crate with the standard library.
#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

mod flush;
mod recording;
mod sketch;
mod snapshot;
mod tracker;

#[cfg(target_family = "wasm")]
pub mod component;

pub use flush::{Flush, InDoubt, Outcome, Plan, StoredUniques, StoredUsage, Unflushed, UniquesUpdate, Update};
pub use recording::Activity;
pub use sketch::{CompactThetaSketch, HashingKey, SKETCH_BYTES_MAX, SketchError, ThetaSketch};
pub use snapshot::{REQUESTS_MAX, Snapshot, Uniques, saturating_requests};
pub use tracker::{AlreadyFlushing, Tracker};
