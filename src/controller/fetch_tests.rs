use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::future::join;

use super::*;
use crate::domain::Snapshot;
use crate::ports::{CommitInfo, FileChange, PushOutcome, Update};

/// A clock that stands where it is put.
#[derive(Default)]
struct Hands(AtomicI64);

#[async_trait]
impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::Relaxed)).unwrap()
    }

    async fn sleep_until(&self, _: Timestamp) {
        std::future::pending().await
    }
}

/// A remote that answers from a list, the last answer for ever, one turn of the runtime later.
#[derive(Default)]
struct Remote {
    answers: Mutex<VecDeque<Result<Option<Sha>, GitError>>>,
    fetches: AtomicUsize,
}

fn missing() -> GitError {
    GitError::Missing("not a fetch".to_owned())
}

#[async_trait]
impl GitRemote for Remote {
    async fn fetch(&self, references: &[String]) -> Result<Vec<Option<Sha>>, GitError> {
        assert_eq!(references, ["refs/heads/main"]);
        self.fetches.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        answer.unwrap().map(|head| vec![head])
    }

    async fn snapshot(&self, _: &Sha, _: &[String]) -> Result<Snapshot, GitError> {
        Err(missing())
    }

    async fn history(&self, _: Option<&Sha>, _: &Sha, _: usize) -> Result<Option<Vec<CommitInfo>>, GitError> {
        Err(missing())
    }

    async fn changes(&self, _: &Sha) -> Result<Vec<FileChange>, GitError> {
        Err(missing())
    }

    async fn commit_and_push(&self, _: Update) -> Result<PushOutcome, GitError> {
        Err(missing())
    }

    async fn push_ref(&self, _: &str, _: &Sha, _: bool) -> Result<PushOutcome, GitError> {
        Err(missing())
    }
}

fn sha(digit: &str) -> Sha {
    Sha(digit.repeat(40))
}

fn down() -> GitError {
    GitError::Unavailable { doing: "fetching".to_owned(), message: "no route to host".to_owned() }
}

fn within(seconds: u64) -> Fresh {
    Fresh::Within(Duration::from_secs(seconds))
}

fn world(answers: Vec<Result<Option<Sha>, GitError>>) -> (Fetcher, Arc<Remote>, Arc<Hands>) {
    let remote = Arc::new(Remote { answers: Mutex::new(answers.into()), ..Remote::default() });
    let clock = Arc::new(Hands::default());
    (Fetcher::new(remote.clone(), "refs/heads/main".to_owned(), clock.clone()), remote, clock)
}

#[tokio::test]
async fn the_smallest_interval_sets_the_pace() {
    let (fetcher, remote, clock) = world(vec![Ok(Some(sha("1")))]);
    for (second, ask, fetches) in [
        (0, within(30), 1),
        (0, within(60), 1),
        (29, within(30), 1),
        (30, within(30), 2),
        (60, within(60), 2),
        (60, within(30), 3),
        (61, Fresh::Now, 4),
        (61, within(1), 4),
    ] {
        clock.0.store(second, Ordering::Relaxed);
        let fetched = fetcher.fetch(ask).await;
        assert_eq!(fetched.head.unwrap(), Some(sha("1")));
        assert_eq!(remote.fetches.load(Ordering::Relaxed), fetches, "at {second}, {ask:?}");
    }
    assert_eq!(fetcher.head(), Some(sha("1")));
}

#[tokio::test]
async fn whoever_asks_during_a_fetch_waits_for_it_and_asks_again_only_for_what_came_later() {
    let (fetcher, remote, _clock) = world(vec![Ok(Some(sha("1"))), Ok(Some(sha("2")))]);
    // The first is under way when the second begins: its answer may be older than the event behind the second.
    let (one, two) = join(fetcher.fetch(Fresh::Now), fetcher.fetch(Fresh::Now)).await;
    assert_eq!((one.head.unwrap(), two.head.unwrap()), (Some(sha("1")), Some(sha("2"))));
    // Both of these wait for the same later one.
    let (_, (three, four)) =
        join(fetcher.fetch(Fresh::Now), join(fetcher.fetch(Fresh::Now), fetcher.fetch(Fresh::Now))).await;
    assert_eq!((three.number, four.number), (4, 4));
    assert_eq!(remote.fetches.load(Ordering::Relaxed), 4);
    let (one, two) = join(fetcher.fetch(within(30)), fetcher.fetch(within(30))).await;
    assert_eq!((one.number, two.number), (4, 4));
}

#[tokio::test]
async fn news_and_errors_reach_all() {
    let (fetcher, remote, clock) = world(vec![Ok(None), Ok(Some(sha("1"))), Err(down()), Err(down()), Ok(None)]);
    let now = async |fetcher: &Fetcher| fetcher.fetch(Fresh::Now).await;
    assert_eq!(now(&fetcher).await.number, 1);
    assert_eq!(fetcher.news(0).await, 1);
    assert_eq!(now(&fetcher).await.number, 2);
    assert_eq!(fetcher.news(1).await, 2, "the branch was made");
    assert!(now(&fetcher).await.head.is_err());
    assert_eq!(fetcher.news(2).await, 3, "it cannot be reached");
    // The others take the error, for a while.
    assert!(fetcher.fetch(within(60)).await.head.is_err());
    assert_eq!(remote.fetches.load(Ordering::Relaxed), 3);
    clock.0.store(10, Ordering::Relaxed);
    assert!(fetcher.fetch(within(60)).await.head.is_err());
    assert_eq!(remote.fetches.load(Ordering::Relaxed), 4);
    assert_eq!(fetcher.news(2).await, 3, "that is no news");
    assert!(now(&fetcher).await.head.is_ok());
    assert_eq!(fetcher.news(3).await, 5, "it is back");
}
