#![expect(clippy::disallowed_types, reason = "shell: plays the people who push to the repository")]
//! People who push to the source's repository.

use std::collections::BTreeMap;
use std::path::Path;

use git2::{ObjectType, Oid, Repository, Signature, Time, TreeWalkMode, TreeWalkResult, build::TreeUpdateBuilder};
use jiff::Timestamp;

use crate::domain::Sha;

/// A bare repository that people push to.
pub struct Remote {
    repository: Repository,
}

impl Remote {
    /// Makes an empty bare repository with branch `main`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(folder: &Path) -> Result<Self, git2::Error> {
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).external_template(false).initial_head("main");
        Ok(Self { repository: Repository::init_opts(folder, &options)? })
    }

    /// Opens a bare repository that exists.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(folder: &Path) -> Result<Self, git2::Error> {
        Ok(Self { repository: Repository::open_bare(folder)? })
    }

    /// The commit that a branch points at.
    pub fn head(&self, branch: &str) -> Option<Sha> {
        let reference = self.repository.find_reference(&format!("refs/heads/{branch}")).ok()?;
        reference.target().map(|id| Sha(id.to_string()))
    }

    /// Commits files (`None` removes one) on top of a branch, as `Ada`, and moves the branch.
    ///
    /// # Errors
    /// When libgit2 fails.
    pub fn commit(
        &self,
        branch: &str,
        message: &str,
        files: &[(&str, Option<&str>)],
        at: Timestamp,
    ) -> Result<Sha, git2::Error> {
        let parent = self.head(branch);
        self.commit_on(branch, parent.as_ref(), message, files, at)
    }

    /// Commits files on top of any commit, and makes a branch point there: a force push, where it is not the tip.
    ///
    /// # Errors
    /// When libgit2 fails.
    pub fn commit_on(
        &self,
        branch: &str,
        parent: Option<&Sha>,
        message: &str,
        files: &[(&str, Option<&str>)],
        at: Timestamp,
    ) -> Result<Sha, git2::Error> {
        let repository = &self.repository;
        let parent = parent.map(|sha| repository.find_commit(Oid::from_str(&sha.0)?)).transpose()?;
        let mut builder = TreeUpdateBuilder::new();
        for (path, text) in files {
            match text {
                Some(text) => builder.upsert(*path, repository.blob(text.as_bytes())?, git2::FileMode::Blob),
                None => builder.remove(*path),
            };
        }
        let empty = repository.find_tree(repository.treebuilder(None)?.write()?)?;
        let base = parent.as_ref().map_or(Ok(empty), git2::Commit::tree)?;
        let tree = repository.find_tree(builder.create_updated(repository, &base)?)?;
        let who = Signature::new("Ada", "ada@example.com", &Time::new(at.as_second(), 0))?;
        let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
        let id = repository.commit(None, &who, &who, message, &tree, &parents)?;
        repository.reference(&format!("refs/heads/{branch}"), id, true, "push")?;
        Ok(Sha(id.to_string()))
    }

    /// Text of a file at the tip of a branch.
    pub fn text(&self, branch: &str, path: &str) -> Option<String> {
        let tree = self.tree(branch)?;
        let entry = tree.get_path(Path::new(path)).ok()?;
        let blob = self.repository.find_blob(entry.id()).ok()?;
        String::from_utf8(blob.content().to_vec()).ok()
    }

    /// All text files of a commit.
    pub fn files_at(&self, sha: &Sha) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let tree = Oid::from_str(&sha.0).and_then(|id| self.repository.find_commit(id)).and_then(|c| c.tree());
        if let Ok(tree) = tree {
            tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
                let blob = self.repository.find_blob(entry.id()).ok();
                if let Some(text) = blob.and_then(|blob| String::from_utf8(blob.content().to_vec()).ok()) {
                    files.insert(format!("{folder}{}", entry.name().unwrap_or_default()), text);
                }
                TreeWalkResult::Ok
            })
            .ok();
        }
        files
    }

    /// Paths of all files at the tip of a branch.
    pub fn files(&self, branch: &str) -> Vec<String> {
        let mut paths = Vec::new();
        if let Some(tree) = self.tree(branch) {
            tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
                if entry.kind() == Some(ObjectType::Blob) {
                    paths.push(format!("{folder}{}", entry.name().unwrap_or_default()));
                }
                TreeWalkResult::Ok
            })
            .ok();
        }
        paths
    }

    fn tree(&self, branch: &str) -> Option<git2::Tree<'_>> {
        self.repository.find_reference(&format!("refs/heads/{branch}")).ok()?.peel_to_tree().ok()
    }

    /// Commits of a branch on the first-parent line, newest first: id and whole message.
    pub fn log(&self, branch: &str) -> Vec<(Sha, String)> {
        let mut log = Vec::new();
        let mut next =
            self.repository.find_reference(&format!("refs/heads/{branch}")).ok().and_then(|r| r.peel_to_commit().ok());
        while let Some(commit) = next {
            log.push((Sha(commit.id().to_string()), commit.message().unwrap_or_default().to_owned()));
            next = commit.parent(0).ok();
        }
        log
    }

    /// What a commit changed, as a unified diff.
    pub fn diff(&self, sha: &Sha) -> Option<String> {
        let commit = self.repository.find_commit(Oid::from_str(&sha.0).ok()?).ok()?;
        let before = commit.parent(0).ok().and_then(|parent| parent.tree().ok());
        let diff = self.repository.diff_tree_to_tree(before.as_ref(), commit.tree().ok().as_ref(), None).ok()?;
        let mut text = String::new();
        diff.print(git2::DiffFormat::Patch, |_, _, line| {
            if matches!(line.origin(), '+' | '-' | ' ') {
                text.push(line.origin());
            }
            text.push_str(&String::from_utf8_lossy(line.content()));
            true
        })
        .ok()?;
        Some(text)
    }

    /// All branches by name.
    pub fn branches(&self) -> Vec<String> {
        let names = self.repository.references_glob("refs/heads/*").into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .filter_map(|r| r.name().ok().and_then(|n| n.strip_prefix("refs/heads/")).map(str::to_owned))
            .collect();
        names.sort();
        names
    }
}
