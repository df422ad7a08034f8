//! Forms of an object: stored, as a version shows it, as `Scale`, as metadata only.

use serde_json::{Map, Value, json};

use super::owners;
use super::types::Resource;
use crate::domain::Object;

/// Fields of an Event in `events.k8s.io/v1` and in `v1`.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(value: &mut Value, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(map) = value.as_object_mut() else { return };
    for (from, to) in pairs {
        if let Some(moved) = map.remove(from) {
            map.insert(to.to_owned(), moved);
        }
    }
}

/// Turns an object as a client sent it into the stored form.
pub(crate) fn to_storage(res: &Resource, value: &mut Value) {
    if res.group == "events.k8s.io" {
        rename(value, EVENT_FIELDS.iter().copied());
    }
    value["apiVersion"] = res.storage_api_version().into();
}

/// A stored object as a version shows it.
pub(crate) fn from_storage(res: &Resource, version: &str, object: &Object) -> Value {
    let mut value = object.0.clone();
    if res.group == "events.k8s.io" {
        rename(&mut value, EVENT_FIELDS.iter().map(|(new, old)| (*old, *new)));
    }
    value["apiVersion"] = res.api_version(version).into();
    owners::show(value.get_mut("metadata"));
    value
}

/// The scale of an object.
pub(crate) fn scale(res: &Resource, object: &Object) -> Value {
    let mut meta = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.0["metadata"].get(field) {
            meta.insert(field.to_owned(), value.clone());
        }
    }
    let number = |path: Option<&str>| path.and_then(|p| object.int(p)).unwrap_or(0);
    let paths = res.scale.as_ref();
    let mut status = json!({ "replicas": number(paths.map(|p| p.status.as_str())) });
    let selector = match paths.and_then(|p| p.selector.as_deref()) {
        Some(path) => object.str(path).to_owned(),
        None => object
            .at("/spec/selector/matchLabels")
            .and_then(Value::as_object)
            .map(|labels| {
                let pairs: Vec<String> =
                    labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
                pairs.join(",")
            })
            .unwrap_or_default(),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    // Go leaves out a zero.
    let wanted = Some(number(paths.map(|p| p.spec.as_str()))).filter(|n| *n != 0);
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta,
        "spec": wanted.map_or_else(|| json!({}), |n| json!({ "replicas": n })),
        "status": status,
    })
}

/// Metadata only.
pub(crate) fn metadata_only(object: &Object) -> Value {
    let mut metadata = object.0["metadata"].clone();
    owners::show(Some(&mut metadata));
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
}
