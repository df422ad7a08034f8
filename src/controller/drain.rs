//! Asking the loops to end between two pieces of work: a tick or a pass that has begun runs to its end, none begins.

use std::sync::Arc;

use tokio::sync::watch;

/// A request to end, shared by all loops.
#[derive(Debug, Clone)]
pub struct Drain(Arc<watch::Sender<bool>>);

impl Default for Drain {
    fn default() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }
}

impl Drain {
    /// Has every loop end as soon as what it is doing is done.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether the loops are to end.
    pub(crate) fn begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the loops are to end.
    pub(crate) async fn wait(&self) {
        // The sender lives as long as `self`.
        self.0.subscribe().wait_for(|begun| *begun).await.ok();
    }
}
