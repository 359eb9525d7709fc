//! HTTP for operators and their monitoring: what `serve --listen` answers. Nothing can be changed through it.
//!
//! ```text
//! tracker, sockets ──▶ view ──▶ /metrics, /healthz, /readyz
//! database ───────────▶    └──▶ /status.json, / (the page)
//! ```
//!
//! - `listener`: connections, and what limits them; `hosts` says which names of this machine a request may use.
//! - `view`: what is known at this moment, and whether the replica is ready.
//! - `metrics`: the same for Prometheus; every metric's name and help.
//! - `page`: the same for people; `faults` says what is wrong, `plot` draws past periods, `format` writes numbers and times.
//!
//! No answer holds a secret or the id of a workspace or user: whoever reaches the address may read it.

mod faults;
mod format;
mod hosts;
mod metrics;
mod page;
mod plot;
mod tcp_listener;
mod view;

pub use hosts::{AllowedHosts, parse_host};
pub use tcp_listener::start;
pub use view::{Replica, View};
