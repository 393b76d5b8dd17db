//! Notifications that wake workers.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// Notifications that work may be available. Missing one only costs latency, because workers also poll the store.
#[derive(Debug, Default)]
pub(super) struct Wakeups {
    /// More messages may be claimable.
    changed: Arc<Notify>,
    /// More transactional messages may be claimable.
    urgent: watch::Sender<()>,
    /// More pages of recipients may be due.
    pages: Notify,
}

impl Wakeups {
    /// More messages may be claimable; `is_urgent`: transactional ones too.
    pub(super) fn wake(&self, is_urgent: bool) {
        if is_urgent {
            self.urgent.send_replace(());
        }
        self.changed.notify_waiters();
    }

    /// Completes with the first [`Wakeups::wake`] after this call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.changed.clone().notified_owned()
    }

    pub(super) fn urgent(&self) -> watch::Receiver<()> {
        self.urgent.subscribe()
    }

    /// More pages of recipients may be due.
    pub(super) fn wake_resolver(&self) {
        self.pages.notify_one();
    }

    pub(super) async fn pages_changed(&self) {
        self.pages.notified().await;
    }
}
