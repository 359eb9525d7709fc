//! Sockets that a supervisor opened and passed on, as systemd does for a `.socket` unit.
//!
//! Such a socket outlives the process: clients connect while no process serves it, also after a crash, and wait.
//! A configured socket takes the passed one that is bound to its path, or that has its path or file name as its name
//! (`FileDescriptorName=`).

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use listenfd::ListenFd;

/// The passed sockets that no configured one has taken yet.
#[derive(Debug, Default)]
pub struct PassedSockets(Vec<Passed>);

#[derive(Debug)]
struct Passed {
    listener: UnixListener,
    /// Its path; an abstract socket has none.
    path: Option<PathBuf>,
    name: String,
}

impl PassedSockets {
    /// Takes the sockets that the environment announces: LISTEN_FDS and LISTEN_PID, and LISTEN_FDNAMES for their names.
    ///
    /// # Errors
    ///
    /// If one of them is not a listening unix stream socket.
    pub fn from_environment() -> Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut passed = ListenFd::from_env();
        let mut names = names.split(':');
        let sockets = (0..passed.len()).map(|number| {
            let name = names.next().unwrap_or_default().to_owned();
            let listener = passed.take_unix_listener(number);
            let listener = listener.with_context(|| {
                format!("descriptor {number} (`{name}`) that the supervisor passed is not a unix stream socket")
            })?;
            let listener = listener.context("a passed descriptor was taken twice")?;
            let address = listener.local_addr().context("cannot read the address of a passed socket")?;
            Ok(Passed { listener, path: address.as_pathname().map(Path::to_owned), name })
        });
        Ok(Self(sockets.collect::<Result<_>>()?))
    }

    /// Takes the passed socket that a configured path means, with its own path.
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

    /// Checks that all were taken: clients of another one would wait for ever.
    ///
    /// # Errors
    ///
    /// If one was not taken.
    pub(super) fn check_taken(&self) -> Result<()> {
        if let Some(Passed { path, name, .. }) = self.0.first() {
            let path = path.as_ref().map_or_else(|| "without a path".into(), |path| path.display().to_string());
            bail!(
                "the supervisor passed the socket {path} (`{name}`), which no configured socket means; give \
                 one of them this path, or name the descriptor after a configured path (FileDescriptorName=)"
            );
        }
        Ok(())
    }
}

/// Whether two paths mean the same file, through links or not.
fn is_same(passed: &Path, configured: &Path) -> bool {
    let canonical = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).ok();
    passed == configured || canonical(passed) == canonical(configured)
}
