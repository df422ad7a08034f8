//! The owner thread of a repository: libgit2's `Repository` may move between threads and may not be shared, and its
//! calls block. Jobs come by channel and run one after another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::mirror::{Mirror, Place};
use crate::domain::{Sha, Snapshot};
use crate::ports::{Clock, CommitInfo, FileChange, GitError, GitRemote, PushOutcome, Update};

type Job = Box<dyn FnOnce(&mut Mirror) + Send>;

/// Handle of the thread; it ends when the handle is dropped.
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    clock: Arc<dyn Clock>,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(place: Place, clock: Arc<dyn Clock>) -> Result<Self, GitError> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("serin-git".to_owned())
            .spawn(move || {
                let mut mirror = Mirror::new(place);
                for job in inbox {
                    // A panic fails one job, whose caller sees its answer's channel closed, and not the repository.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut mirror))).is_err() {
                        mirror.suspect();
                    }
                }
            })
            .map_err(|error| lost(&error.to_string()))?;
        Ok(Self { jobs, clock })
    }

    /// Runs one job and waits for it. The clock is told twice: by the caller until the answer is taken, and by the job
    /// until it is done, since a caller may give up earlier.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Mirror) -> Result<T, GitError> + Send + 'static,
    ) -> Result<T, GitError> {
        let _until_taken = self.clock.in_flight();
        let until_done = self.clock.in_flight();
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |mirror| {
            let _until_done = until_done;
            // The caller may have stopped waiting; what was done stays done.
            drop(reply.send(job(mirror)));
        });
        self.jobs.send(job).map_err(|_| lost("the thread has ended"))?;
        answer.await.map_err(|_| lost("the operation crashed"))?
    }
}

fn lost(message: &str) -> GitError {
    GitError::Unavailable { doing: "running the git thread".to_owned(), message: message.to_owned() }
}

#[async_trait]
impl GitRemote for Worker {
    async fn fetch(&self, references: &[String]) -> Result<Vec<Option<Sha>>, GitError> {
        let references = references.to_vec();
        self.run(move |mirror| mirror.fetch(&references)).await
    }

    async fn snapshot(&self, sha: &Sha, prefixes: &[String]) -> Result<Snapshot, GitError> {
        let (sha, prefixes) = (sha.clone(), prefixes.to_vec());
        self.run(move |mirror| mirror.snapshot(&sha, &prefixes)).await
    }

    async fn history(&self, from: Option<&Sha>, to: &Sha, limit: usize) -> Result<Option<Vec<CommitInfo>>, GitError> {
        let (from, to) = (from.cloned(), to.clone());
        self.run(move |mirror| mirror.history(from.as_ref(), &to, limit)).await
    }

    async fn changes(&self, sha: &Sha) -> Result<Vec<FileChange>, GitError> {
        let sha = sha.clone();
        self.run(move |mirror| mirror.changes(&sha)).await
    }

    async fn commit_and_push(&self, update: Update) -> Result<PushOutcome, GitError> {
        self.run(move |mirror| mirror.commit_and_push(&update)).await
    }

    async fn push_ref(&self, reference: &str, sha: &Sha, force: bool) -> Result<PushOutcome, GitError> {
        let (reference, sha) = (reference.to_owned(), sha.clone());
        self.run(move |mirror| mirror.push_ref(&reference, &sha, force)).await
    }

    async fn push_refs(&self, refs: &[(String, Sha)], force: bool) -> Vec<Result<PushOutcome, GitError>> {
        let (wanted, count) = (refs.to_vec(), refs.len());
        let outcomes = self.run(move |mirror| Ok(mirror.push_refs(&wanted, force))).await;
        outcomes.unwrap_or_else(|error| vec![Err(error); count])
    }
}
