//! The forge that hosts a repository: commit statuses (pull requests come with the forge issue).

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::Sha;

/// State of a commit status, as all forges know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommitState {
    /// Not decided yet.
    Pending,
    /// Good.
    Success,
    /// Judged bad.
    Failure,
    /// Not judged.
    Error,
}

/// One commit status. At most one is in force for each (commit, context): the one posted last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitStatus {
    /// The commit.
    pub sha: Sha,
    /// `serin/CLUSTER/NS/NAME` or `serin/CLUSTER`, at most 255 characters.
    pub context: String,
    /// State.
    pub state: CommitState,
    /// For people, at most 140 characters.
    pub description: String,
    /// Link for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_url: Option<String>,
}

/// Why a forge did not take a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ForgeError {
    /// It will not take this one later either (400, 422).
    #[error("{0}")]
    Permanent(String),
    /// It does not let us in, whatever we ask: the token has expired or lacks a right, the repository has moved or is gone
    /// (401, 403, 404, a redirect). A person can put that right, and then it takes this one, too.
    #[error("{0}")]
    Denied(String),
    /// It may take it later, not before the given time has passed.
    #[error("{message}")]
    Later {
        /// What it said.
        message: String,
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
}

/// A forge. Calls are single attempts: pacing and retries are the writer's.
#[async_trait]
pub trait Forge: Send + Sync {
    /// Posts one commit status.
    ///
    /// # Errors
    /// See [`ForgeError`].
    async fn set_status(&self, status: &CommitStatus) -> Result<(), ForgeError>;

    /// The statuses of a commit that are in force, one for each context; may leave out old ones of a commit with more
    /// than a hundred. After a crash or a lost answer it tells what has been posted already.
    ///
    /// # Errors
    /// See [`ForgeError`].
    async fn statuses(&self, sha: &Sha) -> Result<Vec<CommitStatus>, ForgeError>;

    /// Where people read a file of a branch, when the forge knows better than the repository's address tells.
    fn file_link(&self, branch: &str, path: &str) -> Option<String> {
        let (_, _) = (branch, path);
        None
    }
}
