//! Rendering of one source: the same way for applying, for attribution and for verifying reverts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::settings::SourceSettings;
use crate::domain::{Gvk, ObjectKey, Sha, Snapshot};
use crate::manifest::{COMMIT_PLACEHOLDER, Facts, Input, Limits, ManifestSet, Severity, render};
use crate::release::{Problem, Render, Rendered, RenderedObject, Scope};

/// Renders the trees of one source.
pub(crate) struct SourceRender {
    settings: SourceSettings,
    cluster: String,
    /// Scope of types as the cluster serves them: true for namespaced.
    scopes: Mutex<BTreeMap<Gvk, bool>>,
}

impl SourceRender {
    pub(crate) fn new(settings: SourceSettings, cluster: String) -> Arc<Self> {
        Arc::new(Self { settings, cluster, scopes: Mutex::default() })
    }

    /// Remembers whether objects of a type live in namespaces. True when that is news.
    pub(crate) fn learn(&self, gvk: Gvk, namespaced: bool) -> bool {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).insert(gvk, namespaced) != Some(namespaced)
    }

    /// Renders a tree as of a commit.
    pub(crate) fn manifests(&self, snapshot: &Snapshot, commit: &str) -> ManifestSet {
        let scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let scope = move |gvk: &Gvk| scopes.get(gvk).copied();
        render(&Input {
            snapshot,
            path: &self.settings.path,
            values: self.settings.values.as_deref(),
            facts: Facts {
                cluster: self.cluster.clone(),
                source: self.settings.name.clone(),
                branch: self.settings.branch.clone(),
                commit: commit.to_owned(),
            },
            limits: Limits::default(),
            namespaces: self.settings.namespaces.as_deref(),
            scope: Some(&scope),
        })
    }

    /// Whether this is another source than the given one, which reads the same branch.
    pub(crate) fn is_beside(&self, other: &SourceSettings) -> bool {
        let own = &self.settings;
        own.name != other.name && own.repository == other.repository && own.branch == other.branch
    }

    /// Name of the source.
    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Which files of the repository belong to the source.
    pub(crate) fn scope(&self) -> Scope {
        Scope { path: self.settings.path.clone(), values: self.settings.values.clone() }
    }
}

impl Render for SourceRender {
    fn render(&self, snapshot: &Snapshot) -> Rendered {
        let commit = snapshot.revision.as_ref().map_or(COMMIT_PLACEHOLDER, |Sha(sha)| sha.as_str());
        rendered(&self.manifests(snapshot, commit))
    }
}

/// A manifest set in the words of the release room.
pub(crate) fn rendered(set: &ManifestSet) -> Rendered {
    let objects = set.manifests.iter().map(|manifest| {
        let object = RenderedObject {
            object: manifest.object.clone(),
            inputs: manifest.inputs.clone(),
            file: manifest.file.clone(),
        };
        (manifest.object.key(), object)
    });
    let problems = set.problems.iter().filter(|problem| problem.severity == Severity::Error);
    Rendered {
        objects: objects.collect::<BTreeMap<ObjectKey, RenderedObject>>(),
        problems: problems.map(|p| Problem { file: p.file.clone(), text: p.to_string() }).collect(),
    }
}
