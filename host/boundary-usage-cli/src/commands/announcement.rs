//! The announcement of `serve` that clients can connect.

use std::sync::Once;

use crate::audit_socket::Socket;
use crate::output;

/// The message that clients can connect.
///
/// The message does not depend on the log level, because supervisors wait for it.
pub(super) struct Announcement {
    once: Once,
    sockets: Vec<Socket>,
}

impl Announcement {
    pub(super) fn of(sockets: &[Socket]) -> Self {
        Self { once: Once::new(), sockets: sockets.to_vec() }
    }

    /// Prints the message, once.
    pub(super) fn print(&self) {
        self.once.call_once(|| {
            for socket in &self.sockets {
                output::print_error(&format!("listening on {}", socket.path.display()));
            }
        });
    }
}
