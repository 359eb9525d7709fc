//! Sockets that a supervisor such as systemd passes to this process.
//!
//! Such a socket outlives the process. Clients can connect to the socket and wait while no process serves it, even
//! after a crash. A configured socket uses the passed socket that is bound to the configured path. A passed socket also
//! matches if its name (`FileDescriptorName=`) is the configured path or its file name.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use listenfd::ListenFd;

/// The passed sockets that no configured socket has taken yet.
#[derive(Debug, Default)]
pub struct PassedSockets(Vec<Passed>);

#[derive(Debug)]
struct Passed {
    listener: UnixListener,
    /// The path, or `None` if the socket is abstract.
    path: Option<PathBuf>,
    name: String,
}

impl PassedSockets {
    /// Takes the sockets of LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES.
    ///
    /// # Errors
    ///
    /// Returns an error if one of them is not a listening unix stream socket.
    pub fn from_environment() -> Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut passed = ListenFd::from_env();
        let mut names = names.split(':');
        let sockets = (0..passed.len()).map(|number| {
            let name = names.next().unwrap_or_default().to_owned();
            let listener = passed.take_unix_listener(number);
            let listener = listener.with_context(|| {
                format!("descriptor {number} (`{name}`), passed by the supervisor, is not a unix stream socket")
            })?;
            let listener = listener.context("a passed descriptor was taken twice")?;
            let address = listener.local_addr().context("cannot read the address of a passed socket")?;
            Ok(Passed { listener, path: address.as_pathname().map(Path::to_owned), name })
        });
        Ok(Self(sockets.collect::<Result<_>>()?))
    }

    /// Takes the passed socket for a configured path.
    ///
    /// Returns the socket and the path to which it is bound.
    pub(super) fn take(&mut self, configured: &Path) -> Option<(UnixListener, Option<PathBuf>)> {
        let absolute = std::path::absolute(configured).ok();
        let is_file_name = |name: &str| configured.file_name().is_some_and(|file| file == name);
        let by_path = |passed: &Passed| passed.path.as_ref().is_some_and(|path| is_same(path, configured));
        let by_name = |passed: &Passed| {
            let path = Path::new(&passed.name);
            path == configured || Some(path) == absolute.as_deref() || is_file_name(&passed.name)
        };
        let found = self.0.iter().position(by_path).or_else(|| self.0.iter().position(by_name))?;
        let Passed { listener, path, .. } = self.0.swap_remove(found);
        Some((listener, path))
    }

    /// Checks that all sockets were taken.
    ///
    /// Clients of an unused socket would wait forever.
    ///
    /// # Errors
    ///
    /// Returns an error if a socket was not taken.
    pub(super) fn check_taken(&self) -> Result<()> {
        if let Some(Passed { path, name, .. }) = self.0.first() {
            let path = path.as_ref().map_or_else(|| "without a path".into(), |path| path.display().to_string());
            bail!(
                "the supervisor passed the socket {path} (`{name}`), but no configured socket uses it; configure a \
                 socket with this path, or set FileDescriptorName= to a configured path"
            );
        }
        Ok(())
    }
}

/// Returns whether two paths lead to the same file, perhaps through links.
fn is_same(passed: &Path, configured: &Path) -> bool {
    let canonical = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).ok();
    passed == configured || canonical(passed) == canonical(configured)
}
