//! What is known of the repository while a question is being answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Render, Rendered};
use crate::domain::{Sha, Snapshot};
use crate::ports::FileChange;

/// What must be fetched before an answer is possible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    /// Commits whose files are needed: whole trees where possible, else everything in the source's scope.
    pub snapshots: BTreeSet<Sha>,
    /// Commits whose changes against their first parent are needed.
    pub changes: BTreeSet<Sha>,
}

impl Need {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.changes.is_empty()
    }

    /// Adds another need.
    pub fn merge(&mut self, other: Self) {
        self.snapshots.extend(other.snapshots);
        self.changes.extend(other.changes);
    }

    pub(crate) fn snapshot(sha: &Sha) -> Self {
        Self { snapshots: BTreeSet::from([sha.clone()]), changes: BTreeSet::new() }
    }
}

/// What has been fetched, and what was rendered from it. Commits are immutable, so nothing here goes stale: one value
/// may serve many questions about one source as long as the source's configuration stays the same.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    snapshots: BTreeMap<Sha, Snapshot>,
    changes: BTreeMap<Sha, Vec<FileChange>>,
    renders: BTreeMap<Sha, Arc<Rendered>>,
    missing: BTreeSet<Sha>,
}

impl Evidence {
    /// Adds the files of a commit.
    pub fn add_snapshot(&mut self, sha: Sha, mut snapshot: Snapshot) {
        // Comparisons must not see the commit's name: it would differ in every object that prints it.
        snapshot.revision = None;
        self.snapshots.insert(sha, snapshot);
    }

    /// Adds the changes of a commit.
    pub fn add_changes(&mut self, sha: Sha, changes: Vec<FileChange>) {
        self.changes.insert(sha, changes);
    }

    /// Says that the repository cannot show this commit (force-pushed away and pruned, or over the limits). It counts as
    /// empty where it is needed nevertheless, so that no question is asked for ever; a candidate that suffers from it
    /// does not pass its verification.
    pub fn add_missing(&mut self, sha: Sha) {
        self.snapshots.entry(sha.clone()).or_default();
        self.changes.entry(sha.clone()).or_default();
        self.missing.insert(sha);
    }

    /// Forgets every commit that `keep` does not name, so that memory stays bounded.
    pub fn retain(&mut self, keep: &BTreeSet<Sha>) {
        self.snapshots.retain(|sha, _| keep.contains(sha));
        self.changes.retain(|sha, _| keep.contains(sha));
        self.renders.retain(|sha, _| keep.contains(sha));
        self.missing.retain(|sha| keep.contains(sha));
    }

    /// How many commits have been rendered.
    pub fn rendered_count(&self) -> usize {
        self.renders.len()
    }

    /// The files of a commit, once they have been added.
    pub fn files(&self, sha: &Sha) -> Option<&Snapshot> {
        self.snapshots.get(sha)
    }

    pub(crate) fn is_missing(&self, sha: &Sha) -> bool {
        self.missing.contains(sha)
    }

    pub(crate) fn snapshot(&self, sha: &Sha) -> Result<&Snapshot, Need> {
        self.snapshots.get(sha).ok_or_else(|| Need::snapshot(sha))
    }

    pub(crate) fn changes(&self, sha: &Sha) -> Result<&[FileChange], Need> {
        self.changes
            .get(sha)
            .map(Vec::as_slice)
            .ok_or_else(|| Need { snapshots: BTreeSet::new(), changes: BTreeSet::from([sha.clone()]) })
    }

    pub(crate) fn rendered(&mut self, sha: &Sha, render: &dyn Render) -> Result<Arc<Rendered>, Need> {
        if let Some(rendered) = self.renders.get(sha) {
            return Ok(Arc::clone(rendered));
        }
        let rendered = Arc::new(render.render(self.snapshot(sha)?));
        self.renders.insert(sha.clone(), Arc::clone(&rendered));
        Ok(rendered)
    }
}

/// Which files of the repository belong to a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Folder of the source from the repository's root; empty for the whole repository.
    pub path: String,
    /// The values file, which may lie outside the folder.
    pub values: Option<String>,
}

impl Scope {
    /// Whether a file belongs to the source.
    pub fn contains(&self, file: &str) -> bool {
        let folder = self.path.trim_matches('/');
        let inside =
            folder.is_empty() || folder == "." || file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        inside || self.values.as_deref() == Some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_folder_and_a_values_file() {
        let scope = |path: &str| Scope { path: path.to_owned(), values: Some("values/prod.yaml".to_owned()) };
        for (path, file, inside) in [
            ("apps", "apps/a.yaml", true),
            ("apps/", "apps/deep/a.yaml", true),
            ("apps", "apps-old/a.yaml", false),
            ("apps", "README.md", false),
            ("apps", "values/prod.yaml", true),
            ("apps", "values/test.yaml", false),
            ("", "anything", true),
            (".", "anything", true),
        ] {
            assert_eq!(scope(path).contains(file), inside, "{path} {file}");
        }
    }
}
