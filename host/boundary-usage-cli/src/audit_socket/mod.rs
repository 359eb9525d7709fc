//! The audit socket: where a boundary client (the real proxy, unchanged) reports its decisions.
//!
//! The first step of *proxy → intake → component → transaction → database*:
//!
//! ```text
//! bytes ──codec──▶ frames ──message──▶ counts ──server──▶ Tracker::track
//! ```
//!
//! - `codec`: where one frame ends and the next begins.
//! - `message`: what a frame says, and which part of it counts.
//! - `group`: who may connect beside our own user.
//! - `listener`: the socket file: private, replaced when stale, removed at the end.
//! - `server`: connections, back-pressure, draining.
//! - `client`: the other end, for the demo and for tests.

mod client;
mod codec;
mod connection;
mod group;
mod listener;
mod message;
mod server;

pub use client::AuditClient;
pub use codec::{Frame, FrameCodec, FrameError, MAX_DATA_BYTES, Tag};
pub use connection::SocketReport;
pub use group::SocketGroup;
pub use listener::SocketFile;
pub use message::{
    BoundaryLog, BoundaryMessage, BoundaryStatus, HttpRequest, MAX_LOGS_PER_BATCH, Message, Received,
    ReportBoundaryLogsRequest, Resource, Timestamp, receive,
};
pub use server::{AuditServer, DrainLimits, Socket, SocketReports};
