//! Creates the file of an audit socket.
//!
//! Every client that can connect can report usage in the name of a workspace. Therefore the file never exists with
//! wider permissions than configured. The file is created in a private directory beside its final path, gets its mode
//! and group there, and is then moved. The private directory is accessed only through its descriptor, so that no other
//! user with write access to the parent directory can replace a part of the path. The move replaces a stale file
//! atomically, so a client always finds a file.
//!
//! A file is stale if no process listens on it. The check and the replacement are two steps, so a lock on the directory
//! excludes other servers meanwhile. The lock leaves no file behind.

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

/// The length of the accept queue.
const BACKLOG: u32 = 1_024;

/// The attempts to lock the directory, and the pause between them.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Lets only one task of this process create a socket at a time.
///
/// All sockets may lose their files simultaneously. Tasks that wait for this mutex get it in turn, but the directory's
/// lock could keep one of them waiting.
static SETUP: Mutex<()> = Mutex::const_new(());

/// Device and inode of a file, which do not change if the file is moved.
pub(super) type Identity = (u64, u64);

/// Returns the identity of the file at a path.
pub(super) fn identity(path: &Path) -> Result<Identity> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("cannot inspect {}", path.display()))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Creates a socket file for this user and the group, and listens on it.
///
/// # Errors
///
/// See [`SocketFile::bind`](super::SocketFile::bind).
pub(super) async fn listen(path: &Path, group: Option<SocketGroup>) -> Result<(UnixListener, Identity)> {
    let cannot =
        || format!("cannot bind the audit socket {}; its directory must exist and be writable", path.display());
    let name = path.file_name().with_context(|| format!("{} does not end with a file name", path.display()))?;
    let _turn = SETUP.lock().await;
    let directory = DirectoryLock::take(path).await?;
    check_place(path)?;
    let private = PrivateDirectory::new(parent(path)).with_context(cannot)?;
    // The directory and a long name together could exceed the length of a socket address.
    let created = private.path(if name.len() < 64 { name } else { "audit.sock".as_ref() });
    let socket = UnixSocket::new_stream().context("cannot create a unix socket")?;
    socket.bind(&created).with_context(cannot)?;
    restrict(&created, path, group)?;
    let identity = identity(&created)?;
    let listener =
        socket.listen(BACKLOG).with_context(|| format!("cannot listen on the audit socket {}", path.display()))?;
    fs::rename(&created, within(&directory.0).join(name)).with_context(cannot)?;
    Ok((listener, identity))
}

/// Sets the group and mode of a new file.
///
/// The group comes first, so that the old group never gets access.
fn restrict(created: &Path, path: &Path, group: Option<SocketGroup>) -> Result<()> {
    let mode = match group {
        Some(group) => {
            unix::lchown(created, None, Some(group.0)).with_context(|| {
                let path = path.display();
                format!(
                    "cannot give the audit socket {path} to group {group}; run as root, or as a member of that group"
                )
            })?;
            0o660
        }
        None => 0o600,
    };
    fs::set_permissions(created, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the permissions of the audit socket {}", path.display()))
}

/// Checks that the path is unused, or leads to a stale socket.
fn check_place(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot inspect {}", path.display())),
    };
    if !metadata.file_type().is_socket() {
        bail!("{} exists and is not a socket; remove it, or choose another path", path.display());
    }
    // Connecting a datagram socket to a listening stream socket fails with a specific error. So this probe detects a
    // listener without a connection to it.
    let probe = UnixDatagram::unbound().context("cannot create a unix socket")?;
    match probe.connect(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            info!(socket = %path.display(), "replacing a socket file on which no process listens");
            Ok(())
        }
        Err(error) if error.raw_os_error() != Some(Errno::EPROTOTYPE as i32) => {
            Err(error).with_context(|| format!("cannot determine whether the socket {} is in use", path.display()))
        }
        _ => bail!("another process listens on {}; stop it, or choose another path", path.display()),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns a path that stays valid if the open directory is renamed.
fn within(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// A directory that only this user can access. Dropping this value removes the directory.
struct PrivateDirectory {
    directory: File,
    _removed_at_end: TempDir,
}

impl PrivateDirectory {
    fn new(parent: &Path) -> Result<Self> {
        let private = Permissions::from_mode(0o700);
        let created = tempfile::Builder::new().prefix(".boundary-usage-").permissions(private).tempdir_in(parent)?;
        let directory = File::open(created.path())?;
        let metadata = directory.metadata()?;
        ensure!(
            metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o077 == 0,
            "another user replaced {}",
            created.path().display()
        );
        Ok(Self { directory, _removed_at_end: created })
    }

    fn path(&self, name: &std::ffi::OsStr) -> PathBuf {
        within(&self.directory).join(name)
    }
}

/// The lock of a directory, which the kernel releases when the process ends.
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
        bail!("another process has locked the directory {} for {:?}", parent.display(), LOCK_PAUSE * LOCK_ATTEMPTS)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdUnixListener;

    use super::*;

    #[test]
    fn a_group_that_is_not_permitted_is_named_in_the_error() {
        let missing = Path::new("/nonexistent/audit.sock");
        // Root may set any group, so the test uses a missing file.
        let error = restrict(missing, missing, Some(SocketGroup(7))).unwrap_err();
        assert!(format!("{error:#}").contains("to group 7; run as root, or as a member"), "{error:#}");
    }

    #[test]
    fn a_listener_is_detected_without_a_connection() {
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
