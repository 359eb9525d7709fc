//! A client's connection, which decodes frames and tracks their requests.
//!
//! A client cannot harm other clients. A malformed frame ends only its own connection. A full intake makes only this
//! connection wait, and the client's writes block.
//!
//! A connection that the server ends loses nothing. First the server shuts down the reading side. From then on, each
//! write of the client fails, and the client sends that batch again over its next connection. Then the server reads all
//! earlier writes. Therefore the server counts exactly the frames that the client has written completely.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use boundary_usage::{TrackError, Tracker};
use socket2::SockRef;
use tokio::net::UnixStream;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::codec::{Frame, FrameCodec, FrameError};
use super::decode::{MAX_LOGS_PER_BATCH, Received, receive};
use super::report::{Endpoint, Notice};
use crate::slots::{Slot, Slots};

/// The buffer size of one read, which has room for many frames.
const READ_BYTES: usize = 8 * 1024;

/// The time without a byte after which a connection is ended.
///
/// A live client reconnects.
const IDLE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Time between two attempts to track while the intake is full.
///
/// The tracker drains the intake a hundred times a second.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// The tokens that end all connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Makes each connection read all earlier writes, and then end.
    pub(super) drain: CancellationToken,
    /// Makes connections stop waiting for the tracker.
    pub(super) give_up: CancellationToken,
}

/// An accepted connection.
pub(super) struct Connection {
    endpoint: Arc<Endpoint>,
    stream: UnixStream,
    buffer: BytesMut,
    tracker: Tracker,
    stop: Stop,
    /// The connection's slots: one of its socket, and one of all sockets together.
    ///
    /// Empty if the server is stopping.
    slots: Vec<Slot>,
    /// Cancelled if another client needs one of these slots.
    close: CancellationToken,
    /// The client's process id, for the log.
    peer: i32,
    frames: u64,
    /// Whether the reading side is shut down.
    is_ending: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, endpoint: Arc<Endpoint>, tracker: Tracker, stop: Stop) -> Self {
        let peer = stream.peer_cred().ok().and_then(|credentials| credentials.pid()).unwrap_or_default();
        endpoint.count(|report| report.connections += 1);
        let (buffer, slots, close) = (BytesMut::new(), Vec::new(), CancellationToken::new());
        Self { endpoint, stream, buffer, tracker, stop, slots, close, peer, frames: 0, is_ending: false }
    }

    /// Runs the connection in the given slot of its socket.
    ///
    /// Waits for a slot among the clients of all sockets.
    pub(super) async fn run_in(mut self, own: Slot, close: CancellationToken, all: Arc<Slots>) {
        own.set_active();
        let stop = self.stop.drain.clone();
        self.slots = std::iter::once(own).chain(stop.run_until_cancelled(all.take(&close)).await).collect();
        self.close = close;
        self.run().await;
    }

    /// Tracks what the client sends until the connection ends.
    pub(super) async fn run(mut self) {
        debug!(socket = %self.endpoint.path.display(), peer = self.peer, "connected");
        match self.read_frames().await {
            Ok(()) => debug!(socket = %self.endpoint.path.display(), peer = self.peer, "disconnected"),
            Err(error) => self.report_end(&error),
        }
        if self.frames == 0 {
            self.endpoint.ended_without_frame(self.peer);
        }
    }

    async fn read_frames(&mut self) -> Result<(), FrameError> {
        loop {
            while let Some(frame) = FrameCodec.decode(&mut self.buffer)? {
                self.frames += 1;
                self.count(&frame).await;
            }
            if !self.read().await? {
                return FrameCodec.decode_eof(&mut self.buffer).map(drop);
            }
        }
    }

    /// Reads more bytes. Returns false at the end of the stream.
    async fn read(&mut self) -> io::Result<bool> {
        while !self.is_ending && !self.stop.drain.is_cancelled() && !self.close.is_cancelled() {
            self.buffer.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(read) => {
                    self.slots.iter().for_each(Slot::set_active);
                    // Yield to other tasks, even if the client writes without a pause.
                    tokio::task::consume_budget().await;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.buffer.is_empty() {
                        // An idle connection needs no buffer.
                        self.buffer = BytesMut::new();
                    }
                    self.wait().await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.read_rest()
    }

    /// Waits until there is something to read or the connection must end.
    async fn wait(&mut self) -> io::Result<()> {
        tokio::select! {
            ready = self.stream.readable() => return ready,
            () = self.stop.drain.cancelled() => {}
            () = self.close.cancelled() => debug!(peer = self.peer, "ending an idle connection for another client"),
            () = tokio::time::sleep(IDLE_LIMIT) => {
                debug!(peer = self.peer, limit = ?IDLE_LIMIT, "ending an idle connection");
            }
        }
        self.end()
    }

    /// Shuts the reading side down, so that further writes of the client fail.
    fn end(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_ending, true) {
            match SockRef::from(&self.stream).shutdown(Shutdown::Read) {
                // The client has already disconnected.
                Err(error) if error.kind() == ErrorKind::NotConnected => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Reads the data that the client wrote before its writes began to fail.
    ///
    /// The size of the system's buffer bounds the amount of data.
    fn read_rest(&mut self) -> io::Result<bool> {
        self.end()?;
        let mut bytes = [0; READ_BYTES];
        // The runtime would wait for an event first, so read from the socket directly.
        let socket = SockRef::from(&self.stream);
        loop {
            match (&*socket).read(&mut bytes) {
                Ok(read) => {
                    self.buffer.extend_from_slice(&bytes[..read]);
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Counts a frame, and tracks its requests.
    async fn count(&mut self, frame: &Frame) {
        let (socket, peer) = (self.endpoint.path.display(), self.peer);
        match receive(frame) {
            Ok(Received::Batch { allowed, denied, skipped }) => {
                if skipped > 0 {
                    self.endpoint.count(|report| report.skipped_logs += skipped);
                    self.warn(Notice::Skipped, format_args!("{skipped} logs"));
                }
                if allowed > 0 || denied > 0 {
                    self.track(allowed, denied).await;
                }
            }
            Ok(Received::Refused { logs }) => {
                self.endpoint.count(|report| report.refused_batches += 1);
                self.warn(Notice::Refused, format_args!("{logs} logs; the limit is {MAX_LOGS_PER_BATCH}"));
            }
            Ok(Received::Dropped { channel_full, batch_full }) => {
                self.endpoint.count(|report| {
                    report.dropped_channel_full = report.dropped_channel_full.saturating_add(channel_full);
                    report.dropped_batch_full = report.dropped_batch_full.saturating_add(batch_full);
                });
                if channel_full > 0 || batch_full > 0 {
                    self.warn(
                        Notice::Dropped,
                        format_args!("{channel_full} with a full queue, {batch_full} without a connection"),
                    );
                }
            }
            Ok(Received::Unknown) => debug!(%socket, peer, "skipped a message of an unknown kind"),
            Err(error) => {
                self.endpoint.count(|report| report.undecodable_frames += 1);
                self.warn(Notice::Undecodable, format_args!("{error}"));
            }
        }
    }

    /// Passes a batch to the tracker.
    ///
    /// While the intake is full, the connection waits, and so does the client.
    async fn track(&mut self, allowed: u64, denied: u64) {
        loop {
            match self.endpoint.try_track(&self.tracker, allowed, denied) {
                Ok(()) => {
                    return self.endpoint.count(|report| {
                        report.batches += 1;
                        report.allowed += allowed;
                        report.denied += denied;
                    });
                }
                Err(TrackError::Full { .. }) => {
                    let pause = tokio::time::sleep(FULL_PAUSE);
                    if self.stop.give_up.run_until_cancelled(pause).await.is_none() {
                        return self.discard(allowed + denied, format_args!("the intake is full during the stop"));
                    }
                }
                Err(error) => {
                    self.discard(allowed + denied, format_args!("{error}"));
                    // Further writes of the client then fail, so the client keeps its batches.
                    if let Err(error) = self.end() {
                        debug!(peer = self.peer, %error, "cannot end a connection");
                    }
                    return;
                }
            }
        }
    }

    /// Counts a received batch that cannot be tracked.
    fn discard(&self, requests: u64, reason: std::fmt::Arguments<'_>) {
        self.endpoint.count(|report| {
            report.left_batches += 1;
            report.left_requests += requests;
        });
        self.warn(Notice::Left, reason);
    }

    /// Logs an event, unless there are too many lines of its kind.
    fn warn(&self, notice: Notice, detail: std::fmt::Arguments<'_>) {
        if self.endpoint.permits(notice) {
            let (socket, workspace) = (self.endpoint.path.display(), self.endpoint.workspace);
            warn!(%socket, %workspace, peer = self.peer, "{}: {detail}", notice.text());
        }
    }

    fn report_end(&self, error: &FrameError) {
        let (socket, peer) = (self.endpoint.path.display(), self.peer);
        match error {
            // The client sends the batch again when it reconnects.
            FrameError::Io(error) => debug!(%socket, peer, %error, "connection lost"),
            // The client sends this batch again, because its write failed.
            FrameError::CutOff(_) if self.is_ending => debug!(%socket, peer, "ended inside a frame"),
            malformed => {
                self.endpoint.count(|report| report.malformed_frames += 1);
                self.warn(Notice::Malformed, format_args!("{malformed}"));
            }
        }
    }
}
