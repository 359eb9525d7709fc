//! The socket file: private from its creation, replaced when stale, removed at the end.
//!
//! Whoever can connect reports usage in a workspace's name, so the file's mode is 0600 whatever the umask, or 0660
//! for a group: it is set between `bind`, which makes the file, and `listen`, before which every connect is refused.
//!
//! A file that nobody listens on was left behind by a process that crashed, and is replaced. To ask and to replace are
//! two steps; a lock on the directory keeps two servers from taking them at the same time, one deleting the socket that
//! the other has just made. The lock leaves no file behind.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{self as unix, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tracing::{info, warn};

use super::group::SocketGroup;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// How often, and how long each time, to wait for another process that sets up a socket in the same directory.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A socket file of ours with its listener. To drop it removes the file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: which file is ours, should another process have replaced it. `None` once it is removed.
    identity: Option<(u64, u64)>,
    listener: Option<UnixListener>,
}

impl SocketFile {
    /// Makes the file, for our own user and the group alone, and listens on it.
    ///
    /// # Errors
    ///
    /// When another process listens there, when something else than a socket is there, when the directory does not
    /// allow it, or when the group may not be given to a file of ours.
    pub async fn bind(path: &Path, group: Option<SocketGroup>) -> Result<Self> {
        let _lock = DirectoryLock::take(path).await?;
        make_room(path).await?;
        let socket = UnixSocket::new_stream().context("cannot make a unix socket")?;
        socket.bind(path).with_context(|| {
            format!("cannot bind the audit socket {}; its directory must exist and be writable", path.display())
        })?;
        // From here on the file is removed again whatever goes wrong.
        let mut file = Self { path: path.to_owned(), identity: Some(identity(path)?), listener: None };
        restrict(path, group)?;
        let listener = socket.listen(BACKLOG);
        file.listener =
            Some(listener.with_context(|| format!("cannot listen on the audit socket {}", path.display()))?);
        Ok(file)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next client.
    ///
    /// # Errors
    ///
    /// When the process is out of file descriptors, for example.
    pub async fn accept(&self) -> Result<UnixStream> {
        let listener = self.listener.as_ref().expect("a bound socket file listens until it is closed");
        let (stream, _) = listener.accept().await?;
        Ok(stream)
    }

    /// Removes the file, so that nobody else can connect, and answers those who have connected and not been accepted.
    ///
    /// # Errors
    ///
    /// When the listener cannot be asked.
    pub fn close(mut self) -> Result<Vec<UnixStream>> {
        self.remove();
        let listener = self.listener.take().expect("a bound socket file listens until it is closed");
        // Not asked of Tokio: it may not have heard yet of a client that has connected, and would see nobody waiting.
        let listener: StdUnixListener = listener.into_std().context("cannot take the listener back")?;
        let mut waiting = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).context("cannot set a connection up")?;
            waiting.push(UnixStream::from_std(stream).context("cannot set a connection up")?);
        }
        Ok(waiting)
    }

    fn remove(&mut self) {
        let Some(ours) = self.identity.take() else { return };
        if identity(&self.path).is_ok_and(|found| found == ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(socket = %self.path.display(), %error, "cannot remove the socket file; the next start replaces it");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Sets who may connect. The group comes first: until its mode is set, the file is not yet for the group to use.
fn restrict(path: &Path, group: Option<SocketGroup>) -> Result<()> {
    let mode = match group {
        Some(group) => {
            unix::lchown(path, None, Some(group.0)).with_context(|| {
                let path = path.display();
                format!(
                    "cannot give the audit socket {path} to group {group}; run as root, or as a member of that group"
                )
            })?;
            0o660
        }
        None => 0o600,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot make the audit socket {} private", path.display()))
}

/// Removes a stale socket file; refuses anything else that is there.
async fn make_room(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
    };
    if !metadata.file_type().is_socket() {
        bail!("{} exists and is not a socket; remove it, or choose another path", path.display());
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            info!(socket = %path.display(), "replacing the socket file of a process that is gone");
            fs::remove_file(path).with_context(|| format!("cannot replace the stale socket {}", path.display()))
        }
        // A listener that is too busy to take one more connection is a listener.
        Ok(_) => bail!(live(path)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => bail!(live(path)),
        Err(error) => {
            Err(error).with_context(|| format!("cannot tell whether the socket {} is in use", path.display()))
        }
    }
}

fn live(path: &Path) -> String {
    format!("another process listens on {}; stop it, or choose another path", path.display())
}

fn identity(path: &Path) -> Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Held while a socket is set up; the kernel frees it with the process.
struct DirectoryLock(#[expect(dead_code, reason = "the lock lives as long as the open directory")] File);

impl DirectoryLock {
    async fn take(socket: &Path) -> Result<Self> {
        let parent = socket.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
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
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;

    fn message(refused: Result<SocketFile>) -> String {
        format!("{:#}", refused.expect_err("must be refused"))
    }

    #[tokio::test]
    async fn a_socket_is_private_and_gone_after_its_close() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        let socket = SocketFile::bind(&path, None).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(socket.close().unwrap().is_empty());
        assert!(!path.exists());
    }

    fn mode_and_group(path: &Path) -> (u32, u32) {
        let metadata = fs::metadata(path).unwrap();
        (metadata.mode() & 0o777, metadata.gid())
    }

    /// A group of this process other than its first one, or any at all when it is root; `None` when there is none.
    fn other_group() -> Option<SocketGroup> {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let numbers = |text: String| text.split_whitespace().map(|gid| gid.parse().unwrap()).collect::<Vec<u32>>();
        if numbers(field("Uid:"))[1] == 0 {
            return Some(SocketGroup(12_345));
        }
        let first = numbers(field("Gid:"))[1];
        numbers(field("Groups:")).into_iter().find(|gid| *gid != first).map(SocketGroup)
    }

    #[tokio::test]
    async fn a_socket_for_a_group_is_open_to_that_group_and_to_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        let own = SocketGroup(fs::metadata(directory.path()).unwrap().gid());
        for group in [Some(own), other_group()].into_iter().flatten() {
            let socket = SocketFile::bind(&path, Some(group)).await.unwrap();
            assert_eq!(mode_and_group(&path), (0o660, group.0));
            StdUnixStream::connect(&path).unwrap();
            socket.accept().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_group_that_cannot_be_given_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        // Root may give any group, so a missing file stands for what is not permitted.
        let refused = restrict(&path, Some(SocketGroup(7))).unwrap_err();
        assert!(format!("{refused:#}").contains("to group 7; run as root, or as a member"), "{refused:#}");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dropped_socket_removes_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        drop(SocketFile::bind(&path, None).await.unwrap());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_close_answers_the_clients_that_were_not_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        let socket = SocketFile::bind(&path, None).await.unwrap();
        let clients: Vec<_> = (0..3).map(|_| StdUnixStream::connect(&path).unwrap()).collect();
        assert_eq!(socket.close().unwrap().len(), clients.len());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a listener of the standard library leaves its file behind");
        let socket = SocketFile::bind(&path, None).await.unwrap();
        StdUnixStream::connect(&path).unwrap();
        socket.accept().await.unwrap();
    }

    #[tokio::test]
    async fn a_live_socket_is_refused_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        let first = SocketFile::bind(&path, None).await.unwrap();
        assert!(message(SocketFile::bind(&path, None).await).contains("another process listens on"));
        StdUnixStream::connect(&path).unwrap();
        drop(first);
    }

    #[tokio::test]
    async fn of_several_servers_that_replace_one_stale_socket_one_wins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        let attempts = futures_util::future::join_all((0..8).map(|_| SocketFile::bind(&path, None))).await;
        assert_eq!(attempts.iter().filter(|attempt| attempt.is_ok()).count(), 1);
        StdUnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_path_that_is_not_a_socket_is_refused_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious.txt");
        fs::write(&path, "kept").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for path in [path.as_path(), &link, directory.path()] {
            assert!(message(SocketFile::bind(path, None).await).contains("exists and is not a socket"));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        assert!(fs::symlink_metadata(&link).is_ok());
    }

    #[tokio::test]
    async fn a_file_that_another_process_has_put_in_place_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        let socket = SocketFile::bind(&path, None).await.unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let refused = message(SocketFile::bind(&directory.path().join("missing/audit.sock"), None).await);
        assert!(refused.contains("missing, the directory of the audit socket"), "{refused}");
    }
}
