//! The place of a socket file: who may use it, and how a new file gets there.
//!
//! A client that can connect reports usage in a workspace's name. The file therefore never exists with other
//! permissions than its own: it is made in a private directory beside its place, gets its mode and group there, listens
//! there, and is moved to its place as a whole. The private directory is reached by its descriptor alone, so that no
//! other user who may write to the directory around it can exchange a part of the path. The move replaces a stale file
//! in one step: a client that looks for the file always finds one.
//!
//! A stale file is one on which no process listens. Looking and replacing are two steps; a lock on the directory keeps two
//! servers from taking them at the same time. The lock leaves no file behind.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{self as unix, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixSocket};
use tokio::sync::Mutex;
use tracing::info;

use super::group::SocketGroup;

/// Pool that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// How often, and how long each time, to wait for another process that sets up a socket in the same directory.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Held by one task of this process while it sets up a socket. All sockets may lose their files at once, and the lock on
/// the directory has no queue.
static SETUP: Mutex<()> = Mutex::const_new(());

/// Which file it is, wherever it is moved: device and inode.
pub(super) type Identity = (u64, u64);

/// Returns which file is at a path.
pub(super) fn identity(path: &Path) -> Result<Identity> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Makes a socket file for our own user and the group, and listens on it.
///
/// # Errors
///
/// If another process listens there, something else than a socket is there, the directory does not allow it, or the
/// group may not be given to a file of ours.
pub(super) async fn listen(path: &Path, group: Option<SocketGroup>) -> Result<(UnixListener, Identity)> {
    let cannot =
        || format!("cannot bind the audit socket {}; its directory must exist and be writable", path.display());
    let name = path.file_name().with_context(|| format!("{} does not end with a file name", path.display()))?;
    let _turn = SETUP.lock().await;
    let directory = DirectoryLock::take(path).await?;
    check_place(path)?;
    let private = PrivateDirectory::new(parent(path)).with_context(cannot)?;
    // A long name would not fit into the address together with the directory.
    let made = private.path(if name.len() < 64 { name } else { "audit.sock".as_ref() });
    let socket = UnixSocket::new_stream().context("cannot make a unix socket")?;
    socket.bind(&made).with_context(cannot)?;
    restrict(&made, path, group)?;
    let identity = identity(&made)?;
    let listener =
        socket.listen(BACKLOG).with_context(|| format!("cannot listen on the audit socket {}", path.display()))?;
    fs::rename(&made, within(&directory.0).join(name)).with_context(cannot)?;
    Ok((listener, identity))
}

/// Sets who may connect. The group comes first: until its mode is set, the file is not yet for the group to use.
fn restrict(made: &Path, path: &Path, group: Option<SocketGroup>) -> Result<()> {
    let mode = match group {
        Some(group) => {
            unix::lchown(made, None, Some(group.0)).with_context(|| {
                let path = path.display();
                format!(
                    "cannot give the audit socket {path} to group {group}; run as root, or as a member of that group"
                )
            })?;
            0o660
        }
        None => 0o600,
    };
    fs::set_permissions(made, Permissions::from_mode(mode))
        .with_context(|| format!("cannot make the audit socket {} private", path.display()))
}

/// Checks that a new file may take this place: nothing is there, or a stale socket.
fn check_place(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
    };
    if !metadata.file_type().is_socket() {
        bail!("{} exists and is not a socket; remove it, or choose another path", path.display());
    }
    // A datagram socket cannot connect to a stream socket, so that a listener is found and not disturbed.
    let probe = UnixDatagram::unbound().context("cannot make a unix socket")?;
    match probe.connect(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            info!(socket = %path.display(), "replacing the socket file of a process that has ended");
            Ok(())
        }
        Err(error) if error.raw_os_error() != Some(Errno::EPROTOTYPE as i32) => {
            Err(error).with_context(|| format!("cannot tell whether the socket {} is in use", path.display()))
        }
        _ => bail!("another process listens on {}; stop it, or choose another path", path.display()),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path of an open directory, whatever happens to its name.
fn within(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// A directory that only our own user can use, removed when dropped.
struct PrivateDirectory {
    directory: File,
    _removed_at_end: TempDir,
}

impl PrivateDirectory {
    fn new(parent: &Path) -> Result<Self> {
        let private = Permissions::from_mode(0o700);
        let made = tempfile::Builder::new().prefix(".boundary-usage-").permissions(private).tempdir_in(parent)?;
        let directory = File::open(made.path())?;
        let metadata = directory.metadata()?;
        ensure!(
            metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o077 == 0,
            "another user exchanged {} for something else",
            made.path().display()
        );
        Ok(Self { directory, _removed_at_end: made })
    }

    fn path(&self, name: &std::ffi::OsStr) -> PathBuf {
        within(&self.directory).join(name)
    }
}

/// Held while a socket is set up; the kernel frees it with the process.
struct DirectoryLock(File);

impl DirectoryLock {
    async fn take(socket: &Path) -> Result<Self> {
        let parent = parent(socket);
        let directory = File::open(parent)
            .with_context(|| format!("cannot open {}, the directory of the audit socket", parent.display()))?;
        for _ in 0..LOCK_ATTEMPTS {
            match directory.try_lock() {
                Ok(()) => return Ok(Self(directory)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock the directory {}", parent.display()));
                }
            }
        }
        bail!(
            "the directory {} has been locked by another process for {:?}",
            parent.display(),
            LOCK_PAUSE * LOCK_ATTEMPTS
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdUnixListener;

    use super::*;

    #[test]
    fn a_group_that_cannot_be_given_is_named_with_what_to_do() {
        let missing = Path::new("/nonexistent/audit.sock");
        // Root may give any group, so a missing file stands for what is not permitted.
        let refused = restrict(missing, missing, Some(SocketGroup(7))).unwrap_err();
        assert!(format!("{refused:#}").contains("to group 7; run as root, or as a member"), "{refused:#}");
    }

    #[test]
    fn a_listener_is_found_without_a_connection() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        check_place(&path).unwrap();
        let listener = StdUnixListener::bind(&path).unwrap();
        assert!(check_place(&path).unwrap_err().to_string().contains("another process listens on"));
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(listener);
        check_place(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        assert!(check_place(&path).is_err());
    }
}
