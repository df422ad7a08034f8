//! Deliveries that nobody waits for: event hooks and alerts. They run beside the ticks and end with the daemon.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

/// Lines that are worked on at the same time; further ones wait.
const CONCURRENT: usize = 32;
/// Deliveries waiting in line; more are dropped with a warning, because a receiver that is down must not fill memory.
const WAITING: usize = 4096;

type Work = BoxFuture<'static, ()>;

/// Hands work to the background.
#[derive(Clone)]
pub(crate) struct Background(mpsc::Sender<(String, Work)>);

impl Background {
    /// The sender, and the future that does the work until it is dropped.
    pub(crate) fn new() -> (Self, BoxFuture<'static, ()>) {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let work = async move {
            let mut lines = Lines::default();
            loop {
                tokio::select! {
                    Some(line) = lines.running.next(), if !lines.running.is_empty() => lines.next(line),
                    next = receiver.recv(), if lines.have_room() => match next {
                        Some((line, work)) => lines.add(line, work),
                        None => break,
                    },
                }
            }
            while let Some(line) = lines.running.next().await {
                lines.next(line);
            }
        };
        (Self(sender), Box::pin(work))
    }

    /// Starts a delivery, or drops it when too many wait. Deliveries of one line run one after another, in this order: a
    /// receiver hears events as they happened.
    pub(crate) fn spawn(&self, line: String, work: impl Future<Output = ()> + Send + 'static) {
        if self.0.try_send((line, Box::pin(work))).is_err() {
            tracing::warn!("an event hook or alert was dropped: too many wait");
        }
    }
}

/// One delivery of each line runs; the others of the line wait for it.
#[derive(Default)]
struct Lines {
    running: FuturesUnordered<BoxFuture<'static, String>>,
    waiting: HashMap<String, VecDeque<Work>>,
    count: usize,
}

impl Lines {
    fn have_room(&self) -> bool {
        self.running.len() < CONCURRENT && self.count < WAITING
    }

    fn add(&mut self, line: String, work: Work) {
        match self.waiting.entry(line) {
            Entry::Occupied(mut line) => {
                line.get_mut().push_back(work);
                self.count += 1;
            }
            Entry::Vacant(line) => {
                let name = line.key().clone();
                line.insert(VecDeque::new());
                self.run(name, work);
            }
        }
    }

    /// The delivery that ran is done: the next of its line begins.
    fn next(&mut self, line: String) {
        match self.waiting.get_mut(&line).and_then(VecDeque::pop_front) {
            Some(work) => {
                self.count -= 1;
                self.run(line, work);
            }
            None => {
                self.waiting.remove(&line);
            }
        }
    }

    fn run(&mut self, line: String, work: Work) {
        self.running.push(Box::pin(async move {
            work.await;
            line
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_line_keeps_its_order_and_holds_up_no_other() {
        let (background, work) = Background::new();
        let (open, gate) = oneshot::channel::<()>();
        let seen: Arc<Mutex<Vec<&str>>> = Arc::default();
        let say = |word: &'static str| {
            let seen = seen.clone();
            async move { seen.lock().unwrap().push(word) }
        };
        let first = say("a1");
        background.spawn("a".to_owned(), async move {
            gate.await.unwrap();
            first.await;
        });
        background.spawn("a".to_owned(), say("a2"));
        let last = say("b");
        background.spawn("b".to_owned(), async move {
            last.await;
            open.send(()).unwrap();
        });
        background.spawn("a".to_owned(), say("a3"));
        drop(background);
        work.await;
        assert_eq!(*seen.lock().unwrap(), ["b", "a1", "a2", "a3"]);
    }
}
