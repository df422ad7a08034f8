//! What commits did: the first-parent line with changed paths, and one commit's changes with content.

use std::collections::BTreeSet;

use git2::{Commit, Delta, Diff, DiffDelta, DiffFile, DiffFindOptions, FileMode, Repository};

use super::mirror::{self, Mirror};
use super::options::Limits;
use super::snapshot;
use crate::domain::{Blob, Sha};
use crate::ports::{CommitInfo, FileChange, GitError};

/// Above so many added and removed files only exact renames are followed: comparing contents costs the product.
const RENAME_LIMIT: usize = 400;

impl Mirror {
    /// See [`crate::ports::GitRemote::history`].
    pub(super) fn history(
        &mut self,
        from: Option<&Sha>,
        to: &Sha,
        limit: usize,
    ) -> Result<Option<Vec<CommitInfo>>, GitError> {
        let repository = self.repository()?;
        let start = mirror::commit(&repository, to)?;
        walk(&repository, from, start, limit).map_err(|error| self.broken(to, &error))
    }

    /// See [`crate::ports::GitRemote::changes`]. A file that a snapshot would refuse is left out.
    pub(super) fn changes(&mut self, sha: &Sha) -> Result<Vec<FileChange>, GitError> {
        let repository = self.repository()?;
        let commit = mirror::commit(&repository, sha)?;
        let limits = self.place.limits;
        let diff = renamed(&repository, &commit).map_err(|error| self.broken(sha, &error))?;
        if diff.deltas().len() > limits.max_files {
            return Err(over(sha, &format!("it changes more than {} files", limits.max_files)));
        }
        let mut changes = Vec::new();
        let mut bytes = 0;
        for delta in diff.deltas() {
            let change = change(&repository, &delta, limits).map_err(|error| self.broken(sha, &error))?;
            bytes += change.as_ref().map_or(0, size);
            if bytes > limits.max_snapshot_bytes {
                return Err(over(sha, &format!("it changes more than {} bytes of files", limits.max_snapshot_bytes)));
            }
            changes.extend(change);
        }
        Ok(changes)
    }
}

fn over(sha: &Sha, why: &str) -> GitError {
    GitError::Missing(format!("commit {} is over the limits: {why}", sha.short()))
}

/// Bytes of both sides.
fn size(change: &FileChange) -> u64 {
    [&change.before, &change.after].into_iter().flatten().map(|(_, blob)| blob.len() as u64).sum()
}

fn walk(
    repository: &Repository,
    from: Option<&Sha>,
    start: Commit<'_>,
    limit: usize,
) -> Result<Option<Vec<CommitInfo>>, git2::Error> {
    let mut commits = Vec::new();
    let mut next = Some(start);
    while let Some(commit) = next {
        if from.is_some_and(|from| from.0 == commit.id().to_string()) {
            return Ok(Some(commits));
        }
        if commits.len() >= limit {
            return Ok(from.is_none().then_some(commits));
        }
        commits.push(info(repository, &commit)?);
        next = match commit.parent_count() {
            0 => None,
            _ => Some(commit.parent(0)?),
        };
    }
    Ok(from.is_none().then_some(commits))
}

fn info(repository: &Repository, commit: &Commit<'_>) -> Result<CommitInfo, git2::Error> {
    let author = commit.author();
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut paths = BTreeSet::new();
    for delta in compared(repository, commit)?.deltas() {
        let files = [delta.old_file(), delta.new_file()];
        paths.extend(files.iter().filter_map(DiffFile::path_bytes).map(lossy));
    }
    Ok(CommitInfo {
        sha: mirror::sha(commit.id()),
        parent: commit.parent_id(0).ok().map(mirror::sha),
        message: lossy(commit.message_bytes()),
        author: format!("{} <{}>", lossy(author.name_bytes()), lossy(author.email_bytes())),
        time: commit.time().seconds(),
        paths,
    })
}

/// The difference from the first parent; from nothing for a root commit.
fn compared<'a>(repository: &'a Repository, commit: &Commit<'_>) -> Result<Diff<'a>, git2::Error> {
    let parent = match commit.parent_count() {
        0 => None,
        _ => Some(commit.parent(0)?.tree()?),
    };
    repository.diff_tree_to_tree(parent.as_ref(), Some(&commit.tree()?), None)
}

fn renamed<'a>(repository: &'a Repository, commit: &Commit<'_>) -> Result<Diff<'a>, git2::Error> {
    let mut diff = compared(repository, commit)?;
    let mut options = DiffFindOptions::new();
    options.renames(true).rename_limit(RENAME_LIMIT);
    diff.find_similar(Some(&mut options))?;
    Ok(diff)
}

/// One change with content; `None` when a side is not a regular file that we read.
fn change(repository: &Repository, delta: &DiffDelta<'_>, limits: Limits) -> Result<Option<FileChange>, git2::Error> {
    let side = |file: &DiffFile<'_>| readable(repository, file, limits);
    let (before, after) = match delta.status() {
        Delta::Added | Delta::Copied => (None, Some(side(&delta.new_file())?)),
        Delta::Deleted => (Some(side(&delta.old_file())?), None),
        _ => (Some(side(&delta.old_file())?), Some(side(&delta.new_file())?)),
    };
    if before == Some(None) || after == Some(None) {
        return Ok(None);
    }
    Ok(Some(FileChange { before: before.flatten(), after: after.flatten() }))
}

fn readable(
    repository: &Repository,
    file: &DiffFile<'_>,
    limits: Limits,
) -> Result<Option<(String, Blob)>, git2::Error> {
    let regular = matches!(file.mode(), FileMode::Blob | FileMode::BlobExecutable | FileMode::BlobGroupWritable);
    let path = file.path_bytes().and_then(|path| std::str::from_utf8(path).ok());
    match path {
        Some(path) if regular && path.split('/').all(|name| snapshot::checked_name(name.as_bytes()).is_ok()) => {
            Ok(snapshot::content(repository, file.id(), limits)?.ok().map(|blob| (path.to_owned(), blob)))
        }
        _ => Ok(None),
    }
}
