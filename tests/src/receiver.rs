//! An HTTP receiver of summaries, whose replies a test selects.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// The reply to a request.
///
/// Requests without a selected reply receive [`Reply::Status`] 200.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// This status. A redirect leads to `/elsewhere`.
    Status(u16),
    /// This status, and `Retry-After` with this number of seconds.
    RetryAfter(u16, u32),
    /// This status, and `Retry-After` with the date in this number of seconds.
    RetryAt(u16, u32),
    /// A text that is not HTTP.
    Nonsense,
    /// No reply: the receiver closes the connection.
    HangUp,
    /// No reply, and the connection stays open.
    Hang,
    /// The status 200, after the client has closed the connection.
    Late,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Received {
    /// The request line.
    pub line: String,
    /// The headers, with lower-case names.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Value,
}

impl Received {
    /// Returns the value of a header, or an empty text if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(header, _)| header == name).map_or("", |(_, value)| value)
    }
}

/// A running receiver. It ends with the process.
pub struct Receiver {
    /// The address for clients.
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    replies: Mutex<VecDeque<Reply>>,
    received: Mutex<Vec<Received>>,
    has_received: Condvar,
    tls: Option<Arc<ServerConfig>>,
}

impl Receiver {
    /// Starts a receiver on loopback.
    ///
    /// # Errors
    ///
    /// Returns an error if no port is free.
    pub fn start(replies: impl IntoIterator<Item = Reply>) -> Result<Self> {
        Self::start_with(replies.into_iter().collect(), None)
    }

    /// Starts a receiver on loopback with TLS. The files have the PEM format.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read, or if no port is free.
    pub fn start_tls(certificate: &Path, key: &Path) -> Result<Self> {
        let certificate = CertificateDer::from_pem_file(certificate)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], PrivateKeyDer::from_pem_file(key)?)?;
        Self::start_with(VecDeque::new(), Some(Arc::new(config)))
    }

    fn start_with(replies: VecDeque<Reply>, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (replies, received) = (Mutex::new(replies), Mutex::default());
        let state = Arc::new(State { replies, received, has_received: Condvar::new(), tls });
        let serving = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = serving.clone();
                // The error can be ignored, because a client may close its connection at any time.
                std::thread::spawn(move || state.serve(stream).ok());
            }
        });
        Ok(Self { address, state })
    }

    /// Returns all requests that have been received.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("no holder of this lock panics").clone()
    }

    /// Waits until at least this number of requests have been received, and returns them.
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        let received = self.state.received.lock().expect("no holder of this lock panics");
        let enough = self.state.has_received.wait_while(received, |received| received.len() < count);
        enough.expect("no holder of this lock panics").clone()
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> Result<()> {
        match &self.tls {
            None => self.reply(BufReader::new(stream)),
            Some(config) => {
                let connection = ServerConnection::new(config.clone())?;
                self.reply(BufReader::new(StreamOwned::new(connection, stream)))
            }
        }
    }

    /// Reads a request, and sends the next reply.
    fn reply<S: Read + Write>(&self, mut stream: BufReader<S>) -> Result<()> {
        let received = read(&mut stream)?;
        let reply = self.replies.lock().expect("no holder of this lock panics").pop_front();
        self.received.lock().expect("no holder of this lock panics").push(received);
        self.has_received.notify_all();
        let text = match reply.unwrap_or(Reply::Status(200)) {
            Reply::Status(status) => head(status, ""),
            Reply::RetryAfter(status, seconds) => head(status, &format!("retry-after: {seconds}\r\n")),
            Reply::RetryAt(status, seconds) => {
                let date = chrono::Utc::now() + chrono::TimeDelta::seconds(seconds.into());
                head(status, &date.format("retry-after: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string())
            }
            Reply::Nonsense => "nonsense\r\n\r\n".into(),
            Reply::HangUp => return Ok(()),
            Reply::Hang => {
                stream.read_to_end(&mut Vec::new())?;
                return Ok(());
            }
            Reply::Late => {
                stream.read_to_end(&mut Vec::new())?;
                head(200, "")
            }
        };
        stream.get_mut().write_all(text.as_bytes())?;
        Ok(stream.get_mut().flush()?)
    }
}

fn head(status: u16, more: &str) -> String {
    let common = "location: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n";
    format!("HTTP/1.1 {status} selected\r\n{common}{more}\r\n")
}

fn read(stream: &mut impl BufRead) -> Result<Received> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line)? > 0, "the client closed the connection");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    ensure!(!lines.is_empty(), "the request is empty");
    let line = lines.remove(0);
    let header = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: Vec<_> = lines.iter().filter_map(header).collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .context("the request has no content-length")?
        .1
        .parse()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Received { line, headers, body: serde_json::from_slice(&body)? })
}
