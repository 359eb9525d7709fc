//! The limit of file descriptors, and how it is divided.
//!
//! Each socket and each connected client needs one descriptor. Many systems start processes with a soft limit of 1,024,
//! which a process may raise.

use anyhow::{Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors for the database, files and the runtime.
const BASE: usize = 64;

/// The limit of clients over all audit sockets. Each client uses at most 50 KiB.
const AUDIT_CLIENTS: usize = 16_384;

/// The limit of HTTP clients.
const HTTP_CLIENTS: usize = 256;

/// Raises the soft limit to the hard limit, and checks that it is high enough.
///
/// # Errors
///
/// Returns an error if the hard limit is too low for this number of sockets.
pub fn prepare(sockets: usize) -> Result<()> {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!(soft, hard, %error, "cannot raise the limit of file descriptors");
    }
    let (limit, needed) = (limit(), sockets + BASE);
    let noun = if sockets == 1 { "socket needs" } else { "sockets need" };
    if limit < needed {
        bail!(
            "{sockets} {noun} at least {needed} file descriptors and one more for each client, but the limit of this \
             process is {limit}; raise it with `ulimit -n {}`, or LimitNOFILE={} in the systemd unit",
            2 * needed,
            2 * needed
        );
    }
    let clients = limit - needed;
    if clients < sockets {
        warn!(limit, sockets, clients, "few file descriptors remain for clients; raise `ulimit -n` or LimitNOFILE");
    }
    Ok(())
}

/// Returns the number of clients that all audit sockets together may serve simultaneously.
pub(crate) fn audit_clients(sockets: usize) -> usize {
    let free = limit().saturating_sub(sockets + BASE);
    (free - free / 4).clamp(8, AUDIT_CLIENTS)
}

/// Returns the number of HTTP clients that may be served simultaneously.
pub(crate) fn http_clients() -> usize {
    (limit().saturating_sub(BASE) / 4).clamp(8, HTTP_CLIENTS)
}

/// Returns the soft limit of this process.
fn limit() -> usize {
    // Every system has this limit. The fallback is the minimum that POSIX guarantees.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(20, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}
