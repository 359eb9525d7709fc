//! A listening audit socket and its file.
//!
//! The file intentionally stays when the socket is closed. The boundary's client looks for the file only when the
//! client starts. If the file is missing, the client never reports. If no process listens on the file, the client tries
//! again later.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use socket2::SockRef;
use tokio::net::{UnixListener, UnixStream};

use super::activation::PassedSockets;
use super::group::SocketGroup;
use super::place::{self, Identity};

/// Time between two attempts to accept while no descriptor is free.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(10);

/// A listening audit socket.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// The socket's file.
    ///
    /// `None` if a supervisor passed the socket and its file is not accessible here.
    identity: Option<Identity>,
    listener: UnixListener,
    /// Whether a supervisor passed the socket.
    is_passed: bool,
}

impl SocketFile {
    /// Creates the socket's file, and listens on it.
    ///
    /// Only this user and the group can connect.
    ///
    /// # Errors
    ///
    /// Returns an error if another process listens on the path, if the path is not a socket, if the directory is not
    /// writable, or if this process may not give a file to the group.
    pub async fn bind(path: &Path, group: Option<SocketGroup>) -> Result<Self> {
        let (listener, identity) = place::listen(path, group).await?;
        Ok(Self { path: path.to_owned(), identity: Some(identity), listener, is_passed: false })
    }

    /// Uses the socket that a supervisor passed for this path, or else creates one.
    ///
    /// # Errors
    ///
    /// See [`bind`](Self::bind).
    pub async fn open(path: &Path, group: Option<SocketGroup>, passed: &mut PassedSockets) -> Result<Self> {
        let Some((listener, own_path)) = passed.take(path) else { return Self::bind(path, group).await };
        let cannot = || format!("cannot use the socket that was passed for {}", path.display());
        listener.set_nonblocking(true).with_context(cannot)?;
        let listener = UnixListener::from_std(listener).with_context(cannot)?;
        let path = own_path.unwrap_or_else(|| path.to_owned());
        Ok(Self { identity: place::identity(&path).ok(), path, listener, is_passed: true })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the path still leads to this socket.
    pub fn is_in_place(&self) -> bool {
        self.identity.is_none_or(|ours| place::identity(&self.path).is_ok_and(|found| found == ours))
    }

    /// Waits for the next client.
    ///
    /// # Errors
    ///
    /// Returns an error if the process has no free file descriptor, for example.
    pub async fn accept(&self) -> std::io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Closes the socket, and passes each client in the accept queue to `serve`.
    ///
    /// The socket's file stays. The call waits while no descriptor is free. If a supervisor passed the socket, clients
    /// can still connect, and wait for the next process.
    ///
    /// # Errors
    ///
    /// Returns an error if the listener fails for another reason. The clients in the accept queue are then lost.
    pub async fn close(self, mut serve: impl FnMut(UnixStream)) -> Result<()> {
        // The runtime may not know the newest clients yet, so this accepts clients without the runtime.
        let listener: StdUnixListener =
            self.listener.into_std().context("cannot take the listener from the runtime")?;
        if !self.is_passed {
            // Clients that connected before this call are in the accept queue. Later connects are rejected.
            SockRef::from(&listener).shutdown(Shutdown::Read).context("cannot close the listener")?;
        }
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true).context("cannot set a connection up")?;
                    serve(UnixStream::from_std(stream).context("cannot set a connection up")?);
                }
                Err(error) => match error.kind() {
                    // The queue is empty. `InvalidInput` is the system's error after `shutdown`.
                    ErrorKind::WouldBlock | ErrorKind::InvalidInput => return Ok(()),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ if is_out_of_descriptors(&error) => tokio::time::sleep(DESCRIPTOR_PAUSE).await,
                    _ => return Err(error).context("cannot accept a client"),
                },
            }
        }
    }
}

/// Returns whether an accept failed because no descriptor or memory was free.
pub(super) fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    let transient = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    transient.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixStream as StdUnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn message(rejected: Result<SocketFile>) -> String {
        format!("{:#}", rejected.expect_err("must be rejected"))
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.sock");
        (directory, path)
    }

    fn mode_and_group(path: &Path) -> (u32, u32) {
        let metadata = fs::metadata(path).unwrap();
        (metadata.mode() & 0o777, metadata.gid())
    }

    /// Returns a secondary group of this process, or any group if it runs as root.
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
    async fn a_socket_is_private_and_leaves_no_other_file() {
        let (directory, path) = place();
        let socket = SocketFile::bind(&path, None).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(socket.is_in_place());
    }

    #[tokio::test]
    async fn a_socket_with_a_group_has_that_group_and_mode_0660() {
        let (directory, path) = place();
        let own = SocketGroup(fs::metadata(directory.path()).unwrap().gid());
        for group in [Some(own), other_group()].into_iter().flatten() {
            let socket = SocketFile::bind(&path, Some(group)).await.unwrap();
            assert_eq!(mode_and_group(&path), (0o660, group.0));
            StdUnixStream::connect(&path).unwrap();
            socket.accept().await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_socket_file_never_exists_with_wider_permissions_or_without_a_listener() {
        let (_directory, path) = place();
        let done = AtomicBool::new(false);
        let wrong = std::thread::scope(|scope| {
            let watch = || {
                let mut wrong = 0;
                while !done.load(Ordering::Relaxed) {
                    let mode = fs::symlink_metadata(&path).map(|metadata| metadata.mode() & 0o777);
                    wrong += u32::from(mode.is_ok_and(|mode| mode != 0o600));
                }
                wrong
            };
            let watching = scope.spawn(watch);
            let binding = async {
                for _ in 0..300 {
                    let socket = SocketFile::bind(&path, None).await.unwrap();
                    StdUnixStream::connect(&path).unwrap();
                    drop(socket);
                    fs::remove_file(&path).unwrap();
                }
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(binding));
            done.store(true, Ordering::Relaxed);
            watching.join().unwrap()
        });
        assert_eq!(wrong, 0, "the file was seen with other permissions");
    }

    #[tokio::test]
    async fn the_file_stays_after_a_drop_and_after_a_close() {
        let (_directory, path) = place();
        drop(SocketFile::bind(&path, None).await.unwrap());
        assert!(path.exists());
        SocketFile::bind(&path, None).await.unwrap().close(drop).await.unwrap();
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_close_serves_the_clients_in_the_accept_queue() {
        let (_directory, path) = place();
        let socket = SocketFile::bind(&path, None).await.unwrap();
        let clients: Vec<_> = (0..3).map(|_| StdUnixStream::connect(&path).unwrap()).collect();
        let mut accepted = 0;
        socket.close(|_| accepted += 1).await.unwrap();
        assert_eq!(accepted, clients.len());
        assert_eq!(StdUnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let (_directory, path) = place();
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a listener of the standard library leaves its file behind");
        let socket = SocketFile::bind(&path, None).await.unwrap();
        StdUnixStream::connect(&path).unwrap();
        socket.accept().await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_in_use_is_not_replaced() {
        let (_directory, path) = place();
        let first = SocketFile::bind(&path, None).await.unwrap();
        assert!(message(SocketFile::bind(&path, None).await).contains("another process listens on"));
        StdUnixStream::connect(&path).unwrap();
        drop(first);
    }

    #[tokio::test]
    async fn only_one_of_several_servers_replaces_a_stale_socket() {
        let (_directory, path) = place();
        drop(StdUnixListener::bind(&path).unwrap());
        let attempts = futures_util::future::join_all((0..8).map(|_| SocketFile::bind(&path, None))).await;
        assert_eq!(attempts.iter().filter(|attempt| attempt.is_ok()).count(), 1);
        StdUnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_not_replaced() {
        let (directory, _) = place();
        let path = directory.path().join("precious.txt");
        fs::write(&path, "kept").unwrap();
        let link = directory.path().join("link");
        symlink("nowhere", &link).unwrap();
        for path in [path.as_path(), &link, directory.path()] {
            assert!(message(SocketFile::bind(path, None).await).contains("exists and is not a socket"));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        assert!(fs::symlink_metadata(&link).is_ok());
    }

    #[tokio::test]
    async fn a_moved_or_replaced_file_is_noticed() {
        let (directory, path) = place();
        let socket = SocketFile::bind(&path, None).await.unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        assert!(!socket.is_in_place());
        fs::write(&path, "another file").unwrap();
        assert!(!socket.is_in_place());
    }

    #[tokio::test]
    async fn a_path_at_the_length_limit_can_be_bound() {
        let (directory, _) = place();
        let path = directory.path().join("a".repeat(106 - directory.path().as_os_str().len()));
        assert_eq!(path.as_os_str().len(), 107);
        let socket = SocketFile::bind(&path, None).await.unwrap();
        StdUnixStream::connect(&path).unwrap();
        socket.accept().await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_directory_is_named_in_the_error() {
        let (directory, _) = place();
        let error = message(SocketFile::bind(&directory.path().join("missing/audit.sock"), None).await);
        assert!(error.contains("missing, the directory of the audit socket"), "{error}");
    }
}
