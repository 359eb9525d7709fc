//! A listening audit socket and its file: from its start, through the loss of its file, to its end.
//!
//! The file stays at the end, on purpose. The boundary's client looks for it once, when it starts: without the file it
//! never reports, and with a file on which no process listens it tries again.

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

/// Time between two attempts to accept while there are no free descriptors.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(10);

/// An audit socket with its listener.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Which file is the socket's. `None` if the socket was passed without a file that can be seen from here.
    identity: Option<Identity>,
    listener: UnixListener,
    /// Whether a supervisor holds it too, and passes it to the next process.
    is_passed: bool,
}

impl SocketFile {
    /// Makes the file, for our own user and the group alone, and listens on it.
    ///
    /// # Errors
    ///
    /// If another process listens there, something else than a socket is there, the directory does not allow it, or
    /// the group may not be given to a file of ours.
    pub async fn bind(path: &Path, group: Option<SocketGroup>) -> Result<Self> {
        let (listener, identity) = place::listen(path, group).await?;
        Ok(Self { path: path.to_owned(), identity: Some(identity), listener, is_passed: false })
    }

    /// Uses the socket that a supervisor passed for this path, or makes one.
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

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether clients that look for the path find this socket.
    pub fn is_in_place(&self) -> bool {
        self.identity.is_none_or(|ours| place::identity(&self.path).is_ok_and(|found| found == ours))
    }

    /// Waits for the next client.
    ///
    /// # Errors
    ///
    /// If the process is out of file descriptors, for example.
    pub async fn accept(&self) -> std::io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Lets no further client connect, and passes on each that has connected. The file stays.
    ///
    /// While there is no free descriptor it waits for one. Clients of a passed socket may connect further; they wait for
    /// the next process.
    ///
    /// # Errors
    ///
    /// If the listener fails otherwise; clients that were not accepted are lost then.
    pub async fn close(self, mut serve: impl FnMut(UnixStream)) -> Result<()> {
        // Not accepted by the runtime: it may not know yet of a client that has connected.
        let listener: StdUnixListener = self.listener.into_std().context("cannot take the listener back")?;
        if !self.is_passed {
            // A client whose connect succeeded before this is in the queue; each later one is refused.
            SockRef::from(&listener).shutdown(Shutdown::Read).context("cannot close the listener")?;
        }
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true).context("cannot set a connection up")?;
                    serve(UnixStream::from_std(stream).context("cannot set a connection up")?);
                }
                Err(error) => match error.kind() {
                    // The queue is empty; of a listener that is shut down, the system says it in the second way.
                    ErrorKind::WouldBlock | ErrorKind::InvalidInput => return Ok(()),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ if is_out_of_descriptors(&error) => tokio::time::sleep(DESCRIPTOR_PAUSE).await,
                    _ => return Err(error).context("cannot accept a client"),
                },
            }
        }
    }
}

/// Whether another accept can succeed once something is closed.
pub(super) fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    let passing = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    passing.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixStream as StdUnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn message(refused: Result<SocketFile>) -> String {
        format!("{:#}", refused.expect_err("must be refused"))
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

    /// A group of this process other than its first one, or any at all if it is root; `None` if there is none.
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
    async fn a_socket_is_private_and_alone_in_its_directory() {
        let (directory, path) = place();
        let socket = SocketFile::bind(&path, None).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(socket.is_in_place());
    }

    #[tokio::test]
    async fn a_socket_for_a_group_is_open_to_that_group_and_to_no_other() {
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
    async fn a_socket_file_is_never_seen_with_other_permissions_or_without_a_listener() {
        let (_directory, path) = place();
        let over = AtomicBool::new(false);
        let wrong = std::thread::scope(|scope| {
            let look = || {
                let mut wrong = 0;
                while !over.load(Ordering::Relaxed) {
                    let mode = fs::symlink_metadata(&path).map(|metadata| metadata.mode() & 0o777);
                    wrong += u32::from(mode.is_ok_and(|mode| mode != 0o600));
                }
                wrong
            };
            let looking = scope.spawn(look);
            let binding = async {
                for _ in 0..300 {
                    let socket = SocketFile::bind(&path, None).await.unwrap();
                    StdUnixStream::connect(&path).unwrap();
                    drop(socket);
                    fs::remove_file(&path).unwrap();
                }
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(binding));
            over.store(true, Ordering::Relaxed);
            looking.join().unwrap()
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
    async fn a_close_passes_on_the_clients_that_were_not_accepted() {
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
    async fn a_live_socket_is_refused_and_stays() {
        let (_directory, path) = place();
        let first = SocketFile::bind(&path, None).await.unwrap();
        assert!(message(SocketFile::bind(&path, None).await).contains("another process listens on"));
        StdUnixStream::connect(&path).unwrap();
        drop(first);
    }

    #[tokio::test]
    async fn of_several_servers_that_replace_one_stale_socket_one_wins() {
        let (_directory, path) = place();
        drop(StdUnixListener::bind(&path).unwrap());
        let attempts = futures_util::future::join_all((0..8).map(|_| SocketFile::bind(&path, None))).await;
        assert_eq!(attempts.iter().filter(|attempt| attempt.is_ok()).count(), 1);
        StdUnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_path_that_is_not_a_socket_is_refused_and_stays() {
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
    async fn a_file_that_was_moved_or_replaced_is_noticed() {
        let (directory, path) = place();
        let socket = SocketFile::bind(&path, None).await.unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        assert!(!socket.is_in_place());
        fs::write(&path, "another file").unwrap();
        assert!(!socket.is_in_place());
    }

    #[tokio::test]
    async fn the_longest_path_that_a_client_can_use_is_bound() {
        let (directory, _) = place();
        let path = directory.path().join("a".repeat(106 - directory.path().as_os_str().len()));
        assert_eq!(path.as_os_str().len(), 107);
        let socket = SocketFile::bind(&path, None).await.unwrap();
        StdUnixStream::connect(&path).unwrap();
        socket.accept().await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let (directory, _) = place();
        let refused = message(SocketFile::bind(&directory.path().join("missing/audit.sock"), None).await);
        assert!(refused.contains("missing, the directory of the audit socket"), "{refused}");
    }
}
