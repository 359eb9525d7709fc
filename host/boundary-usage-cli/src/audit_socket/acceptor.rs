//! The task of one audit socket: accepts clients, and looks after the socket's file.

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

/// Time between two looks at the socket's file and at the counts of repeated log lines.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// After a failed accept, most likely because all file descriptors are in use: time for some to become free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the task of one socket needs.
pub(super) struct Acceptor {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) group: Option<SocketGroup>,
    pub(super) tracker: Tracker,
    pub(super) connections: TaskTracker,
    pub(super) stop: Stop,
    /// Places for the clients of this socket, so that they leave some to those of others.
    pub(super) own_slots: Slots,
    /// Places for the clients of all sockets.
    pub(super) all_slots: Arc<Slots>,
}

impl Acceptor {
    /// Serves the socket until the server stops; then lets no further client connect, and serves those that have.
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
                    if drain.run_until_cancelled(self.look_after(&mut file)).await.is_none() {
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

    /// Waits for a place, and then for a client. Dropping the future loses nothing.
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

    /// Binds the socket again if its file was removed or replaced: clients look for the file.
    async fn look_after(&self, file: &mut SocketFile) {
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

    /// Lets no further client connect to this file, and serves those that have connected.
    async fn close(&self, file: SocketFile) {
        let serve = |stream| drop(self.connections.spawn(self.connection(stream).run()));
        let closed = self.stop.give_up.run_until_cancelled(file.close(serve)).await;
        let socket = self.endpoint.path.display();
        match closed {
            Some(Ok(())) => debug!(%socket, "accepts no more clients"),
            Some(Err(error)) => warn!(%socket, "clients that waited to be accepted are lost: {error:#}"),
            None => warn!(%socket, "clients that waited to be accepted are lost: there was no free file descriptor"),
        }
    }
}
