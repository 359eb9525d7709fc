//! A receiver of summaries, which answers each request as it is told: with a status, too late, not at all.

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

/// What happens to a request. Without any left, it is [`Answer::Status`] 200.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// It is answered with this status; a redirect leads to `/elsewhere`.
    Status(u16),
    /// It is answered with this status, and `Retry-After` with this many seconds.
    RetryAfter(u16, u32),
    /// It is answered with this status, and `Retry-After` with the date that is this many seconds ahead.
    RetryAt(u16, u32),
    /// It is answered with something else than HTTP.
    Nonsense,
    /// The connection ends without an answer.
    HangUp,
    /// It is never answered.
    Hang,
    /// It is answered with 200, once the client has given up.
    Late,
}

/// A request, as it came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// The request line.
    pub line: String,
    /// The headers, with their names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Value,
}

impl Received {
    /// The value of a header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(header, _)| header == name).map_or("", |(_, value)| value)
    }
}

/// A running receiver. It ends with the process.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    answers: Mutex<VecDeque<Answer>>,
    received: Mutex<Vec<Received>>,
    more: Condvar,
    tls: Option<Arc<ServerConfig>>,
}

impl Receiver {
    /// Listens on loopback.
    ///
    /// # Errors
    ///
    /// When there is no port.
    pub fn start(answers: impl IntoIterator<Item = Answer>) -> Result<Self> {
        Self::start_with(answers.into_iter().collect(), None)
    }

    /// Listens on loopback, with TLS; the files are PEM.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn start_tls(certificate: &Path, key: &Path) -> Result<Self> {
        let certificate = CertificateDer::from_pem_file(certificate)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], PrivateKeyDer::from_pem_file(key)?)?;
        Self::start_with(VecDeque::new(), Some(Arc::new(config)))
    }

    fn start_with(answers: VecDeque<Answer>, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (answers, received) = (Mutex::new(answers), Mutex::default());
        let state = Arc::new(State { answers, received, more: Condvar::new(), tls });
        let serving = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = serving.clone();
                // A client that goes away in the middle is a client's right.
                std::thread::spawn(move || state.serve(stream).ok());
            }
        });
        Ok(Self { address, state })
    }

    /// What came in so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("no holder of this lock panics").clone()
    }

    /// Waits until as many requests have come in.
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        let received = self.state.received.lock().expect("no holder of this lock panics");
        let enough = self.state.more.wait_while(received, |received| received.len() < count);
        enough.expect("no holder of this lock panics").clone()
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> Result<()> {
        match &self.tls {
            None => self.answer(BufReader::new(stream)),
            Some(config) => {
                let connection = ServerConnection::new(config.clone())?;
                self.answer(BufReader::new(StreamOwned::new(connection, stream)))
            }
        }
    }

    fn answer<S: Read + Write>(&self, mut stream: BufReader<S>) -> Result<()> {
        let received = read(&mut stream)?;
        let answer = self.answers.lock().expect("no holder of this lock panics").pop_front();
        self.received.lock().expect("no holder of this lock panics").push(received);
        self.more.notify_all();
        let text = match answer.unwrap_or(Answer::Status(200)) {
            Answer::Status(status) => head(status, ""),
            Answer::RetryAfter(status, seconds) => head(status, &format!("retry-after: {seconds}\r\n")),
            Answer::RetryAt(status, seconds) => {
                let date = chrono::Utc::now() + chrono::TimeDelta::seconds(seconds.into());
                head(status, &date.format("retry-after: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string())
            }
            Answer::Nonsense => "nonsense\r\n\r\n".into(),
            Answer::HangUp => return Ok(()),
            Answer::Hang => {
                stream.read_to_end(&mut Vec::new())?;
                return Ok(());
            }
            Answer::Late => {
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
    format!("HTTP/1.1 {status} as told\r\n{common}{more}\r\n")
}

fn read(stream: &mut impl BufRead) -> Result<Received> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line)? > 0, "the client has gone");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    ensure!(!lines.is_empty(), "no request");
    let line = lines.remove(0);
    let header = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: Vec<_> = lines.iter().filter_map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").context("no length")?.1.parse()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Received { line, headers, body: serde_json::from_slice(&body)? })
}
