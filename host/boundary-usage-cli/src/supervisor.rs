//! Notifications of a supervisor such as systemd, by `sd_notify`.
//!
//! Without NOTIFY_SOCKET in the environment, nothing is sent. See
//! <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>.

use std::time::Duration;

use boundary_usage::{Database, Tracker};
use sd_notify::NotifyState;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

/// Time between two updates of the status line.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);

/// Reports that the process serves.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports the begin of a reload. [`ready`] reports its end.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot read the clock for the supervisor"),
    }
}

/// Reports that the process stops.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Reports the status and that the process is alive, until the handle is dropped.
///
/// The watchdog hears nothing once the tracker has ended, because the process then counts nothing.
pub fn report(tracker: Tracker, database: Database) -> Option<AbortOnDropHandle<()>> {
    std::env::var_os("NOTIFY_SOCKET")?;
    let watchdog = sd_notify::watchdog_enabled();
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::join!(keep_alive(&tracker, watchdog), describe(&tracker, &database));
    })))
}

async fn keep_alive(tracker: &Tracker, watchdog: Option<Duration>) {
    let Some(limit) = watchdog else { return };
    while !tracker.status().stopped {
        notify(&[NotifyState::Watchdog]);
        tokio::time::sleep(limit / 3).await;
    }
}

/// Reports the numbers of the open period.
async fn describe(tracker: &Tracker, database: &Database) {
    loop {
        notify(&[NotifyState::Status(&status_line(tracker, database).await)]);
        tokio::time::sleep(STATUS_INTERVAL).await;
    }
}

async fn status_line(tracker: &Tracker, database: &Database) -> String {
    let waiting = tracker.status().pending_activities;
    match database.status().await {
        Ok(status) => {
            let so_far = status.so_far;
            format!(
                "open period: {} workspaces, {} users, {} allowed, {} denied; {waiting} activities to flush",
                so_far.unique_workspaces, so_far.unique_users, so_far.allowed_requests, so_far.denied_requests
            )
        }
        Err(error) => format!("{error}; {waiting} activities to flush"),
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify the supervisor");
    }
}
