//! A client that behaves like the real boundary client, for the demo and tests.
//!
//! The client writes a frame for each batch of ten decisions and reads nothing. After a failed write, the client
//! reconnects and sends the batch again. The real client also sends an incomplete batch after five seconds. The caller
//! of this client does so with [`AuditClient::flush`].

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Encoder;

use super::codec::{Frame, FrameCodec, Tag};
use super::message::{BoundaryLog, HttpRequest, ReportBoundaryLogsRequest, Resource, Timestamp};

/// The number of decisions in a batch.
const BATCH: usize = 10;

/// A client that reports decisions.
pub struct AuditClient {
    path: PathBuf,
    stream: UnixStream,
    batch: Vec<BoundaryLog>,
    sequence_number: i32,
}

impl AuditClient {
    /// Connects to an audit socket.
    ///
    /// # Errors
    ///
    /// Returns an error if no process listens on the socket.
    pub async fn connect(path: &Path) -> Result<Self> {
        let stream = connect(path).await?;
        Ok(Self { path: path.to_owned(), stream, batch: Vec::new(), sequence_number: 0 })
    }

    /// Reports one decision, and sends the batch if it is full.
    ///
    /// # Errors
    ///
    /// Returns an error if neither this connection nor a new one accepts the batch.
    pub async fn report(&mut self, allowed: bool, url: &str) -> Result<()> {
        self.sequence_number += 1;
        self.batch.push(BoundaryLog {
            allowed,
            time: Some(now()),
            resource: Some(Resource::HttpRequest(HttpRequest {
                method: "GET".into(),
                url: url.into(),
                matched_rule: if allowed { "domain=*.example".into() } else { String::new() },
            })),
            sequence_number: self.sequence_number,
        });
        if self.batch.len() == BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    /// Sends an incomplete batch.
    ///
    /// # Errors
    ///
    /// See [`report`](Self::report).
    pub async fn flush(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let logs = std::mem::take(&mut self.batch);
        let request =
            ReportBoundaryLogsRequest { logs, session_id: "demo".into(), confined_process_name: "agent".into() };
        let mut bytes = BytesMut::new();
        FrameCodec.encode(&Frame { tag: Tag::Logs, data: request.encode_to_vec().into() }, &mut bytes)?;
        if self.stream.write_all(&bytes).await.is_err() {
            self.stream = connect(&self.path).await?;
            self.stream.write_all(&bytes).await.context("cannot send a batch over a new connection either")?;
        }
        Ok(())
    }

    /// Sends an incomplete batch, and waits until the server has read everything.
    ///
    /// # Errors
    ///
    /// See [`report`](Self::report).
    pub async fn finish(mut self) -> Result<()> {
        self.flush().await?;
        self.stream.shutdown().await.context("cannot end the connection")?;
        // The server writes nothing, so this read ends when the server closes the connection.
        self.stream.read_to_end(&mut Vec::new()).await.context("the server did not end the connection")?;
        Ok(())
    }
}

async fn connect(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path).await.with_context(|| format!("cannot connect to the audit socket {}", path.display()))
}

fn now() -> Timestamp {
    let elapsed = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp { seconds: elapsed.as_secs().cast_signed(), nanos: elapsed.subsec_nanos().cast_signed() }
}
