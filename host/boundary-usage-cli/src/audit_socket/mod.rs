//! The audit socket: where a boundary client (the real proxy, unchanged) reports its decisions.
//!
//! The first step of *proxy → intake → component → transaction → database*:
//!
//! ```text
//! bytes ──codec──▶ frames ──decode──▶ counts ──connection──▶ Tracker::track
//! ```
//!
//! - `codec`: where one frame ends and the next begins.
//! - `decode`: what a frame contains, and which part of it counts; `wire`: the fields of its message.
//! - `message`: the same messages, as the client encodes them.
//! - `connection`: one client: reading, back-pressure, an end that loses nothing.
//! - `acceptor`: one socket: its clients, and the file by which they find it.
//! - `server`: all sockets, and their stop.
//! - `report`: what came in, and the log lines about it.
//! - `listener`: the listening socket and its file; `place`: how the file gets its place and its permissions.
//! - `activation`: sockets that a supervisor passed; `group`: who may connect beside our own user.
//! - `client`: the other end, for the demo and for tests.

mod acceptor;
mod activation;
mod client;
mod codec;
mod connection;
mod decode;
mod group;
mod listener;
mod message;
mod place;
mod report;
mod server;
mod wire;

pub use client::AuditClient;
pub use codec::{Frame, FrameCodec, FrameError, MAX_DATA_BYTES, Tag};
pub use decode::{MAX_LOGS_PER_BATCH, Received, receive};
pub use group::SocketGroup;
pub use listener::SocketFile;
pub use message::{
    BoundaryLog, BoundaryMessage, BoundaryStatus, HttpRequest, Message, ReportBoundaryLogsRequest, Resource, Timestamp,
};
pub use report::SocketReport;
pub use server::{AuditServer, BoundSockets, DrainLimits, Socket, SocketReports};
pub use wire::DecodeError;
