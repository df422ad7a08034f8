//! A tree of files at one commit, as values.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Sha;

/// Content of one file.
pub type Blob = Arc<[u8]>;

/// The regular files of a repository at one commit, keyed by path from the repository's root (`/` separated, no
/// leading slash). Blobs are shared, so a copy is cheap. What Git held but we refuse to read stands in `refused`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit, `None` for a tree that was computed and not committed yet.
    pub revision: Option<Sha>,
    /// Files by path.
    pub files: BTreeMap<String, Blob>,
    /// Paths that were refused, with the reason: symlink, submodule, oversized blob, name that is not UTF-8 …
    pub refused: BTreeMap<String, String>,
}

impl Snapshot {
    /// Text of a file; `None` when it is missing or is not UTF-8.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).and_then(|blob| std::str::from_utf8(blob).ok())
    }

    /// A snapshot from literal paths and texts; for tests and computed trees.
    pub fn from_texts<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files = files.into_iter().map(|(path, text)| (path.to_owned(), Blob::from(text.as_bytes()))).collect();
        Self { revision: None, files, refused: BTreeMap::new() }
    }
}
