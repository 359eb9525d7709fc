//! A wire to PostgreSQL that breaks on cue: a proxy that reads the messages of its clients, and cuts their connections
//! before a commit, instead of one, or between a commit and its reply.
//!
//! Cuts are queued and strike one after the other, as faults do in `faults`. There no database is needed; here the
//! driver, the server and their sockets are real. The program `postgres-proxy` offers this to tests in other languages.

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

use crate::accounts::tracker_by_hand;
use crate::usage::id;

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// When usage is to be written, before the server learns of it.
    Write,
    /// At a commit, which the server never gets.
    Commit,
    /// At a commit, which the server gets only when [`PostgresProxy::deliver`] says so, and long after the client has
    /// given it up for lost.
    CommitDelayed,
    /// When the server has carried out a commit and answered; the client never gets the answer.
    Reply,
    /// As `Reply`, but the connection stays open and silent.
    Silence,
    /// At the request of this number, counted from 1 when the cut is at the head of the queue. The server does not get the
    /// request. A request is a message that the client waits on: a simple query, or a `Sync`.
    Request(u64),
    /// As `Request`, but the connection stays open and silent.
    SilentRequest(u64),
}

/// How a connection ends at a cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// An orderly end of the stream.
    #[default]
    Fin,
    /// A reset: what is on its way is discarded.
    Reset,
}

/// The proxy. It ends with the runtime that it was made on.
pub struct PostgresProxy {
    /// Where it listens.
    pub url: String,
    wire: Arc<Wire>,
}

struct Wire {
    server: Address,
    cuts: Mutex<VecDeque<(Cut, Ending)>>,
    commits: watch::Sender<u64>,
    round_trips: AtomicU64,
    deliver: Notify,
    /// New connections are closed at once.
    refuses: AtomicBool,
}

enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// The end of the server's answer to a commit: done, and ready for the next.
const COMMITTED: &[u8] = b"COMMIT\0Z\0\0\0\x05I";

impl PostgresProxy {
    /// Listens in front of the server and database that a URL names.
    ///
    /// # Errors
    ///
    /// When the URL is none, or no port is free.
    pub async fn in_front_of(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)?;
        let server = match options.get_socket() {
            Some(directory) => Address::Unix(directory.join(format!(".s.PGSQL.{}", options.get_port()))),
            None => Address::Tcp(options.get_host().to_owned(), options.get_port()),
        };
        let wire = Arc::new(Wire {
            server,
            cuts: Mutex::default(),
            commits: watch::Sender::new(0),
            round_trips: AtomicU64::new(0),
            deliver: Notify::new(),
            refuses: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let SocketAddr::V4(address) = listener.local_addr()? else { unreachable!("it was bound to an IPv4 address") };
        let database = options.get_database().context("the URL names a database")?;
        let url = format!("postgres://{}@{address}/{database}", options.get_username());
        tokio::spawn(accept(listener, wire.clone()));
        Ok(Self { url, wire })
    }

    /// Queues a cut.
    pub fn cut(&self, cut: Cut) {
        self.cut_with(cut, Ending::Fin);
    }

    /// Queues a cut that ends the connection in this way.
    pub fn cut_with(&self, cut: Cut, ending: Ending) {
        self.wire.cuts().push_back((cut, ending));
    }

    /// Sets whether new connections are closed at once, as if the server refused them.
    pub fn refuse(&self, refuses: bool) {
        self.wire.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Cuts that have not struck yet.
    pub fn pending(&self) -> usize {
        self.wire.cuts().len()
    }

    /// How many commits clients have sent.
    pub fn commits(&self) -> u64 {
        *self.wire.commits.borrow()
    }

    /// How often clients have asked for an answer, and will not go on without: by a simple query, or a `Sync`.
    pub fn round_trips(&self) -> u64 {
        self.wire.round_trips.load(Ordering::Relaxed)
    }

    /// Waits until clients have sent as many commits.
    pub async fn committing(&self, count: u64) {
        let mut commits = self.wire.commits.subscribe();
        commits.wait_for(|commits| *commits >= count).await.expect("the sender lives in self");
    }

    /// Hands the server a commit that was held back.
    pub fn deliver(&self) {
        self.wire.deliver.notify_one();
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
/// When the database cannot be used.
pub async fn round_trips_of_flushes(url: &str) -> Result<RoundTrips> {
    let proxy = PostgresProxy::in_front_of(url).await?;
    let tracker = tracker_by_hand(4, &Database::connect(&proxy.url).await?).await?;
    let flush = async |workspace| {
        let before = proxy.round_trips();
        tracker.track(id(workspace), id(0), 1, 0)?;
        tracker.flush().await?;
        anyhow::Ok(proxy.round_trips() - before)
    };
    // The first flush begins the period.
    flush(1).await?;
    let taken = RoundTrips { known_ids: flush(1).await?, new_ids: flush(3).await? };
    tracker.shutdown().await?;
    Ok(taken)
}

impl Wire {
    fn cuts(&self) -> MutexGuard<'_, VecDeque<(Cut, Ending)>> {
        self.cuts.lock().expect("no holder of this lock panics")
    }

    /// The cut that strikes at this message, if one does.
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

    /// Carries one client's messages until either side closes, or a cut strikes.
    async fn carry(&self, client: TcpStream) -> io::Result<()> {
        match &self.server {
            Address::Tcp(host, port) => {
                let (input, output) = TcpStream::connect((host.as_str(), *port)).await?.into_split();
                self.between(client, input, output).await
            }
            Address::Unix(path) => {
                let (input, output) = UnixStream::connect(path).await?.into_split();
                self.between(client, input, output).await
            }
        }
    }

    async fn between(
        &self,
        client: TcpStream,
        from_server: impl AsyncRead + Unpin,
        to_server: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let (from_client, to_client) = client.into_split();
        let answers = Answers { to_client: to_client.into(), muted: false.into(), committed: Notify::new() };
        let ending = tokio::select! {
            ended = self.forward(Messages::of(from_client), to_server, &answers) => ended?,
            ended = answers.forward(from_server) => ended.map(|()| Ending::Fin)?,
        };
        if ending == Ending::Reset {
            let to_client = answers.to_client.into_inner();
            to_client.as_ref().set_zero_linger()?;
            // Dropping it would send an orderly end before the reset.
            to_client.forget();
        }
        Ok(())
    }

    /// Hands the server what the client says. The connection is cut when this ends.
    async fn forward(
        &self,
        mut messages: Messages,
        mut to_server: impl AsyncWrite + Unpin,
        answers: &Answers,
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
                    answers.muted.store(true, Ordering::Relaxed);
                    if cut == Cut::CommitDelayed {
                        answers.to_client.lock().await.shutdown().await?;
                        self.deliver.notified().await;
                    }
                    to_server.write_all(&bytes).await?;
                    answers.committed.notified().await;
                    if cut != Cut::Silence {
                        return Ok(ending);
                    }
                }
            }
        }
    }
}

/// The way from the server to a client.
struct Answers {
    to_client: tokio::sync::Mutex<OwnedWriteHalf>,
    /// The client gets nothing more.
    muted: AtomicBool,
    /// Told when the server has answered a commit that the client does not get the answer of.
    committed: Notify,
}

impl Answers {
    async fn forward(&self, mut from_server: impl AsyncRead + Unpin) -> io::Result<()> {
        let (mut buffer, mut swallowed) = (vec![0; 1 << 16], Vec::new());
        loop {
            let length = from_server.read(&mut buffer).await?;
            match length {
                0 => return Ok(()),
                _ if self.muted.load(Ordering::Relaxed) => {
                    swallowed.extend(&buffer[..length]);
                    if swallowed.ends_with(COMMITTED) {
                        self.committed.notify_one();
                    }
                }
                _ => self.to_client.lock().await.write_all(&buffer[..length]).await?,
            }
        }
    }
}

/// What a client says, as far as it matters here.
#[derive(Clone, Copy, Default)]
struct Message {
    /// Usage is to be written: the statement is executed, not only prepared.
    writes: bool,
    commits: bool,
    /// The client waits for a reply.
    requests: bool,
}

/// A client's messages, read one by one: a type (not in the first ones), a length that counts itself, a body.
struct Messages {
    from_client: OwnedReadHalf,
    started: bool,
    /// The names under which statements that write usage were prepared.
    writing: Vec<Vec<u8>>,
}

/// What tells a statement that writes usage from one that reads it.
const WRITES: [&str; 2] = ["INSERT INTO boundary_usage_stats AS s", "UPDATE boundary_usage_stats AS s"];

fn writes_usage(statement: &[u8]) -> bool {
    let statement = String::from_utf8_lossy(statement);
    WRITES.iter().any(|write| statement.contains(write))
}

/// The code of the message that starts a session: the version of the protocol, 3.0.
const START: &[u8] = &[0, 3, 0, 0];

impl Messages {
    fn of(from_client: OwnedReadHalf) -> Self {
        Self { from_client, started: false, writing: Vec::new() }
    }

    async fn next(&mut self) -> io::Result<(Message, Vec<u8>)> {
        let mut bytes = if self.started { vec![self.from_client.read_u8().await?] } else { Vec::new() };
        let length = self.from_client.read_u32().await?;
        bytes.extend(length.to_be_bytes());
        let start = bytes.len();
        bytes.resize(start + (length as usize).saturating_sub(4), 0);
        self.from_client.read_exact(&mut bytes[start..]).await?;
        let kind = if self.started { bytes[0] } else { 0 };
        let message = self.recognise(kind, &bytes[start..]);
        Ok((message, bytes))
    }

    /// Returns when the client closes the connection.
    async fn end(&mut self) -> io::Result<()> {
        tokio::io::copy(&mut self.from_client, &mut tokio::io::sink()).await.map(drop)
    }

    fn recognise(&mut self, kind: u8, body: &[u8]) -> Message {
        let mut texts = body.split(|byte| *byte == 0);
        let (first, second) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        let mut message = Message { requests: matches!(kind, b'Q' | b'S'), ..Message::default() };
        match kind {
            0 => self.started = body.starts_with(START),
            b'Q' => {
                message.commits = first == b"COMMIT";
                message.writes = writes_usage(first);
            }
            // A driver that prepares nothing under a name uses the empty name again and again.
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

async fn accept(listener: TcpListener, wire: Arc<Wire>) {
    while let Ok((client, _)) = listener.accept().await {
        if wire.refuses.load(Ordering::Relaxed) {
            continue;
        }
        let wire = wire.clone();
        // An error is an end like any other: the client sees its connection closed.
        tokio::spawn(async move { wire.carry(client).await });
    }
}
