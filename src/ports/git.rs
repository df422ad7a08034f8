//! One Git remote: fetch, read commits as values, push by compare-and-swap.

use std::collections::BTreeSet;

use async_trait::async_trait;

use crate::domain::{Blob, Sha, Snapshot};

/// A commit on the first-parent line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// The commit.
    pub sha: Sha,
    /// Its first parent; `None` for a root commit.
    pub parent: Option<Sha>,
    /// Whole message.
    pub message: String,
    /// Author as `NAME <EMAIL>`.
    pub author: String,
    /// Committer time, seconds since 1970.
    pub time: i64,
    /// Paths that differ from the first parent.
    pub paths: BTreeSet<String>,
}

impl CommitInfo {
    /// First line of the message.
    pub fn subject(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }

    /// Value of a trailer (`Key: value` in the last paragraph); keys compare without case.
    pub fn trailer(&self, key: &str) -> Option<&str> {
        let last = self.message.trim_end().rsplit("\n\n").next()?;
        last.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(key).then(|| value.trim())
        })
    }
}

/// What a commit did to one file, compared with its first parent. A rename has both paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Path and content before; `None` for an added file.
    pub before: Option<(String, Blob)>,
    /// Path and content after; `None` for a removed file.
    pub after: Option<(String, Blob)>,
}

/// Author and committer of commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// E-mail address.
    pub email: String,
}

/// One file of a new tree: content, or `None` to remove it. File modes of existing files are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeChange {
    /// Path from the repository's root.
    pub path: String,
    /// New content.
    pub content: Option<Blob>,
}

/// A commit to be made and pushed to one ref, by compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Full ref name, such as `refs/heads/main`.
    pub reference: String,
    /// What the ref must point at now; `None`: it must not exist.
    pub expected: Option<Sha>,
    /// Parent of the new commit, whose tree is the base of `changes`; `None` makes an orphan from an empty tree.
    pub parent: Option<Sha>,
    /// Changes to the parent's tree.
    pub changes: Vec<TreeChange>,
    /// Whole message.
    pub message: String,
    /// Author and committer.
    pub author: Identity,
    /// Time of the commit, seconds since 1970.
    pub time: i64,
    /// Whether `reference` may be moved to a commit that does not descend from `expected` (status branch only).
    pub force: bool,
}

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// The remote took it; it was read back. The new commit.
    Pushed(Sha),
    /// The ref moved meanwhile: fetch and decide again.
    Moved,
    /// Protection or a hook refuses this for good; the remote's words.
    Refused(String),
}

/// Why a Git operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GitError {
    /// The remote cannot be reached, or refuses our credentials: try again later.
    #[error("{doing}: {message}")]
    Unavailable {
        /// What was being done, without credentials.
        doing: String,
        /// What went wrong, without credentials.
        message: String,
    },
    /// The repository does not have this object (force-pushed away and pruned, or over the limits).
    #[error("{0}")]
    Missing(String),
    /// The repository cannot be used as it is (SHA-256 objects, …).
    #[error("{0}")]
    Unsupported(String),
}

/// One repository. All operations on it run one after another on one thread.
#[async_trait]
pub trait GitRemote: Send + Sync {
    /// Fetches the given refs (full names) and returns where each points; `None`: the remote has no such ref. A forced
    /// update is taken over. One network round for all of them.
    ///
    /// # Errors
    /// See [`GitError`].
    async fn fetch(&self, references: &[String]) -> Result<Vec<Option<Sha>>, GitError>;

    /// The files of a fetched commit under the given path prefixes (`""`: all), with what was refused.
    ///
    /// # Errors
    /// See [`GitError`].
    async fn snapshot(&self, sha: &Sha, prefixes: &[String]) -> Result<Snapshot, GitError>;

    /// Commits on the first-parent line from `to` back to, not including, `from`; newest first, at most `limit`.
    /// `Ok(None)` when `from` is given and is not found within the limit.
    ///
    /// # Errors
    /// See [`GitError`].
    async fn history(&self, from: Option<&Sha>, to: &Sha, limit: usize) -> Result<Option<Vec<CommitInfo>>, GitError>;

    /// What a commit changed, compared with its first parent, renames followed.
    ///
    /// # Errors
    /// See [`GitError`].
    async fn changes(&self, sha: &Sha) -> Result<Vec<FileChange>, GitError>;

    /// Makes a commit and pushes it (see [`Update`]). The per-ref answer of the remote is read, and the ref is read
    /// back.
    ///
    /// # Errors
    /// See [`GitError`]; after `Unavailable` the push may have happened: look for its trailers before writing again.
    async fn commit_and_push(&self, update: Update) -> Result<PushOutcome, GitError>;

    /// Points a ref of the remote at a commit that it has already (`refs/serin/…`, `serin/revert/…`).
    ///
    /// # Errors
    /// See [`GitError`].
    async fn push_ref(&self, reference: &str, sha: &Sha, force: bool) -> Result<PushOutcome, GitError>;

    /// The same for several refs, over one connection where that is possible; what became of each, in their order. One
    /// that is refused does not stop the others.
    async fn push_refs(&self, refs: &[(String, Sha)], force: bool) -> Vec<Result<PushOutcome, GitError>> {
        let mut outcomes = Vec::with_capacity(refs.len());
        for (reference, sha) in refs {
            outcomes.push(self.push_ref(reference, sha, force).await);
        }
        outcomes
    }
}
