//! One fetcher for all sources of one repository and branch: whoever asks first fetches, the others take what it found.
//! The source with the smallest interval sets the pace, a webhook for one of them fetches once, and an error is
//! everybody's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::domain::Sha;
use crate::ports::{Clock, GitError, GitRemote};

/// An error is not asked about again within this time.
const ERROR_HOLDS: Duration = Duration::from_secs(10);

/// How new the answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fresh {
    /// Something happened: only a fetch that begins from now on counts.
    Now,
    /// One that began within this time is as good.
    Within(Duration),
}

/// Where the branch points, as of a fetch.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// Number of the fetch.
    pub(crate) number: u64,
    /// `None`: there is no such branch.
    pub(crate) head: Result<Option<Sha>, GitError>,
    at: Timestamp,
}

/// The fetcher of one branch of one repository.
pub(crate) struct Fetcher {
    git: Arc<dyn GitRemote>,
    reference: String,
    clock: Arc<dyn Clock>,
    /// One fetch at a time.
    turn: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
    /// Number of the last fetch that found something else than the one before.
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    begun: u64,
    last: Option<Fetched>,
}

impl Fetcher {
    /// A fetcher of `reference`, a full ref name.
    pub(crate) fn new(git: Arc<dyn GitRemote>, reference: String, clock: Arc<dyn Clock>) -> Self {
        Self {
            git,
            reference,
            clock,
            turn: tokio::sync::Mutex::default(),
            known: Mutex::default(),
            news: watch::Sender::new(0),
        }
    }

    /// Whether this is the fetcher of that branch of that repository (and of these credentials, which are the remote's).
    pub(crate) fn is_of(&self, git: &Arc<dyn GitRemote>, reference: &str) -> bool {
        Arc::ptr_eq(&self.git, git) && self.reference == reference
    }

    /// Where the branch points; fetches when nothing that is known is new enough.
    pub(crate) async fn fetch(&self, fresh: Fresh) -> Fetched {
        let begun = self.known().begun;
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        let number = {
            let mut known = self.known();
            if let Some(last) = known.last.as_ref().filter(|last| last.number > begun || last.is_good(fresh, now)) {
                return last.clone();
            }
            known.begun += 1;
            known.begun
        };
        let found = self.git.fetch(std::slice::from_ref(&self.reference)).await;
        let head = found.map(|heads| heads.into_iter().next().flatten());
        let fetched = Fetched { number, head, at: now };
        let before = self.known().last.replace(fetched.clone());
        if !before.is_some_and(|before| before.says_the_same(&fetched)) {
            self.news.send_replace(number);
        }
        fetched
    }

    /// Where the branch points as far as is known.
    pub(crate) fn head(&self) -> Option<Sha> {
        self.known().last.as_ref().and_then(|last| last.head.clone().ok().flatten())
    }

    /// Returns when a fetch after `number` has found something else than the one before it; its number.
    pub(crate) async fn news(&self, number: u64) -> u64 {
        // The sender lives as long as `self`.
        self.news.subscribe().wait_for(|last| *last > number).await.map_or(number, |last| *last)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetched {
    fn is_good(&self, fresh: Fresh, now: Timestamp) -> bool {
        let Fresh::Within(age) = fresh else { return false };
        let age = if self.head.is_ok() { age } else { age.min(ERROR_HOLDS) };
        self.at.checked_add(age).is_ok_and(|until| until > now)
    }

    fn says_the_same(&self, other: &Self) -> bool {
        match (&self.head, &other.head) {
            (Ok(one), Ok(other)) => one == other,
            (Err(_), Err(_)) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
