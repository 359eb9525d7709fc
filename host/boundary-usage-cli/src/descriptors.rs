//! File descriptors: how many this process may open, and how they are divided.
//!
//! Each socket and each connected client takes one. Many systems start processes with a soft limit of 1,024 and let
//! them raise it.

use anyhow::{Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors for everything but sockets and their clients: the database, files, the runtime.
const BASE: usize = 64;

/// The most clients over all audit sockets. Each holds at most 50 KiB.
const AUDIT_CLIENTS: usize = 16_384;

/// The most clients of HTTP.
const HTTP_CLIENTS: usize = 256;

/// Raises the soft limit of this process to the hard one, and checks that the sockets fit in.
///
/// # Errors
///
/// If the hard limit is too low for so many sockets.
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
        warn!(limit, sockets, clients, "few file descriptors are left for clients; raise `ulimit -n` or LimitNOFILE");
    }
    Ok(())
}

/// How many clients all audit sockets together serve at a time.
pub(crate) fn audit_clients(sockets: usize) -> usize {
    let free = limit().saturating_sub(sockets + BASE);
    (free - free / 4).clamp(8, AUDIT_CLIENTS)
}

/// How many clients of HTTP are served at a time.
pub(crate) fn http_clients() -> usize {
    (limit().saturating_sub(BASE) / 4).clamp(8, HTTP_CLIENTS)
}

/// The soft limit of this process.
fn limit() -> usize {
    // Every system has this limit. The fallback is what POSIX guarantees at least.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(20, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}
