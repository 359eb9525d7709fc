//! A proxy in front of PostgreSQL that cuts connections at selected points.
//!
//! Such a point is before a commit, or between the commit and its reply.
//!
//! Cuts are queued, and each affects one message, in order, like the faults of the module `faults`. Here the driver,
//! the server and their sockets are real. The program `postgres-proxy` offers the proxy to tests in other languages.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use boundary_usage::Database;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, watch};

use crate::expected_usage::manual_tracker;
use crate::usage::id;

/// The point where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// At a statement that writes usage. The server does not receive the statement.
    Write,
    /// At a commit. The server does not receive the commit.
    Commit,
    /// At a commit. The server receives the commit after [`PostgresProxy::deliver`].
    ///
    /// By then the client has lost its connection.
    CommitDelayed,
    /// After a commit. The client does not receive the server's reply.
    Reply,
    /// Like `Reply`, but the connection stays open without any further message.
    Silence,
    /// At the request with this number. The server does not receive the request.
    ///
    /// The count starts at 1 when the cut becomes the first of the queue. A request is a message after which the client
    /// waits for a reply: a simple query or a `Sync`.
    Request(u64),
    /// Like `Request`, but the connection stays open without any further message.
    SilentRequest(u64),
}

/// How a cut ends the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// The end of the stream.
    #[default]
    Fin,
    /// A reset, which discards data in transit.
    Reset,
}

/// A running proxy. It ends with the runtime that started it.
pub struct PostgresProxy {
    /// The URL for clients of the proxy.
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: Address,
    cuts: Mutex<VecDeque<(Cut, Ending)>>,
    commits: watch::Sender<u64>,
    round_trips: AtomicU64,
    deliver: Notify,
    /// Whether new connections are closed immediately.
    refuses: AtomicBool,
}

enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// The end of the server's reply to a commit: `CommandComplete` and `ReadyForQuery`.
const COMMITTED: &[u8] = b"COMMIT\0Z\0\0\0\x05I";

impl PostgresProxy {
    /// Starts a proxy in front of the server and database of a URL.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is invalid, or if no port is free.
    pub async fn in_front_of(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)?;
        let server = match options.get_socket() {
            Some(directory) => Address::Unix(directory.join(format!(".s.PGSQL.{}", options.get_port()))),
            None => Address::Tcp(options.get_host().to_owned(), options.get_port()),
        };
        let shared = Arc::new(Shared {
            server,
            cuts: Mutex::default(),
            commits: watch::Sender::new(0),
            round_trips: AtomicU64::new(0),
            deliver: Notify::new(),
            refuses: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let SocketAddr::V4(address) = listener.local_addr()? else {
            unreachable!("the listener is bound to an IPv4 address")
        };
        let database = options.get_database().context("the URL names no database")?;
        let url = format!("postgres://{}@{address}/{database}", options.get_username());
        tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { url, shared })
    }

    /// Queues a cut.
    pub fn cut(&self, cut: Cut) {
        self.cut_with(cut, Ending::Fin);
    }

    /// Queues a cut with this ending of the connection.
    pub fn cut_with(&self, cut: Cut, ending: Ending) {
        self.shared.cuts().push_back((cut, ending));
    }

    /// Sets whether new connections are closed immediately, as if the server refused them.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Returns the number of queued cuts.
    pub fn pending(&self) -> usize {
        self.shared.cuts().len()
    }

    /// Returns the number of commits that clients have sent.
    pub fn commits(&self) -> u64 {
        *self.shared.commits.borrow()
    }

    /// Returns the number of requests after which clients waited for a reply.
    ///
    /// They are simple queries and `Sync` messages.
    pub fn round_trips(&self) -> u64 {
        self.shared.round_trips.load(Ordering::Relaxed)
    }

    /// Waits until clients have sent at least this number of commits.
    pub async fn committing(&self, count: u64) {
        let mut commits = self.shared.commits.subscribe();
        commits.wait_for(|commits| *commits >= count).await.expect("the sender lives in self");
    }

    /// Forwards the commit that a [`Cut::CommitDelayed`] holds back.
    pub fn deliver(&self) {
        self.shared.deliver.notify_one();
    }
}

/// The round trips of a flush on an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrips {
    /// A flush of ids that the period already contains.
    pub known_ids: u64,
    /// A flush with new ids.
    pub new_ids: u64,
}

/// Counts the round trips of a replica's flushes.
///
/// # Errors
///
/// Returns an error if the proxy, the tracker or a flush fails.
pub async fn round_trips_of_flushes(url: &str) -> Result<RoundTrips> {
    let proxy = PostgresProxy::in_front_of(url).await?;
    let tracker = manual_tracker(4, &Database::connect(&proxy.url).await?).await?;
    let flush = async |workspace| {
        let before = proxy.round_trips();
        tracker.track(id(workspace), id(0), 1, 0)?;
        tracker.flush().await?;
        anyhow::Ok(proxy.round_trips() - before)
    };
    // The first flush begins the period.
    flush(1).await?;
    let round_trips = RoundTrips { known_ids: flush(1).await?, new_ids: flush(3).await? };
    tracker.shutdown().await?;
    Ok(round_trips)
}

impl Shared {
    fn cuts(&self) -> MutexGuard<'_, VecDeque<(Cut, Ending)>> {
        self.cuts.lock().expect("no holder of this lock panics")
    }

    /// Removes and returns the first cut if it applies to this message.
    fn strikes(&self, message: &Message) -> Option<(Cut, Ending)> {
        let mut cuts = self.cuts();
        let strikes = match &mut cuts.front_mut()?.0 {
            Cut::Write => message.writes,
            Cut::Request(number) | Cut::SilentRequest(number) => {
                *number -= u64::from(message.requests);
                *number == 0
            }
            _ => message.commits,
        };
        if strikes { cuts.pop_front() } else { None }
    }

    /// Forwards the messages of one client until the connection ends.
    async fn serve(&self, client: TcpStream) -> io::Result<()> {
        match &self.server {
            Address::Tcp(host, port) => {
                let (input, output) = TcpStream::connect((host.as_str(), *port)).await?.into_split();
                self.serve_with(client, input, output).await
            }
            Address::Unix(path) => {
                let (input, output) = UnixStream::connect(path).await?.into_split();
                self.serve_with(client, input, output).await
            }
        }
    }

    async fn serve_with(
        &self,
        client: TcpStream,
        from_server: impl AsyncRead + Unpin,
        to_server: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let (from_client, to_client) = client.into_split();
        let replies = Replies { to_client: to_client.into(), is_muted: false.into(), committed: Notify::new() };
        let ending = tokio::select! {
            ended = self.forward(Messages::of(from_client), to_server, &replies) => ended?,
            ended = replies.forward(from_server) => ended.map(|()| Ending::Fin)?,
        };
        if ending == Ending::Reset {
            let to_client = replies.to_client.into_inner();
            to_client.as_ref().set_zero_linger()?;
            // Dropping the stream would send its end before the reset.
            to_client.forget();
        }
        Ok(())
    }

    /// Forwards the client's messages to the server. The connection ends when this returns.
    async fn forward(
        &self,
        mut messages: Messages,
        mut to_server: impl AsyncWrite + Unpin,
        replies: &Replies,
    ) -> io::Result<Ending> {
        loop {
            let (message, bytes) = messages.next().await?;
            if message.commits {
                self.commits.send_modify(|commits| *commits += 1);
            }
            if message.requests {
                self.round_trips.fetch_add(1, Ordering::Relaxed);
            }
            let Some((cut, ending)) = self.strikes(&message) else {
                to_server.write_all(&bytes).await?;
                continue;
            };
            match cut {
                Cut::Write | Cut::Commit | Cut::Request(_) => return Ok(ending),
                Cut::SilentRequest(_) => messages.end().await?,
                Cut::CommitDelayed | Cut::Reply | Cut::Silence => {
                    replies.is_muted.store(true, Ordering::Relaxed);
                    if cut == Cut::CommitDelayed {
                        replies.to_client.lock().await.shutdown().await?;
                        self.deliver.notified().await;
                    }
                    to_server.write_all(&bytes).await?;
                    replies.committed.notified().await;
                    if cut != Cut::Silence {
                        return Ok(ending);
                    }
                }
            }
        }
    }
}

/// The direction from the server to a client.
struct Replies {
    to_client: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Whether replies are discarded.
    is_muted: AtomicBool,
    /// Notified when the reply to a commit has been discarded.
    committed: Notify,
}

impl Replies {
    async fn forward(&self, mut from_server: impl AsyncRead + Unpin) -> io::Result<()> {
        let (mut buffer, mut discarded) = (vec![0; 1 << 16], Vec::new());
        loop {
            let length = from_server.read(&mut buffer).await?;
            match length {
                0 => return Ok(()),
                _ if self.is_muted.load(Ordering::Relaxed) => {
                    discarded.extend(&buffer[..length]);
                    if discarded.ends_with(COMMITTED) {
                        self.committed.notify_one();
                    }
                }
                _ => self.to_client.lock().await.write_all(&buffer[..length]).await?,
            }
        }
    }
}

/// The relevant properties of a client's message.
#[derive(Clone, Copy, Default)]
struct Message {
    /// Whether it executes, instead of only prepares, a statement that writes usage.
    writes: bool,
    /// Whether it commits a transaction.
    commits: bool,
    /// Whether the client waits for a reply to it.
    requests: bool,
}

/// A reader of a client's messages.
///
/// A message is a type, a length that includes itself, and a body. Messages before the start of the session have no
/// type.
struct Messages {
    from_client: OwnedReadHalf,
    is_started: bool,
    /// The names of prepared statements that write usage.
    writing: Vec<Vec<u8>>,
}

/// The texts that identify the statements that write usage.
const WRITES: [&str; 2] = ["INSERT INTO boundary_usage_stats AS s", "UPDATE boundary_usage_stats AS s"];

fn writes_usage(statement: &[u8]) -> bool {
    let statement = String::from_utf8_lossy(statement);
    WRITES.iter().any(|write| statement.contains(write))
}

/// The beginning of the message that starts a session: version 3.0 of the protocol.
const START: &[u8] = &[0, 3, 0, 0];

impl Messages {
    fn of(from_client: OwnedReadHalf) -> Self {
        Self { from_client, is_started: false, writing: Vec::new() }
    }

    async fn next(&mut self) -> io::Result<(Message, Vec<u8>)> {
        let mut bytes = if self.is_started { vec![self.from_client.read_u8().await?] } else { Vec::new() };
        let length = self.from_client.read_u32().await?;
        bytes.extend(length.to_be_bytes());
        let start = bytes.len();
        bytes.resize(start + (length as usize).saturating_sub(4), 0);
        self.from_client.read_exact(&mut bytes[start..]).await?;
        let kind = if self.is_started { bytes[0] } else { 0 };
        let message = self.recognise(kind, &bytes[start..]);
        Ok((message, bytes))
    }

    /// Discards all further messages, and returns when the client closes the connection.
    async fn end(&mut self) -> io::Result<()> {
        tokio::io::copy(&mut self.from_client, &mut tokio::io::sink()).await.map(drop)
    }

    fn recognise(&mut self, kind: u8, body: &[u8]) -> Message {
        let mut texts = body.split(|byte| *byte == 0);
        let (first, second) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        let mut message = Message { requests: matches!(kind, b'Q' | b'S'), ..Message::default() };
        match kind {
            0 => self.is_started = body.starts_with(START),
            b'Q' => {
                message.commits = first == b"COMMIT";
                message.writes = writes_usage(first);
            }
            // The empty name is the unnamed statement, which each `Parse` message replaces.
            b'P' => {
                self.writing.retain(|name| name != first);
                if writes_usage(second) {
                    self.writing.push(first.to_vec());
                }
            }
            b'B' => message.writes = self.writing.iter().any(|name| name == second),
            _ => {}
        }
        message
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if shared.refuses.load(Ordering::Relaxed) {
            continue;
        }
        let shared = shared.clone();
        // The error can be ignored, because the client's connection is closed in any case.
        tokio::spawn(async move { shared.serve(client).await });
    }
}
