//! A commit's files as values, read entry by entry from the object database. Nothing is written to a disk, so that no
//! name in a repository can lead anywhere; names that would do harm on one are refused all the same.

use std::collections::BTreeMap;
use std::path::Path;

use git2::{Oid, Repository, Tree, TreeEntry};

use super::mirror::{self, Mirror};
use super::options::Limits;
use crate::domain::{Blob, Sha, Snapshot};
use crate::ports::GitError;

/// Git itself has no limit; a deeper tree than this is a trap, not a configuration.
const MAX_DEPTH: usize = 64;

/// A Git LFS pointer is a small file that begins so (its specification, v1).
const LFS_MARKER: &[u8] = b"version https://git-lfs.github.com/spec/v1";

const LINK: i32 = 0o120_000;
const SUBMODULE: i32 = 0o160_000;
const FOLDER: i32 = 0o040_000;

/// Why a walk ended early.
enum Stop {
    Git(git2::Error),
    Limit(String),
}

impl From<git2::Error> for Stop {
    fn from(error: git2::Error) -> Self {
        Self::Git(error)
    }
}

impl Mirror {
    /// See [`crate::ports::GitRemote::snapshot`].
    pub(super) fn snapshot(&mut self, sha: &Sha, prefixes: &[String]) -> Result<Snapshot, GitError> {
        let repository = self.repository()?;
        let commit = mirror::commit(&repository, sha)?;
        let prefixes: Vec<&str> = prefixes.iter().map(|prefix| prefix.trim_matches('/')).collect();
        let mut walk = Walk {
            repository: &repository,
            limits: self.place.limits,
            prefixes,
            bytes: 0,
            snapshot: Snapshot { revision: Some(sha.clone()), ..Snapshot::default() },
        };
        match commit.tree().map_err(Stop::from).and_then(|tree| walk.folder(&tree, "", 0)) {
            Ok(()) => Ok(without_case_twins(walk.snapshot)),
            Err(Stop::Git(error)) => Err(self.broken(sha, &error)),
            Err(Stop::Limit(why)) => {
                Err(GitError::Missing(format!("commit {} is over the limits: {why}", sha.short())))
            }
        }
    }
}

/// The files of a revision of a checkout on this machine, as [`crate::ports::GitRemote::snapshot`] reads those of a
/// remote, and the commit's message. `revision` is whatever `git rev-parse` understands.
///
/// # Errors
/// [`GitError::Missing`] when there is no such revision, or it is over the limits.
pub fn read_revision(
    checkout: &Path,
    revision: &str,
    prefixes: &[String],
    limits: Limits,
) -> Result<(Snapshot, String), GitError> {
    let missing = |error: &git2::Error| {
        GitError::Missing(format!("reading {revision} of {}: {}", checkout.display(), error.message()))
    };
    let repository = Repository::discover(checkout).map_err(|error| missing(&error))?;
    let commit = repository.revparse_single(revision).and_then(|object| object.peel_to_commit());
    let commit = commit.map_err(|error| missing(&error))?;
    let mut walk = Walk {
        repository: &repository,
        limits,
        prefixes: prefixes.iter().map(|prefix| prefix.trim_matches('/')).collect(),
        bytes: 0,
        snapshot: Snapshot { revision: Some(mirror::sha(commit.id())), ..Snapshot::default() },
    };
    match commit.tree().map_err(Stop::from).and_then(|tree| walk.folder(&tree, "", 0)) {
        Ok(()) => {
            let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
            Ok((without_case_twins(walk.snapshot), message))
        }
        Err(Stop::Git(error)) => Err(missing(&error)),
        Err(Stop::Limit(why)) => Err(GitError::Missing(format!("{revision} is over the limits: {why}"))),
    }
}

struct Walk<'a> {
    repository: &'a Repository,
    limits: Limits,
    prefixes: Vec<&'a str>,
    bytes: u64,
    snapshot: Snapshot,
}

impl Walk<'_> {
    fn folder(&mut self, tree: &Tree<'_>, path: &str, depth: usize) -> Result<(), Stop> {
        for entry in tree {
            let name = match checked_name(entry.name_bytes()) {
                Ok(name) => joined(path, name),
                Err(why) => {
                    let shown = joined(path, &shown_name(entry.name_bytes()));
                    if self.wants(&shown) || self.leads_on(&shown) || self.wants(path) {
                        self.refuse(shown, why.to_owned())?;
                    }
                    continue;
                }
            };
            if self.wants(&name) || (entry.filemode() == FOLDER && self.leads_on(&name)) {
                self.entry(&entry, name, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &TreeEntry<'_>, path: String, depth: usize) -> Result<(), Stop> {
        match entry.filemode() {
            FOLDER if depth >= MAX_DEPTH => self.refuse(path, format!("deeper than {MAX_DEPTH} folders")),
            FOLDER => self.folder(&self.repository.find_tree(entry.id())?, &path, depth + 1),
            LINK => self.refuse(path, "a symlink; only regular files are read".to_owned()),
            SUBMODULE => self.refuse(path, "a submodule; only files of this repository are read".to_owned()),
            _ => match content(self.repository, entry.id(), self.limits)? {
                Ok(blob) => {
                    self.bytes = self.bytes.saturating_add(blob.len() as u64);
                    self.snapshot.files.insert(path, blob);
                    self.check_totals()
                }
                Err(why) => self.refuse(path, why),
            },
        }
    }

    fn refuse(&mut self, path: String, why: String) -> Result<(), Stop> {
        self.snapshot.refused.insert(path, why);
        self.check_totals()
    }

    fn check_totals(&self) -> Result<(), Stop> {
        let Limits { max_files, max_snapshot_bytes, .. } = self.limits;
        if self.snapshot.files.len() + self.snapshot.refused.len() > max_files {
            return Err(Stop::Limit(format!("more than {max_files} files")));
        }
        if self.bytes > max_snapshot_bytes {
            return Err(Stop::Limit(format!("more than {max_snapshot_bytes} bytes of files")));
        }
        Ok(())
    }

    /// Whether a path is one of the prefixes or below one.
    fn wants(&self, path: &str) -> bool {
        self.prefixes.iter().any(|prefix| below(path, prefix))
    }

    /// Whether a folder is above one of the prefixes.
    fn leads_on(&self, folder: &str) -> bool {
        self.prefixes.iter().any(|prefix| below(prefix, folder))
    }
}

fn below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Content of a blob, or why it is not read. The size is asked before the content.
pub(super) fn content(repository: &Repository, id: Oid, limits: Limits) -> Result<Result<Blob, String>, git2::Error> {
    let (size, _) = repository.odb()?.read_header(id)?;
    if size as u64 > limits.max_blob_bytes {
        return Ok(Err(format!("{size} bytes; at most {} are read", limits.max_blob_bytes)));
    }
    let blob = repository.find_blob(id)?;
    if blob.content().starts_with(LFS_MARKER) {
        return Ok(Err("a Git LFS pointer; the content is not in the repository".to_owned()));
    }
    Ok(Ok(Blob::from(blob.content())))
}

/// A name that is safe to have in a path, or why it is not.
pub(super) fn checked_name(name: &[u8]) -> Result<&str, &'static str> {
    let Ok(text) = std::str::from_utf8(name) else { return Err("a name that is not UTF-8") };
    // `git~1` is how Windows names `.git` in its short form.
    let forbidden = [".git", "git~1"].iter().any(|reserved| text.eq_ignore_ascii_case(reserved));
    match text {
        "" => Err("an empty name"),
        "." | ".." => Err("a name that leads out of its folder"),
        _ if forbidden => Err("a name that Git keeps for itself"),
        _ if text.contains(['/', '\\']) => Err("a name with a slash or backslash"),
        _ if text.chars().any(char::is_control) => Err("a name with a control character"),
        _ => Ok(text),
    }
}

/// A refused name, made fit to be shown.
fn shown_name(name: &[u8]) -> String {
    String::from_utf8_lossy(name)
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// Refuses files whose paths differ only in case: on some machines one hides the other, and a reviewer sees one.
fn without_case_twins(mut snapshot: Snapshot) -> Snapshot {
    let mut folded: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in snapshot.files.keys() {
        folded.entry(path.to_lowercase()).or_default().push(path.clone());
    }
    for twins in folded.into_values().filter(|paths| paths.len() > 1) {
        for path in &twins {
            let others: Vec<&str> = twins.iter().filter(|other| *other != path).map(String::as_str).collect();
            snapshot.files.remove(path);
            snapshot.refused.insert(path.clone(), format!("differs only in case from {}", others.join(", ")));
        }
    }
    snapshot
}

#[cfg(test)]
mod tests {
    use super::{below, checked_name, shown_name};

    #[test]
    fn prefixes_end_at_slashes() {
        for (path, folder, want) in
            [("a/b", "a", true), ("a", "a", true), ("ab", "a", false), ("a", "", true), ("a", "a/b", false)]
        {
            assert_eq!(below(path, folder), want, "{path} {folder}");
        }
    }

    #[test]
    fn names() {
        for (name, ok) in [
            (&b"app.yaml"[..], true),
            (b".gitignore", true),
            ("käse.yaml".as_bytes(), true),
            (b"..", false),
            (b".GIT", false),
            (b"GIT~1", false),
            (b"a\\b", false),
            (b"a\nb", false),
            (b"a\0b", false),
            (b"\xff", false),
        ] {
            assert_eq!(checked_name(name).is_ok(), ok, "{name:?}");
        }
        assert_eq!(shown_name(b"a\x1b[31mb"), "a\\u{1b}[31mb");
    }
}
