//! The usage tracker: what is counted, when it is written, and how nothing counts twice.
//!
//! This crate is the middle of the flow *proxy → intake → **component** → transaction → database*. Its rules are plain
//! Rust without bindings and without I/O, tested natively; [`component`](self) glue, compiled for WebAssembly only,
//! exports them as the world `boundary:usage/tracker`, or as `tracker-blocking` for hosts without `async func`.
//!
//! | file | keeps |
//! | --- | --- |
//! | `tracker.rs` | when a flush takes what was recorded (R2, R3), the put-back (D2), bounded memory (R6) |
//! | `recording.rs` | what `track` counts (R1) |
//! | `snapshot.rs` | what one flush carries; request counts that saturate |
//! | `flush.rs` | the decisions of a flush: what to write (R5, D1), and whether a lost commit was applied (D3) |
//! | `sketch/` | the unique set: keyed, mergeable, bounded (D1, D4); also used by the collection |
//! | `component.rs` | the order of one transaction (R4), WIT types to ours and back |
//! | `component/` | what differs between the two worlds: how a call waits; what stands in for a standard library |

#![deny(unsafe_code)]
// The component does without the standard library; hosts and tests link the crate as any other.
#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

mod flush;
mod recording;
mod sketch;
mod snapshot;
mod tracker;

#[cfg(target_family = "wasm")]
mod component;
#[cfg(all(target_family = "wasm", feature = "misbehaving"))]
mod misbehaving;
#[cfg(all(target_family = "wasm", feature = "misbehaving"))]
mod mutations;

pub use flush::{Flush, InDoubt, LeftOver, Outcome, Plan, Stored, StoredUniques, UniquesUpdate, Update};
pub use recording::Activity;
pub use sketch::{HashingKey, SKETCH_BYTES_MAX, SketchError, UniqueSet, UniqueSketch};
pub use snapshot::{REQUESTS_MAX, Snapshot, Uniques, saturating_requests};
pub use tracker::{AlreadyFlushing, Tracker};
