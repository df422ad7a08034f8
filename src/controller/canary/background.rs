//! Deliveries that nobody waits for: event hooks and alerts. They run beside the ticks and end with the daemon. Each kind
//! has a pool of its own, and in it each owner of receivers a share: receivers of one team that are slow or down hold up
//! nobody else's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{BoxFuture, join};
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::ports::{Clock, timeout};

/// Deliveries of one pool that are under way at the same time; further ones wait.
const CONCURRENT: usize = 64;
/// Those of one owner among them.
const SHARE: usize = 8;
/// Deliveries waiting in one pool; more are dropped with a warning, because a receiver that is down must not fill memory.
const WAITING: usize = 4096;
/// Those of one owner among them.
const WAITING_SHARE: usize = 512;
/// How long a delivery may take with all its attempts: nobody waits for it, so only its place does.
const LIMIT: Duration = Duration::from_secs(30);

type Work = BoxFuture<'static, ()>;

/// Deliveries of one line run one after another: a receiver hears events as they happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    /// Whose receiver it is: a namespace, or empty for those of the controller's settings.
    pub(crate) owner: String,
    /// Which canary tells which receiver.
    pub(crate) name: String,
}

/// Hands work to the background.
#[derive(Clone)]
pub(crate) struct Background {
    alerts: mpsc::Sender<(Line, Work)>,
    events: mpsc::Sender<(Line, Work)>,
}

impl Background {
    /// The senders, and the future that does the work until it is dropped.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> (Self, BoxFuture<'static, ()>) {
        let (alerts, sent_alerts) = mpsc::channel(WAITING);
        let (events, sent_events) = mpsc::channel(WAITING);
        let work = join(work(clock.clone(), sent_alerts), work(clock, sent_events));
        let work = async move {
            work.await;
        };
        (Self { alerts, events }, Box::pin(work))
    }

    /// Starts to deliver an alert, or drops it when too many wait.
    pub(crate) fn alert(&self, line: Line, work: impl Future<Output = ()> + Send + 'static) {
        spawn(&self.alerts, line, Box::pin(work));
    }

    /// The same for an event hook.
    pub(crate) fn event(&self, line: Line, work: impl Future<Output = ()> + Send + 'static) {
        spawn(&self.events, line, Box::pin(work));
    }
}

fn spawn(pool: &mpsc::Sender<(Line, Work)>, line: Line, work: Work) {
    if let Err(error) = pool.try_send((line, work)) {
        let (line, _) = error.into_inner();
        dropped(&line);
    }
}

fn dropped(line: &Line) {
    tracing::warn!(owner = line.owner, line = line.name, "an event hook or alert was dropped: too many wait");
}

/// Does the work of one pool.
async fn work(clock: Arc<dyn Clock>, mut receiver: mpsc::Receiver<(Line, Work)>) {
    let mut pool = Pool {
        clock,
        running: FuturesUnordered::new(),
        lines: HashMap::new(),
        shares: HashMap::new(),
        ready: VecDeque::new(),
        waiting: 0,
    };
    loop {
        tokio::select! {
            Some(line) = pool.running.next(), if !pool.running.is_empty() => pool.done(&line),
            next = receiver.recv() => match next {
                Some((line, work)) => pool.add(line, work),
                None => break,
            },
        }
    }
    while let Some(line) = pool.running.next().await {
        pool.done(&line);
    }
}

/// What one owner has in a pool.
#[derive(Default)]
struct Share {
    running: usize,
    waiting: usize,
}

struct Pool {
    clock: Arc<dyn Clock>,
    running: FuturesUnordered<BoxFuture<'static, Line>>,
    /// What waits in each line that there is; a line ends when its last delivery is done.
    lines: HashMap<Line, VecDeque<Work>>,
    shares: HashMap<String, Share>,
    /// Lines with something to do of which nothing runs, the one that came first in front.
    ready: VecDeque<Line>,
    waiting: usize,
}

impl Pool {
    fn add(&mut self, line: Line, work: Work) {
        let share = self.shares.get(&line.owner);
        if self.waiting >= WAITING || share.is_some_and(|share| share.waiting >= WAITING_SHARE) {
            return dropped(&line);
        }
        self.shares.entry(line.owner.clone()).or_default().waiting += 1;
        self.waiting += 1;
        if let Some(waiting) = self.lines.get_mut(&line) {
            waiting.push_back(work);
            return;
        }
        self.lines.insert(line.clone(), VecDeque::from([work]));
        self.ready.push_back(line);
        self.start();
    }

    /// A delivery of this line is done.
    fn done(&mut self, line: &Line) {
        if let Some(share) = self.shares.get_mut(&line.owner) {
            share.running = share.running.saturating_sub(1);
            if share.running + share.waiting == 0 {
                self.shares.remove(&line.owner);
            }
        }
        if self.lines.get(line).is_some_and(VecDeque::is_empty) {
            self.lines.remove(line);
        } else {
            self.ready.push_back(line.clone());
        }
        self.start();
    }

    /// Begins what there is room for.
    fn start(&mut self) {
        while self.running.len() < CONCURRENT
            && let Some(at) = self.ready.iter().position(|line| self.has_room(line))
            && let Some(line) = self.ready.remove(at)
        {
            let (Some(share), Some(work)) =
                (self.shares.get_mut(&line.owner), self.lines.get_mut(&line).and_then(VecDeque::pop_front))
            else {
                continue;
            };
            share.running += 1;
            share.waiting = share.waiting.saturating_sub(1);
            self.waiting = self.waiting.saturating_sub(1);
            let clock = self.clock.clone();
            self.running.push(Box::pin(async move {
                if timeout(&*clock, LIMIT, work).await.is_err() {
                    tracing::warn!(
                        owner = line.owner,
                        line = line.name,
                        "an event hook or alert took too long: given up"
                    );
                }
                line
            }));
        }
    }

    fn has_room(&self, line: &Line) -> bool {
        self.shares.get(&line.owner).is_none_or(|share| share.running < SHARE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::Timestamp;
    use tokio::sync::oneshot;

    use super::*;
    use crate::sim::SimClock;

    fn line(owner: &str, name: &str) -> Line {
        Line { owner: owner.to_owned(), name: name.to_owned() }
    }

    fn background() -> (Background, BoxFuture<'static, ()>, Arc<SimClock>) {
        let clock = Arc::new(SimClock::new(Timestamp::UNIX_EPOCH));
        let (background, work) = Background::new(clock.clone());
        (background, work, clock)
    }

    #[tokio::test]
    async fn a_line_keeps_its_order_and_holds_up_no_other() {
        let (background, work, _) = background();
        let (open, gate) = oneshot::channel::<()>();
        let seen: Arc<Mutex<Vec<&str>>> = Arc::default();
        let say = |word: &'static str| {
            let seen = seen.clone();
            async move { seen.lock().unwrap().push(word) }
        };
        let first = say("a1");
        background.event(line("team", "a"), async move {
            gate.await.unwrap();
            first.await;
        });
        background.event(line("team", "a"), say("a2"));
        let last = say("b");
        background.event(line("team", "b"), async move {
            last.await;
            open.send(()).unwrap();
        });
        background.event(line("team", "a"), say("a3"));
        drop(background);
        work.await;
        assert_eq!(*seen.lock().unwrap(), ["b", "a1", "a2", "a3"]);
    }

    #[tokio::test]
    async fn receivers_of_one_team_that_hang_hold_up_nobody_else() {
        let (background, work, _) = background();
        for at in 0..2 * CONCURRENT {
            background.event(line("slow", &at.to_string()), std::future::pending());
        }
        let ((said, hears), (alerted, alert)) = (oneshot::channel(), oneshot::channel());
        background.event(line("other", "a"), async move { said.send(()).unwrap() });
        background.alert(line("slow", "b"), async move { alerted.send(()).unwrap() });
        tokio::select! {
            () = work => panic!("the work ended"),
            (event, alert) = join(hears, alert) => assert!(event.is_ok() && alert.is_ok()),
        }
    }

    #[tokio::test]
    async fn one_team_fills_its_own_queue_only() {
        let (background, work, _) = background();
        let work = tokio::spawn(work);
        for _ in 0..2 {
            for _ in 0..WAITING {
                background.event(line("slow", "a"), std::future::pending());
            }
            while background.events.capacity() < WAITING {
                tokio::task::yield_now().await;
            }
        }
        let (said, hears) = oneshot::channel();
        background.event(line("other", "a"), async move { said.send(()).unwrap() });
        assert_eq!(hears.await, Ok(()));
        work.abort();
    }

    #[tokio::test]
    async fn what_hangs_is_given_up() {
        let (background, work, clock) = background();
        background.event(line("team", "a"), std::future::pending());
        let (said, hears) = oneshot::channel();
        background.event(line("team", "a"), async move { said.send(()).unwrap() });
        drop(background);
        let end = Timestamp::UNIX_EPOCH + LIMIT;
        join(work, clock.until(end, || true)).await;
        assert_eq!(hears.await, Ok(()));
    }
}
