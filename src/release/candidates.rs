//! Trees that might restore a promoted release on top of the present head.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::hunks::{Files, HunkId, Reversal, text, undo};
use super::identity::release_digest;
use super::{Evidence, Need, Render, Rendered, Scope};
use crate::domain::{Blob, CanaryKey, Digest, Sha, Snapshot};
use crate::ports::{CommitInfo, FileChange, TreeChange};

/// How many trees are rendered at most to find the hunks that may stay.
pub const MAX_TRIALS: usize = 256;

/// How a candidate was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The guilty commits' own hunks were reversed.
    OwnHunks,
    /// The guilty commits were reversed whole.
    Whole,
    /// The content of the promoted commit was put back, because the promoted commit is not below the head any more.
    Content,
}

/// A tree that restores promoted releases.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The head it was made for: parent of the commit, and what the branch must still point at.
    pub base: Sha,
    /// Changes to the head's tree.
    pub changes: Vec<TreeChange>,
    /// How it was made.
    pub how: How,
    /// The commits it reverses, newest first.
    pub reverses: Vec<Sha>,
    /// Release digest of each restored canary.
    pub restores: BTreeMap<CanaryKey, Digest>,
    /// The resulting files, for rendering.
    pub snapshot: Snapshot,
}

/// The digests that each canary is to have again.
pub(crate) type Goals = BTreeMap<CanaryKey, BTreeSet<Digest>>;

/// Where candidates are built.
pub(crate) struct Builder<'a> {
    pub(crate) head: &'a Sha,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) rendered: &'a Rendered,
    pub(crate) render: &'a dyn Render,
    pub(crate) goals: &'a Goals,
    pub(crate) scope: &'a Scope,
}

impl Builder<'_> {
    /// Reverses hunks; those that no goal needs stay. `None` when the goals are not reached with all of them reversed.
    pub(crate) fn own_hunks(&self, reversals: &[Reversal], how: How, reverses: &[Sha]) -> Option<Candidate> {
        let base = &self.snapshot.files;
        let mut skip = BTreeSet::new();
        let mut best = undo(base, reversals, &skip);
        if !self.reaches(&best) {
            return None;
        }
        let mut trials = 0;
        let mut try_without = |ids: Vec<HunkId>, skip: &mut BTreeSet<HunkId>, best: &mut Files| {
            let mut more = skip.clone();
            more.extend(ids);
            if trials >= MAX_TRIALS || more.len() == skip.len() {
                return;
            }
            let files = undo(base, reversals, &more);
            if files != *best {
                trials += 1;
                if !self.reaches(&files) {
                    return;
                }
            }
            (*skip, *best) = (more, files);
        };
        // Whole files first: most of a large commit falls away with few renderings.
        for (index, reversal) in reversals.iter().enumerate() {
            try_without((0..reversal.len()).map(|hunk| (index, hunk)).collect(), &mut skip, &mut best);
        }
        for (index, reversal) in reversals.iter().enumerate() {
            for hunk in 0..reversal.len() {
                try_without(vec![(index, hunk)], &mut skip, &mut best);
            }
        }
        self.candidate(best, how, reverses)
    }

    /// Reverses whole commits by three-way merges, newest first. `None` on a conflict, or when the goals are not reached.
    pub(crate) fn whole(&self, commits: &[(Sha, Vec<FileChange>)]) -> Option<Candidate> {
        let mut files = self.snapshot.files.clone();
        // A file outside the source that the tree does not show was not read, or is gone: it stays as it is.
        let unread = |files: &Files, change: &FileChange| {
            let mut sides = change.before.iter().chain(&change.after);
            sides.all(|(path, _)| !self.scope.contains(path) && !files.contains_key(path))
        };
        for change in commits.iter().flat_map(|(_, changes)| changes) {
            if !unread(&files, change) {
                merge_back(&mut files, change)?;
            }
        }
        let reverses: Vec<Sha> = commits.iter().map(|(sha, _)| sha.clone()).collect();
        if self.reaches(&files) { self.candidate(files, How::Whole, &reverses) } else { None }
    }

    pub(crate) fn tree(&self, files: &Files) -> Snapshot {
        Snapshot { revision: None, files: files.clone(), refused: self.snapshot.refused.clone() }
    }

    fn reaches(&self, files: &Files) -> bool {
        let rendered = self.render.render(&self.tree(files));
        let broken = rendered.problems.iter().any(|problem| !self.rendered.problems.contains(problem));
        !broken
            && self.goals.iter().all(|(canary, wanted)| {
                release_digest(&rendered, canary).is_some_and(|digest| wanted.contains(&digest))
            })
    }

    fn candidate(&self, files: Files, how: How, reverses: &[Sha]) -> Option<Candidate> {
        let changes = tree_changes(&self.snapshot.files, &files);
        let snapshot = self.tree(&files);
        let rendered = self.render.render(&snapshot);
        let restores =
            self.goals.keys().map(|key| Some((key.clone(), release_digest(&rendered, key)?))).collect::<Option<_>>()?;
        let base = self.head.clone();
        (!changes.is_empty()).then(|| Candidate { base, changes, how, reverses: reverses.to_vec(), restores, snapshot })
    }
}

/// The changes of the given commits to files that `wanted` accepts, for reversal on the head, renames followed.
pub(crate) fn reversals_of(
    commits: &[Sha],
    line: &[CommitInfo],
    head: &Snapshot,
    evidence: &Evidence,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<Reversal>, Need> {
    let mut need = Need::default();
    let mut result = Vec::new();
    for sha in commits {
        let changes = match evidence.changes(sha) {
            Ok(changes) => changes,
            Err(missing) => {
                need.merge(missing);
                continue;
            }
        };
        for change in changes {
            let old = change.before.as_ref().map(|(path, _)| path);
            let Some(path) = change.after.as_ref().map(|(path, _)| path).or(old) else { continue };
            let path = match present_path(path, sha, line, head, evidence) {
                Ok(path) => path,
                Err(missing) => {
                    need.merge(missing);
                    continue;
                }
            };
            if wanted(&path) || old.is_some_and(|old| wanted(old)) {
                result.push(Reversal::new(path, change));
            }
        }
    }
    if need.is_empty() { Ok(result) } else { Err(need) }
}

/// Where a file that commit `sha` left at `path` is in the head.
fn present_path(
    path: &str,
    sha: &Sha,
    line: &[CommitInfo],
    head: &Snapshot,
    evidence: &Evidence,
) -> Result<String, Need> {
    let mut path = path.to_owned();
    let since = line.iter().position(|commit| commit.sha == *sha).unwrap_or(0);
    for commit in line.iter().take(since).rev() {
        if head.files.contains_key(&path) {
            break;
        }
        if !commit.paths.contains(&path) {
            continue;
        }
        let moved = evidence.changes(&commit.sha)?.iter().find_map(|change| {
            let (old, new) = (change.before.as_ref()?, change.after.as_ref()?);
            (old.0 == path && new.0 != path).then(|| new.0.clone())
        });
        if let Some(moved) = moved {
            path = moved;
        }
    }
    Ok(path)
}

/// Reversals that put the files of `promoted` back in place of those of the head, for the accepted paths.
pub(crate) fn content_reversals(promoted: &Snapshot, head: &Snapshot, wanted: &dyn Fn(&str) -> bool) -> Vec<Reversal> {
    let paths: BTreeSet<&String> = promoted.files.keys().chain(head.files.keys()).collect();
    let side = |snapshot: &Snapshot, path: &String| snapshot.files.get(path).map(|b| (path.clone(), Arc::clone(b)));
    paths
        .into_iter()
        .filter(|path| wanted(path) && promoted.files.get(*path) != head.files.get(*path))
        .map(|path| Reversal::new(path.clone(), &FileChange { before: side(promoted, path), after: side(head, path) }))
        .collect()
}

/// `None` on a conflict.
fn merge_back(files: &mut Files, change: &FileChange) -> Option<()> {
    match (&change.before, &change.after) {
        (Some((old_path, before)), Some((new_path, after))) => {
            let current = files.get(new_path).cloned()?;
            let merged = if current == *after {
                Arc::clone(before)
            } else {
                let merged = diffy::merge(text(after)?, text(&current)?, text(before)?).ok()?;
                Blob::from(merged.as_bytes())
            };
            if old_path != new_path {
                if files.contains_key(old_path) {
                    return None;
                }
                files.remove(new_path);
            }
            files.insert(old_path.clone(), merged);
        }
        (None, Some((path, after))) => {
            if let Some(current) = files.get(path) {
                if current != after {
                    return None;
                }
                files.remove(path);
            }
        }
        (Some((path, before)), None) => match files.get(path) {
            Some(current) if current == before => {}
            Some(_) => return None,
            None => {
                files.insert(path.clone(), Arc::clone(before));
            }
        },
        (None, None) => {}
    }
    Some(())
}

/// What turns one tree into another.
pub(crate) fn tree_changes(from: &Files, to: &Files) -> Vec<TreeChange> {
    let paths: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    paths
        .into_iter()
        .filter(|path| from.get(*path) != to.get(*path))
        .map(|path| TreeChange { path: path.clone(), content: to.get(path).cloned() })
        .collect()
}

/// A unified diff of the files that `wanted` accepts, for people.
pub(crate) fn unified(from: &Files, to: &Files, wanted: &dyn Fn(&str) -> bool) -> String {
    let mut out = String::new();
    for change in tree_changes(from, to).into_iter().filter(|change| wanted(&change.path)) {
        let read = |blob: Option<&Blob>| blob.map_or(Some(""), text).map(str::to_owned);
        let (old, new) = (read(from.get(&change.path)), read(change.content.as_ref()));
        let (Some(old), Some(new)) = (old, new) else {
            out.push_str(&format!("Binary file {} differs\n", change.path));
            continue;
        };
        let name = |exists: bool, side: &str| {
            if exists { format!("{side}/{}", change.path) } else { "/dev/null".to_owned() }
        };
        let (a, b) = (name(from.contains_key(&change.path), "a"), name(change.content.is_some(), "b"));
        let diff = similar::TextDiff::from_lines(&old, &new);
        out.push_str(&diff.unified_diff().header(&a, &b).to_string());
    }
    out
}
