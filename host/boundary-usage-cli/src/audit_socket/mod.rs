//! The audit socket, to which an unchanged boundary client reports its decisions.
//!
//! ```text
//! bytes ──codec──▶ frames ──decode──▶ counts ──connection──▶ Tracker::track
//! ```
//!
//! | module | duty |
//! | --- | --- |
//! | `codec` | splits the byte stream into frames |
//! | `decode`, `wire` | decode a frame, and decide what it counts |
//! | `message` | the same messages, for encoding |
//! | `connection` | one client: reading, back-pressure, and an end without loss |
//! | `acceptor` | one socket: accepts clients, and restores the socket's file |
//! | `server` | all sockets, their reload, and their stop |
//! | `report`, `reports` | the counts of a socket, and its log lines; the counts of all sockets |
//! | `listener`, `place` | the listening socket; the creation of its file |
//! | `activation` | sockets that a supervisor passes to the process |
//! | `group` | the group whose members may connect |
//! | `client` | a client, for the demo and for tests |

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
mod reports;
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
pub use reports::SocketReports;
pub use server::{AuditServer, BoundSockets, DrainLimits, Socket, SocketChanges};
pub use wire::DecodeError;
