//! The reports of all sockets, also of those that a reload has removed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::report::{Endpoint, SocketReport};

/// A handle to the reports of all sockets, valid even after the server's end.
///
/// Clones are cheap and share the reports.
#[derive(Clone, Debug, Default)]
pub struct SocketReports(Arc<Mutex<Endpoints>>);

#[derive(Debug, Default)]
struct Endpoints {
    served: Vec<Arc<Endpoint>>,
    /// Removed sockets whose connections may still count.
    leaving: Vec<Arc<Endpoint>>,
    /// The sum of removed sockets without connections. The counts of a process never decrease.
    removed: Option<SocketReport>,
}

impl SocketReports {
    /// Returns the current report of each socket, and the sum of the removed ones, if there are any.
    pub fn now(&self) -> Vec<SocketReport> {
        let endpoints = self.endpoints();
        let mut reports: Vec<_> = endpoints.served.iter().map(|endpoint| endpoint.report()).collect();
        if endpoints.removed.is_some() || !endpoints.leaving.is_empty() {
            let mut sum = endpoints.removed.clone().unwrap_or_default();
            endpoints.leaving.iter().for_each(|endpoint| sum.add(&endpoint.report()));
            reports.push(SocketReport { is_removed: true, ..sum });
        }
        reports
    }

    /// Returns the number of logs that clients have reported as dropped. It never decreases.
    pub fn dropped_logs(&self) -> u64 {
        self.now().iter().map(SocketReport::dropped_logs).fold(0, u64::saturating_add)
    }

    pub(super) fn add(&self, endpoint: Arc<Endpoint>) {
        self.endpoints().served.push(endpoint);
    }

    /// Moves the counts of a socket to those of the removed ones.
    pub(super) fn remove(&self, endpoint: &Arc<Endpoint>) {
        let mut endpoints = self.endpoints();
        endpoints.served.retain(|served| !Arc::ptr_eq(served, endpoint));
        endpoints.leaving.push(endpoint.clone());
    }

    /// Adds up removed sockets whose last connection has ended, so that many reloads need no memory.
    pub(super) fn compact(&self) {
        let mut endpoints = self.endpoints();
        let Endpoints { leaving, removed, .. } = &mut *endpoints;
        leaving.retain(|endpoint| {
            let is_unused = Arc::strong_count(endpoint) == 1;
            if is_unused {
                removed.get_or_insert_default().add(&endpoint.report());
            }
            !is_unused
        });
    }

    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
