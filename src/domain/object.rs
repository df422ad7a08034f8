//! A Kubernetes object as plain JSON, whatever its kind.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Gvk, ObjectKey};

/// The name under which we own fields in server-side apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldManager {
    /// `serin`: the applier of what Git says.
    Applier,
    /// `serin-canary`: the engine, owner of generated objects, target replicas and canary status.
    Engine,
}

impl FieldManager {
    /// The manager's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applier => "serin",
            Self::Engine => "serin-canary",
        }
    }
}

/// One Kubernetes object as JSON; the accessors read the fields that every object has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object(pub Value);

impl Object {
    /// Type of the object, from `apiVersion` and `kind` (empty strings where they are missing).
    pub fn gvk(&self) -> Gvk {
        Gvk::new(self.str("/apiVersion"), self.str("/kind"))
    }

    /// Identity of the object.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { gvk: self.gvk(), namespace: self.namespace().map(str::to_owned), name: self.name().to_owned() }
    }

    /// `metadata.name`, or the empty string.
    pub fn name(&self) -> &str {
        self.str("/metadata/name")
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> Option<&str> {
        self.at("/metadata/namespace").and_then(Value::as_str).filter(|s| !s.is_empty())
    }

    /// `metadata.uid`, or the empty string.
    pub fn uid(&self) -> &str {
        self.str("/metadata/uid")
    }

    /// `metadata.resourceVersion`, or the empty string.
    pub fn resource_version(&self) -> &str {
        self.str("/metadata/resourceVersion")
    }

    /// `metadata.generation`, or 0.
    pub fn generation(&self) -> i64 {
        self.at("/metadata/generation").and_then(Value::as_i64).unwrap_or(0)
    }

    /// Whether a deletion has been asked for.
    pub fn is_terminating(&self) -> bool {
        self.at("/metadata/deletionTimestamp").is_some_and(|v| !v.is_null())
    }

    /// All labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        string_map(self.at("/metadata/labels"))
    }

    /// All annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        string_map(self.at("/metadata/annotations"))
    }

    /// One annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.0.get("metadata")?.get("annotations")?.get(name)?.as_str()
    }

    /// The value at a JSON pointer (RFC 6901).
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }

    /// The string at a JSON pointer, or the empty string.
    pub fn str(&self, pointer: &str) -> &str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The integer at a JSON pointer.
    pub fn int(&self, pointer: &str) -> Option<i64> {
        self.at(pointer).and_then(Value::as_i64)
    }
}

fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}
