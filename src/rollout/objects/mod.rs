//! The objects that the engine makes for a canary, as pure builders: live objects in, wanted objects out.
//!
//! Everything here is applied by server-side apply under the engine's field manager, so a builder returns exactly the
//! fields that the engine wants to own; what others put on the same object stays theirs.
//!
//! Source: Flagger `pkg/canary/*.go`, `pkg/router/kubernetes_default.go`; names and shapes are kept byte for byte.

pub mod adoption;
pub mod configs;
pub mod daemonset;
pub mod deployment;
pub mod hpa;
pub mod knative;
pub mod scaled_object;
pub mod service;
pub mod services;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::canary::CanaryView;
use crate::domain::Object;

/// Annotations that tell Flux to leave a generated object alone.
pub const TOOLKIT_ANNOTATIONS: [(&str, &str); 2] =
    [("helm.toolkit.fluxcd.io/driftDetection", "disabled"), ("kustomize.toolkit.fluxcd.io/reconcile", "disabled")];

/// The pod-template annotation with a fresh value at every promotion, which forces a rolling update.
pub const FLAGGER_ID: &str = "flagger-id";

/// The operator's flags that shape generated objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectOptions {
    /// Label keys that may select the pods of a target, in order of preference (`-selector-labels`).
    pub selector_labels: Vec<String>,
    /// Prefixes of the target's labels and annotations that are copied to the primary (`-include-label-prefix`);
    /// `*` copies all.
    pub include_label_prefix: Vec<String>,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self {
            selector_labels: ["app", "name", "app.kubernetes.io/name"].map(str::to_owned).to_vec(),
            include_label_prefix: Vec::new(),
        }
    }
}

impl ObjectOptions {
    /// Keeps the entries whose key may be copied to a primary object.
    pub fn filter(&self, entries: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut entries = copyable(entries);
        entries.retain(|key, _| self.include_label_prefix.iter().any(|p| p == "*" || key.starts_with(p.as_str())));
        entries
    }
}

/// The label that tells the pods of the target from those of the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorLabel {
    /// Label key.
    pub key: String,
    /// Its value on the target's pods; need not be the target's name.
    pub value: String,
}

impl SelectorLabel {
    /// Finds the label in the target's `spec.selector.matchLabels`; `matchExpressions` are not looked at.
    ///
    /// # Errors
    /// Flagger's message when the selector has none of the keys.
    pub fn of(target: &Object, options: &ObjectOptions) -> Result<Self, String> {
        let labels = target.at("/spec/selector/matchLabels");
        let found = options.selector_labels.iter().find_map(|key| {
            let value = labels?.get(key)?.as_str()?;
            Some(Self { key: key.clone(), value: value.to_owned() })
        });
        found.ok_or_else(|| {
            format!(
                "{} {}.{} spec.selector.matchLabels must contain one of [{}]",
                target.str("/kind").to_lowercase(),
                target.name(),
                target.namespace().unwrap_or_default(),
                options.selector_labels.join(" ")
            )
        })
    }

    /// Its value on the primary's pods.
    pub fn primary_value(&self) -> String {
        format!("{}-primary", self.value)
    }
}

/// The owner reference that ties a generated object to its Canary.
pub fn owner_reference(canary: &CanaryView) -> Value {
    json!({
        "apiVersion": crate::api::API_VERSION,
        "kind": "Canary",
        "name": canary.key.name,
        "uid": canary.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Whether this Canary is the object's controlling owner.
pub fn is_controlled_by(object: &Object, canary: &CanaryView) -> bool {
    controller(object).is_some_and(|owner| owner.get("uid").and_then(Value::as_str) == Some(canary.uid.as_str()))
}

/// The controlling owner reference of an object.
pub(crate) fn controller(object: &Object) -> Option<&Value> {
    let owners = object.at("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
}

/// Drops the keys that never reach a generated object: those of Flux, which would make it reconcile the copy, ours, and
/// what kubectl and the workload controllers note about the original.
pub fn copyable(mut entries: BTreeMap<String, String>) -> BTreeMap<String, String> {
    entries.retain(|key, _| is_copyable(key));
    entries
}

fn is_copyable(key: &str) -> bool {
    !key.contains("toolkit.fluxcd.io")
        && !key.starts_with("serin.dev/")
        && key != "deployment.kubernetes.io/revision"
        && key != "deprecated.daemonset.template.generation"
        && key != "kubectl.kubernetes.io/last-applied-configuration"
}

pub(crate) fn to_map(entries: BTreeMap<String, String>) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key, Value::String(value))).collect()
}

/// Sets a map field of `metadata`, or leaves it out when it is empty.
pub(crate) fn set_metadata(object: &mut Value, field: &str, entries: BTreeMap<String, String>) {
    if !entries.is_empty()
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert(field.to_owned(), Value::Object(to_map(entries)));
    }
}
