//! The HTTP server of `serve --listen`, for operators and monitoring.
//!
//! The server is read-only.
//!
//! ```text
//! tracker, sockets ──▶ view ──▶ /metrics, /healthz, /readyz
//! database ───────────▶    └──▶ /status.json, / (the page), /days, /weeks, /months
//! ```
//!
//! | module | duty |
//! | --- | --- |
//! | `tcp_listener` | connections, their limits, and the paths |
//! | `hosts` | the host names that a request may use |
//! | `view` | the current status, and whether the replica is ready |
//! | `metrics` | the status as Prometheus metrics |
//! | `history_reading` | readings of the history, which are reused |
//! | `page`, `history_page` | the status and the history as pages |
//! | `faults`, `navigation`, `plot`, `format` | parts of the pages |
//!
//! Responses contain neither secrets nor the ids of workspaces and users, because every client that reaches the address
//! can read them.

mod faults;
mod format;
mod history_page;
mod history_reading;
mod hosts;
mod metrics;
mod navigation;
mod page;
mod plot;
mod tcp_listener;
mod view;

pub use hosts::{AllowedHosts, parse_host};
pub use tcp_listener::start;
pub use view::{Replica, View};
