//! The task of one audit socket.
//!
//! This task accepts clients, and restores the socket's file.

use std::sync::Arc;
use std::time::Duration;

use boundary_usage::Tracker;
use tokio::net::UnixStream;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection::{Connection, Stop};
use super::group::SocketGroup;
use super::listener::{SocketFile, is_out_of_descriptors};
use super::report::{Endpoint, Notice};
use crate::slots::{Slot, Slots};

/// Time between two checks of the socket's file and of repeated log lines.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// The pause after a failed accept.
///
/// The usual reason is that all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The task of one audit socket.
pub(super) struct Acceptor {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) group: Option<SocketGroup>,
    pub(super) tracker: Tracker,
    pub(super) connections: TaskTracker,
    pub(super) stop: Stop,
    /// Slots for the clients of this socket, so that other sockets keep theirs.
    pub(super) own_slots: Slots,
    /// Slots for the clients of all sockets.
    pub(super) all_slots: Arc<Slots>,
}

impl Acceptor {
    /// Serves the socket until the server stops.
    ///
    /// After the stop, it accepts the clients that have already connected, and no others.
    pub(super) async fn run(self, mut file: SocketFile) {
        let drain = self.stop.drain.clone();
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                _ = watch.tick() => {
                    self.endpoint.log_repeated();
                    if drain.run_until_cancelled(self.restore(&mut file)).await.is_none() {
                        break;
                    }
                }
                (stream, slot, close) = self.accept(&file) => {
                    let all = self.all_slots.clone();
                    self.connections.spawn(self.connection(stream).run_in(slot, close, all));
                }
            }
        }
        self.close(file).await;
    }

    /// Waits for a slot, and then for a client. Dropping the future loses no client.
    async fn accept(&self, file: &SocketFile) -> (UnixStream, Slot, CancellationToken) {
        let close = CancellationToken::new();
        let slot = self.own_slots.take(&close).await;
        loop {
            match file.accept().await {
                Ok(stream) => return (stream, slot, close),
                Err(error) => {
                    if is_out_of_descriptors(&error) {
                        self.all_slots.make_room();
                    }
                    if self.endpoint.permits(Notice::NotAccepted) {
                        warn!(socket = %self.endpoint.path.display(), %error, "{}", Notice::NotAccepted.text());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(&self, stream: UnixStream) -> Connection {
        Connection::new(stream, self.endpoint.clone(), self.tracker.clone(), self.stop.clone())
    }

    /// Binds the socket again if its file was removed or replaced.
    async fn restore(&self, file: &mut SocketFile) {
        if file.is_in_place() {
            self.endpoint.set_fault(None);
            return;
        }
        let socket = file.path().display().to_string();
        let fault = format!("the file of the audit socket {socket} was removed or replaced");
        if self.endpoint.report().fault.is_none() {
            warn!("{fault}; binding it again");
            self.endpoint.set_fault(Some(fault.clone()));
        }
        match SocketFile::bind(file.path(), self.group).await {
            Ok(bound) => {
                self.endpoint.set_fault(None);
                warn!(%socket, "bound the audit socket again");
                self.close(std::mem::replace(file, bound)).await;
            }
            Err(error) => {
                let fault = format!("{fault}, and it cannot be bound again: {error:#}");
                let is_permitted = self.endpoint.permits(Notice::Unavailable);
                if self.endpoint.set_fault(Some(fault.clone())) || is_permitted {
                    warn!("{fault}");
                }
            }
        }
    }

    /// Closes this socket, and serves the clients that have already connected.
    async fn close(&self, file: SocketFile) {
        let serve = |stream| drop(self.connections.spawn(self.connection(stream).run()));
        let closed = self.stop.give_up.run_until_cancelled(file.close(serve)).await;
        let socket = self.endpoint.path.display();
        match closed {
            Some(Ok(())) => debug!(%socket, "the socket is closed for new clients"),
            Some(Err(error)) => warn!(%socket, "the clients in the accept queue are lost: {error:#}"),
            None => warn!(%socket, "the clients in the accept queue are lost: no file descriptor is free"),
        }
    }
}
