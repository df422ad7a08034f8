//! Rules for changing an object: preconditions, what a write cannot touch, when the generation rises.

use serde_json::{Map, Value, json};

use super::error::{ApiError, Problem};
use super::types::Resource;
use super::write::{Part, Write};
use crate::domain::Object;

/// The metadata of an object, made where it is missing.
pub(super) fn metadata(value: &mut Value) -> &mut Value {
    if !value.is_object() {
        *value = json!({});
    }
    if !value.get("metadata").is_some_and(Value::is_object) {
        value["metadata"] = json!({});
    }
    &mut value["metadata"]
}

/// Takes a field out of a JSON object.
pub(super) fn take(value: &mut Value, field: &str) -> Option<Value> {
    value.as_object_mut()?.remove(field)
}

/// The string in a field, or the empty string.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Refuses a write that was made for another object or another revision of it.
pub(super) fn preconditions(write: &Write<'_>, live: &Object, meta: &Value) -> Result<(), ApiError> {
    let (version, uid) = (text(meta, "resourceVersion"), text(meta, "uid"));
    if !uid.is_empty() && uid != live.uid() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", live.uid());
        return Err(write.conflict(&why));
    }
    if !version.is_empty() && version != live.resource_version() {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(write.conflict(why));
    }
    Ok(())
}

/// Puts back what no write can change.
pub(super) fn keep_identity(res: &Resource, live: &Object, value: &mut Value) {
    for field in [
        "uid",
        "creationTimestamp",
        "name",
        "namespace",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    ] {
        let meta = metadata(value);
        take(meta, field);
        if let Some(kept) = live.0["metadata"].get(field) {
            meta[field] = kept.clone();
        }
    }
    if res.is("", "Service") && value.pointer("/spec/clusterIP").and_then(Value::as_str).is_none_or(str::is_empty) {
        let ip = live.at("/spec/clusterIP").cloned();
        if let (Some(ip), Some(spec)) = (ip, value.get_mut("spec").and_then(Value::as_object_mut)) {
            spec.insert("clusterIP".to_owned(), ip);
        }
    }
    if res.is("", "Namespace")
        && let Some(spec) = live.0.get("spec")
    {
        value["spec"] = spec.clone();
    }
}

/// Metadata lose what is empty, as in every answer of a real server.
pub(super) fn tidy(value: &mut Value) {
    let meta = metadata(value);
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = |v: &Value| {
            v.is_null() || v.as_object().is_some_and(Map::is_empty) || v.as_array().is_some_and(Vec::is_empty)
        };
        if meta.get(field).is_some_and(empty) {
            take(meta, field);
        }
    }
}

/// The main resource cannot write the status, and the status subresource nothing else.
pub(super) fn keep_other_part(write: &Write<'_>, live: &Object, value: &mut Value) {
    if !write.res.status {
        return;
    }
    let status = if write.part == Part::Status {
        let status = take(value, "status");
        // The Deployment controller writes the revision this way: no new generation follows.
        let annotations = metadata(value).get("annotations").cloned();
        *value = live.0.clone();
        if write.res.is("apps", "Deployment") {
            metadata(value)["annotations"] = annotations.unwrap_or_default();
            tidy(value);
        }
        status
    } else {
        live.0.get("status").cloned()
    };
    take(value, "status");
    if let Some(status) = status {
        value["status"] = status;
    }
}

/// An object that is going can only lose finalizers.
pub(super) fn check_finalizers(write: &Write<'_>, live: &Object, new: &Object) -> Result<(), ApiError> {
    if !live.is_terminating() {
        return Ok(());
    }
    let list =
        |object: &Object| object.at("/metadata/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    let before = list(live);
    let added: Vec<String> = list(new).iter().filter(|f| !before.contains(f)).map(Value::to_string).collect();
    if added.is_empty() {
        return Ok(());
    }
    let message = format!(
        "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    let problem = Problem { field: "metadata.finalizers".to_owned(), reason: "FieldValueForbidden", message };
    Err(write.invalid(new.name(), &[problem]))
}

/// Whether a change counts as a new generation: of the spec, for custom types of anything but metadata (and status
/// where that is a subresource), for Deployments also of annotations.
pub(super) fn deserves_generation(write: &Write<'_>, old: &Value, new: &Value) -> bool {
    if write.part == Part::Status {
        return false;
    }
    let res = write.res;
    if res.custom.is_none() {
        let annotations = |v: &Value| v.pointer("/metadata/annotations").cloned();
        return old.get("spec") != new.get("spec")
            || (res.is("apps", "Deployment") && annotations(old) != annotations(new));
    }
    let body = |value: &Value| -> Map<String, Value> {
        let skip = |key: &str| key == "metadata" || key == "apiVersion" || (key == "status" && res.status);
        value.as_object().into_iter().flatten().filter(|(k, _)| !skip(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    body(old) != body(new)
}

/// The status that a new object of a built-in type begins with.
pub(super) fn fresh_status(res: &Resource, value: &mut Value) {
    if res.custom.is_some() || !res.status || value.get("status").is_some() {
        return;
    }
    value["status"] = match res.kind.as_str() {
        "Pod" => json!({ "phase": "Pending", "qosClass": "BestEffort" }),
        "Namespace" => json!({ "phase": "Active" }),
        "Service" | "Ingress" => json!({ "loadBalancer": {} }),
        "ReplicaSet" => json!({ "replicas": 0 }),
        "HorizontalPodAutoscaler" => json!({ "currentMetrics": null, "desiredReplicas": 0 }),
        _ => json!({}),
    };
}
