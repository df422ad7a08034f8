//! Deliveries that nobody waits for: event hooks. They run beside the ticks and end with the daemon.

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

/// Deliveries under way at the same time; further ones wait in line.
const CONCURRENT: usize = 32;
/// Deliveries waiting in line; more are dropped with a warning, because a receiver that is down must not fill memory.
const WAITING: usize = 4096;

/// Hands work to the background.
#[derive(Clone)]
pub(crate) struct Background(mpsc::Sender<BoxFuture<'static, ()>>);

impl Background {
    /// The sender, and the future that does the work until it is dropped.
    pub(crate) fn new() -> (Self, BoxFuture<'static, ()>) {
        let (sender, mut receiver) = mpsc::channel::<BoxFuture<'static, ()>>(WAITING);
        let work = async move {
            let mut running = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(()) = running.next(), if !running.is_empty() => {}
                    next = receiver.recv(), if running.len() < CONCURRENT => match next {
                        Some(work) => running.push(work),
                        None => break,
                    },
                }
            }
            while running.next().await.is_some() {}
        };
        (Self(sender), Box::pin(work))
    }

    /// Starts a delivery, or drops it when too many wait.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if self.0.try_send(Box::pin(work)).is_err() {
            tracing::warn!("an event hook was dropped: too many wait");
        }
    }
}
