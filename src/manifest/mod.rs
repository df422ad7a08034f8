//! Files of a Git tree to Kubernetes objects: Handlebars templates, YAML as kubectl reads it, and for everything that
//! is wrong a [`Problem`] with file, line and column.
//!
//! Input is hostile: whatever the files hold, [`render`] returns, with bounded work and a bounded stack. One bad file
//! never stops the others.

mod commit;
mod decode;
mod encode;
mod files;
mod objects;
mod old_forms;
mod places;
mod render;
mod scope;
mod template;

pub use decode::decode;
pub use encode::encode;
pub use render::render;
pub use scope::is_builtin_group;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{Gvk, Object, ObjectKey, Snapshot};

/// Stands in for `serin.commit` where two renderings are compared, so that only real differences show.
pub const COMMIT_PLACEHOLDER: &str = "0000000000000000000000000000000000000000";

/// Tells whether objects of a type live in namespaces, for types that are neither built in nor defined by a CRD of the
/// rendered set. `None` means unknown.
pub type ScopeLookup<'a> = &'a (dyn Fn(&Gvk) -> Option<bool> + Sync);

/// What is rendered.
#[derive(Clone)]
pub struct Input<'a> {
    /// The tree.
    pub snapshot: &'a Snapshot,
    /// Folder of the source, relative to the repository's root; empty or `.` for all of it.
    pub path: &'a str,
    /// Values file of the templates, relative to the repository's root.
    pub values: Option<&'a str>,
    /// The `serin.*` variables.
    pub facts: Facts,
    /// Bounds of the work.
    pub limits: Limits,
    /// Namespaces that the source may write to; `None` means any, and cluster-scoped objects too.
    pub namespaces: Option<&'a [String]>,
    /// Scope of types that are not known otherwise.
    pub scope: Option<ScopeLookup<'a>>,
}

impl<'a> Input<'a> {
    /// A whole source without values, restrictions or a cluster to ask.
    pub fn new(snapshot: &'a Snapshot, path: &'a str) -> Self {
        Self {
            snapshot,
            path,
            values: None,
            facts: Facts::default(),
            limits: Limits::default(),
            namespaces: None,
            scope: None,
        }
    }
}

/// The variables `serin.cluster`, `serin.source`, `serin.branch` and `serin.commit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the source.
    pub source: String,
    /// Branch that is followed.
    pub branch: String,
    /// Full id of the rendered commit, [`COMMIT_PLACEHOLDER`] for comparisons.
    pub commit: String,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            source: String::new(),
            branch: String::new(),
            commit: COMMIT_PLACEHOLDER.to_owned(),
        }
    }
}

/// Bounds of the work of one rendering. Counted, not timed, so that the same tree always gives the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes: usize,
    /// Number of manifest files.
    pub files: usize,
    /// Bytes of one template.
    pub template_bytes: usize,
    /// Blocks within blocks, partials included.
    pub template_depth: usize,
    /// Block bodies, partials and values that one template may render: its deadline, counted.
    pub template_steps: usize,
    /// Bytes that one template may write.
    pub output_bytes: usize,
    /// Bytes that all templates of the source may write.
    pub total_output_bytes: usize,
    /// Documents of one file.
    pub documents: usize,
    /// Nesting of a document.
    pub document_depth: usize,
    /// Objects of the source.
    pub objects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 4 << 20,
            files: 20_000,
            template_bytes: 256 << 10,
            template_depth: 32,
            template_steps: 200_000,
            output_bytes: 2 << 20,
            total_output_bytes: 64 << 20,
            documents: 1_000,
            document_depth: 64,
            objects: 50_000,
        }
    }
}

/// What a source wants: its objects in a fixed order (by file, then by place in the file), and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ManifestSet {
    /// Objects that are in order.
    pub manifests: Vec<Manifest>,
    /// What is wrong, by file and line.
    pub problems: Vec<Problem>,
}

impl ManifestSet {
    /// The manifest of an object, whatever API version either names.
    pub fn get(&self, key: &ObjectKey) -> Option<&Manifest> {
        self.manifests.iter().find(|manifest| same_object(&manifest.object.key(), key))
    }

    /// Whether any file failed: nothing of the source is pruned then.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Whether two keys name one object: the version in which a type is read does not matter.
pub fn same_object(a: &ObjectKey, b: &ObjectKey) -> bool {
    a.gvk.group_kind() == b.gvk.group_kind() && a.namespace == b.namespace && a.name == b.name
}

/// One object and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The object as Git wants it.
    pub object: Arc<Object>,
    /// File that holds it, relative to the repository's root.
    pub file: String,
    /// Line of the file (of the template, for `.hbs`) where its document starts, from 1.
    pub line: u32,
    /// Files its file was rendered from: itself, and for templates the values file and the partials.
    pub inputs: BTreeSet<String>,
    /// Whether the rendering contains `serin.commit`.
    pub uses_commit: bool,
    /// Places of its fields by JSON pointer; kept for the kinds of `flagger.app` only.
    pub places: BTreeMap<String, Place>,
}

impl Manifest {
    /// Where a field stands: its own place, or that of the nearest ancestor that has one, or the document's.
    pub fn place(&self, pointer: &str) -> Place {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return *place;
            }
            match pointer.rsplit_once('/') {
                Some((parent, _)) => pointer = parent,
                None => return Place { line: self.line, column: 1 },
            }
        }
    }
}

/// A place in a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file, or the object, is not applied, and nothing is pruned.
    Error,
    /// Applied all the same.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Something that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// File, relative to the repository's root.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}: {}", self.file, self.line, self.column, self.severity, self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}
