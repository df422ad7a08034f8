//! The people of a story, with a mirror of the repository in which they commit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use serin::domain::Sha;
use serin::sim::person::Remote;
use tokio::process::Command;

use super::end;
use super::files::{self, Changed};
use super::shape::Shape;
use super::story::Change;
use crate::process::output;

/// Clones share the mirror.
#[derive(Clone)]
pub(crate) struct People {
    mirror: PathBuf,
    url: String,
    shape: Shape,
    /// What they pushed.
    subjects: Arc<Mutex<BTreeMap<Sha, String>>>,
}

impl People {
    /// Makes an empty mirror of a repository by its address.
    pub(crate) fn new(mirror: PathBuf, url: String, shape: Shape) -> anyhow::Result<Self> {
        Remote::create(&mirror).context("making a mirror")?;
        Ok(Self { mirror, url, shape, subjects: Arc::default() })
    }

    async fn git(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.mirror).args(arguments);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0").env("no_proxy", "*");
        output(command).await.map(drop)
    }

    /// Brings the mirror up to date.
    pub(crate) async fn fetch(&self) -> anyhow::Result<()> {
        self.git(&["fetch", "--quiet", "--prune", &self.url, "+refs/heads/*:refs/heads/*"]).await
    }

    /// The mirror.
    pub(crate) fn remote(&self) -> anyhow::Result<Remote> {
        Ok(Remote::open(&self.mirror)?)
    }

    /// The subjects of what people pushed and of `main`, in the words of the story.
    pub(crate) fn subjects(&self) -> anyhow::Result<BTreeMap<Sha, String>> {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (sha, message) in self.remote()?.log("main") {
            subjects.insert(sha, self.shape.back(message.lines().next().unwrap_or_default()));
        }
        Ok(subjects)
    }

    /// The commit with a subject.
    pub(crate) fn commit_of(&self, subject: &str) -> anyhow::Result<Sha> {
        end::commit(&self.subjects()?, subject).map_err(|why| anyhow!(why))
    }

    /// Commits on top of `main`, or of an older commit, and pushes, by force in that case.
    pub(crate) async fn push(&self, subject: &str, on: Option<Sha>, files: &Changed) -> anyhow::Result<()> {
        let list: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_deref())).collect();
        let sha = {
            let remote = self.remote()?;
            let parent = on.or_else(|| remote.head("main"));
            remote.commit_on("main", parent.as_ref(), subject, &list, Timestamp::now())?
        };
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner).insert(sha, subject.to_owned());
        self.git(&["push", "--quiet", "--force", &self.url, "main"]).await
    }

    /// Makes the change of a story.
    pub(crate) async fn change(&self, wanted: &Change) -> anyhow::Result<()> {
        self.fetch().await?;
        let on = wanted.on.as_ref().map(|subject| self.commit_of(subject)).transpose()?;
        let before = {
            let remote = self.remote()?;
            let base = on.clone().or_else(|| remote.head("main")).context("an empty repository")?;
            remote.files_at(&base)
        };
        let changed = files::changed(&self.shape.files_back(before), wanted).map_err(|why| anyhow!(why))?;
        self.push(&wanted.subject, on, &self.shape.files(changed)).await
    }

    /// Reverts a commit of `main`.
    pub(crate) async fn revert(&self, subject: &str) -> anyhow::Result<()> {
        self.fetch().await?;
        let bad = self.commit_of(subject)?;
        let changed = files::reverting(&self.remote()?, &bad).map_err(|why| anyhow!(why))?;
        self.push(&format!("Ada reverts {subject}"), None, &changed).await
    }
}
