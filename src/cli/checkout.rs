#![expect(clippy::disallowed_types, reason = "shell: asks the checkout's repository what is ignored")]
//! A working tree on this machine as a [`Snapshot`], so that `check` and `render` see what a commit of it would hold.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use git2::Repository;

use super::config::{Config, Source};
use crate::domain::{Blob, Snapshot};
use crate::git::Limits;
use crate::manifest::{Facts, Input, ManifestSet, ScopeLookup, render};

/// A working tree: the repository around a folder, or the folder itself where there is none.
pub(super) struct Checkout {
    /// The root that paths in messages are relative to.
    pub(super) root: PathBuf,
    repository: Option<Repository>,
}

/// One folder of manifests, by the words of `serin.yaml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Folder {
    /// Name of the source; empty for a folder that no source names.
    pub(super) source: String,
    /// Name of the cluster.
    pub(super) cluster: String,
    /// Branch of the source.
    pub(super) branch: String,
    /// Folder relative to the root; empty for the root.
    pub(super) path: String,
    /// Values file relative to the root.
    pub(super) values: Option<String>,
    /// Namespaces that the source may write to.
    pub(super) namespaces: Option<Vec<String>>,
}

impl Folder {
    /// The folder of a source.
    pub(super) fn of(config: &Config, source: &Source) -> Self {
        Self {
            source: source.name.clone(),
            cluster: config.cluster.clone(),
            branch: source.branch.clone(),
            path: source.path.trim_start_matches("./").trim_matches('/').to_owned(),
            values: source.values.clone(),
            namespaces: source.namespaces.as_ref().map(|names| names.iter().cloned().collect()),
        }
    }

    /// Whether a file or folder of the tree is the folder or lies in it.
    pub(super) fn holds(&self, path: &str) -> bool {
        let path = path.strip_prefix(self.path.as_str());
        path.is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with('/'))
    }

    /// What must be read to render the folder.
    pub(super) fn prefixes(&self) -> Vec<String> {
        std::iter::once(self.path.clone()).chain(self.values.clone()).collect()
    }

    /// Renders the folder from a tree.
    pub(super) fn render(&self, snapshot: &Snapshot, scope: Option<ScopeLookup<'_>>) -> ManifestSet {
        let mut facts = Facts {
            cluster: self.cluster.clone(),
            source: self.source.clone(),
            branch: self.branch.clone(),
            ..Facts::default()
        };
        if let Some(revision) = &snapshot.revision {
            facts.commit.clone_from(&revision.0);
        }
        render(&Input {
            values: self.values.as_deref(),
            facts,
            namespaces: self.namespaces.as_deref(),
            scope,
            ..Input::new(snapshot, &self.path)
        })
    }
}

impl Checkout {
    /// The working tree that a folder or file lies in.
    pub(super) fn around(path: &Path) -> anyhow::Result<Self> {
        let path = fs::canonicalize(path).with_context(|| format!("looking for {}", path.display()))?;
        let start = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(&path) };
        let repository = Repository::discover(start).ok();
        let root = repository.as_ref().and_then(|found| fs::canonicalize(found.workdir()?).ok());
        Ok(Self { root: root.unwrap_or_else(|| start.to_owned()), repository })
    }

    /// A path as it is named within the tree: relative, with slashes.
    pub(super) fn relative(&self, path: &Path) -> anyhow::Result<String> {
        let full = fs::canonicalize(path).with_context(|| format!("looking for {}", path.display()))?;
        let Ok(relative) = full.strip_prefix(&self.root) else {
            bail!("{} is not in {}: check each repository by itself", path.display(), self.root.display());
        };
        let parts: Option<Vec<&str>> = relative
            .components()
            .map(|part| match part {
                Component::Normal(name) => name.to_str(),
                _ => None,
            })
            .collect();
        Ok(parts.with_context(|| format!("{} is not UTF-8: rename it", path.display()))?.join("/"))
    }

    /// Reads the files under some paths of the tree. What Git ignores is left out; what a commit of it would have refused
    /// is refused here too.
    pub(super) fn snapshot(&self, prefixes: &[String]) -> anyhow::Result<Snapshot> {
        let mut reader = Reader { checkout: self, limits: Limits::default(), snapshot: Snapshot::default(), bytes: 0 };
        for prefix in prefixes {
            let path = prefix.trim_start_matches("./").trim_matches('/');
            let path = if path == "." { "" } else { path };
            if self.root.join(path).symlink_metadata().is_ok() {
                reader.read(path)?;
            }
        }
        Ok(reader.snapshot)
    }
}

struct Reader<'a> {
    checkout: &'a Checkout,
    limits: Limits,
    snapshot: Snapshot,
    bytes: u64,
}

impl Reader<'_> {
    fn read(&mut self, path: &str) -> anyhow::Result<()> {
        let full = self.checkout.root.join(path);
        let found = fs::symlink_metadata(&full).with_context(|| format!("reading {path}"))?;
        if found.is_symlink() {
            self.refuse(path, "a symlink; only regular files are read".to_owned());
        } else if found.is_dir() {
            if !path.is_empty() && full.join(".git").exists() {
                self.refuse(path, "a submodule; only files of this repository are read".to_owned());
                return Ok(());
            }
            self.folder(path, &full)?;
        } else if found.len() > self.limits.max_blob_bytes {
            self.refuse(path, format!("{} bytes; at most {} are read", found.len(), self.limits.max_blob_bytes));
        } else {
            let content = fs::read(&full).with_context(|| format!("reading {path}"))?;
            self.bytes = self.bytes.saturating_add(content.len() as u64);
            self.snapshot.files.insert(path.to_owned(), Blob::from(content));
        }
        if self.snapshot.files.len() > self.limits.max_files || self.bytes > self.limits.max_snapshot_bytes {
            bail!("{} holds too many files: name the folder of the manifests", self.checkout.root.display());
        }
        Ok(())
    }

    fn folder(&mut self, path: &str, full: &Path) -> anyhow::Result<()> {
        let entries = fs::read_dir(full).with_context(|| format!("reading the folder {}", full.display()))?;
        for entry in entries {
            let name = entry.with_context(|| format!("reading the folder {}", full.display()))?.file_name();
            let shown = name.to_string_lossy();
            let inner = if path.is_empty() { shown.to_string() } else { format!("{path}/{shown}") };
            if name.to_str().is_none() {
                self.refuse(&inner, "a name that is not UTF-8".to_owned());
            } else if shown != ".git" && !self.is_ignored(&inner) {
                self.read(&inner)?;
            }
        }
        Ok(())
    }

    fn is_ignored(&self, path: &str) -> bool {
        let repository = self.checkout.repository.as_ref();
        // A file that was committed in spite of the rules is in the tree.
        repository.is_some_and(|repository| {
            repository.is_path_ignored(path).unwrap_or(false)
                && !repository.index().is_ok_and(|index| index.find_prefix(path).is_ok())
        })
    }

    fn refuse(&mut self, path: &str, why: String) {
        self.snapshot.refused.insert(path.to_owned(), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_tree_reads_as_a_commit_of_it_would() {
        let folder = tempfile::tempdir().expect("a folder");
        let repository = Repository::init(folder.path()).expect("a repository");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("writing");
        };
        write("apps/web.yaml", "a");
        write("apps/secret.yaml", "b");
        write("apps/forced.yaml", "c");
        write("other/x.yaml", "d");
        write(".gitignore", "secret.yaml\nforced.yaml\n");
        Repository::init(folder.path().join("apps/sub")).expect("a repository in it");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("apps/link.yaml")).expect("a link");
        let mut index = repository.index().expect("an index");
        index.add_path(Path::new("apps/forced.yaml")).expect("adding");
        index.write().expect("writing the index");

        let checkout = Checkout::around(&folder.path().join("apps")).expect("a checkout");
        assert_eq!(checkout.relative(&folder.path().join("apps/web.yaml")).expect("inside"), "apps/web.yaml");
        assert!(checkout.relative(Path::new("/")).is_err());
        let snapshot = checkout.snapshot(&["apps".to_owned(), "values/none.yaml".to_owned()]).expect("readable");
        let files: Vec<&str> = snapshot.files.keys().map(String::as_str).collect();
        assert_eq!(files, ["apps/forced.yaml", "apps/web.yaml"]);
        let refused: Vec<&str> = snapshot.refused.keys().map(String::as_str).collect();
        assert_eq!(refused, ["apps/link.yaml", "apps/sub"]);
    }

    #[test]
    fn a_folder_without_a_repository_is_its_own_root() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a.yaml"), "x").expect("writing");
        let checkout = Checkout::around(folder.path()).expect("a folder");
        assert_eq!(checkout.relative(folder.path()).expect("inside"), "");
        assert_eq!(checkout.snapshot(&[String::new()]).expect("readable").text("a.yaml"), Some("x"));
    }
}
