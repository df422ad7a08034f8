//! Field managers: what of `managedFields` is worth keeping in memory, and taking over from other tools. Pure.
//!
//! Source: Kubernetes server-side apply (structured-merge-diff, `FieldsV1`).

use serde_json::{Map, Value, json};

use crate::domain::{FieldManager, Object};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Drops what only costs memory: the field sets of other managers (their names stay where we might take over from
/// them, the ownership of a workload's size, and whether Flagger wrote a Canary's status last), kubectl's copy of the object except where the object is restored from it, and the content of Helm's
/// release Secrets, which are large, many, and nobody's business here.
pub(super) fn prune(object: &mut Value) {
    if object.get("type").and_then(Value::as_str) == Some("helm.sh/release.v1")
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("data");
    }
    let restored = is_restored_from_copy(object);
    let is_canary = object.get("kind").and_then(Value::as_str) == Some("Canary");
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(Value::Array(entries)) = metadata.get_mut("managedFields") {
        entries.retain_mut(|entry| {
            let manager = entry.get("manager").and_then(Value::as_str).unwrap_or_default();
            if [FieldManager::Applier, FieldManager::Engine].iter().any(|ours| ours.as_str() == manager) {
                return true;
            }
            let predecessor =
                is_predecessor(entry, FieldManager::Applier) || is_predecessor(entry, FieldManager::Engine);
            let scales = entry.pointer("/fieldsV1/f:spec/f:replicas").is_some();
            let drives = is_canary
                && entry.get("subresource").and_then(Value::as_str) == Some("status")
                && entry.pointer("/fieldsV1/f:status/f:lastTransitionTime").is_some();
            if let Some(entry) = entry.as_object_mut() {
                entry.retain(|field, _| matches!(field.as_str(), "manager" | "operation" | "subresource"));
                if scales {
                    // The applier leaves the size of a workload to whoever else owns it.
                    entry.insert("fieldsV1".to_owned(), json!({"f:spec": {"f:replicas": {}}}));
                }
                if drives {
                    // Whose canary it is depends on who wrote its status last.
                    entry.insert("fieldsV1".to_owned(), json!({"f:status": {"f:lastTransitionTime": {}}}));
                }
            }
            predecessor || scales || drives
        });
        if entries.is_empty() {
            metadata.remove("managedFields");
        }
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
        && !restored
    {
        annotations.remove(LAST_APPLIED);
    }
}

/// Whether an object gets back from kubectl's copy what another owner changed: the selector of a Service, the routes of a
/// VirtualService that Flagger took over.
fn is_restored_from_copy(object: &Value) -> bool {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    match text("kind") {
        "Service" => true,
        "VirtualService" => text("apiVersion").starts_with("networking.istio.io/"),
        _ => false,
    }
}

/// Whether an entry belongs to a tool whose place this manager takes: kubectl, Flux and Argo CD for the applier, Flagger
/// for the engine. Entries of subresources (status, scale) are nobody's to take.
fn is_predecessor(entry: &Value, by: FieldManager) -> bool {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
    if !text("subresource").is_empty() {
        return false;
    }
    let manager = text("manager");
    match by {
        FieldManager::Applier => {
            manager.starts_with("kubectl")
                || ["before-first-apply", "kustomize-controller", "argocd-controller", "argocd-application-controller"]
                    .contains(&manager)
        }
        FieldManager::Engine => manager == "flagger",
    }
}

fn is_ours(entry: &Value, by: FieldManager) -> bool {
    let is = |field: &str, value: &str| entry.get(field).and_then(Value::as_str) == Some(value);
    is("manager", by.as_str()) && is("operation", "Apply") && entry.get("subresource").is_none()
}

/// Whether this object would be taken over by our next apply: we never applied it, and a predecessor did. Works on
/// pruned objects.
pub(super) fn is_takeover(object: &Object, by: FieldManager) -> bool {
    let entries = object.at("/metadata/managedFields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    !entries.iter().any(|entry| is_ours(entry, by)) && entries.iter().any(|entry| is_predecessor(entry, by))
}

/// JSON patch (RFC 6902) that moves the predecessors' fields to our manager, so that a field which the desired object no
/// longer has disappears with our first apply. `None` when there is nothing to move. `live` must be unpruned.
///
/// Fields that the desired object leaves to somebody else although it could carry them stay with the predecessor:
/// `spec.replicas` (autoscalers, the engine), a Service's selector and ports (the engine), and kubectl's own copy where the
/// object is restored from it. Moving those would reset them.
pub(super) fn takeover(live: &Value, desired: &Object, by: FieldManager) -> Option<Value> {
    let entries = live.pointer("/metadata/managedFields")?.as_array()?;
    if entries.iter().any(|entry| is_ours(entry, by)) || !entries.iter().any(|entry| is_predecessor(entry, by)) {
        return None;
    }
    let mut kept: Vec<Value> = Vec::new();
    let mut moved: Vec<(String, Value, Value)> = Vec::new();
    for entry in entries {
        if !is_predecessor(entry, by) {
            kept.push(entry.clone());
            continue;
        }
        let mut fields = entry.get("fieldsV1").cloned().unwrap_or_else(|| json!({}));
        let rest = split_off(&mut fields, &left_alone(desired));
        if rest.as_object().is_some_and(|rest| !rest.is_empty()) {
            let mut entry = entry.clone();
            entry["fieldsV1"] = rest;
            kept.push(entry);
        }
        let version = entry.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        match moved.iter_mut().find(|(known, _, _)| known == version) {
            Some((_, _, union)) => unite(union, fields),
            None => moved.push((version.to_owned(), entry.get("time").cloned().unwrap_or_default(), fields)),
        }
    }
    for (version, time, fields) in moved {
        let mut entry = json!({"manager": by.as_str(), "operation": "Apply", "apiVersion": version,
            "fieldsType": "FieldsV1", "fieldsV1": fields});
        if !time.is_null() {
            entry["time"] = time;
        }
        kept.push(entry);
    }
    let version = live.pointer("/metadata/resourceVersion")?;
    Some(json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        {"op": "replace", "path": "/metadata/managedFields", "value": kept},
    ]))
}

fn left_alone(desired: &Object) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut leave = |pointer: &str, path: &[&str]| {
        if desired.at(pointer).is_none() {
            paths.push(path.iter().map(|part| format!("f:{part}")).collect());
        }
    };
    leave("/spec/replicas", &["spec", "replicas"]);
    if desired.str("/kind") == "Service" {
        leave("/spec/selector", &["spec", "selector"]);
        leave("/spec/ports", &["spec", "ports"]);
    }
    if is_restored_from_copy(&desired.0) {
        leave("/metadata/annotations/-", &["metadata", "annotations", LAST_APPLIED]);
    }
    paths
}

/// Takes the given paths out of a field set, and returns them as a field set of their own.
fn split_off(fields: &mut Value, paths: &[Vec<String>]) -> Value {
    let mut rest = json!({});
    for path in paths {
        let Some((last, parents)) = path.split_last() else { continue };
        let parent = parents.iter().try_fold(&mut *fields, |value, part| value.get_mut(part));
        let Some(taken) = parent.and_then(Value::as_object_mut).and_then(|parent| parent.remove(last)) else {
            continue;
        };
        let mut into = &mut rest;
        for part in parents {
            into = &mut into[part.as_str()];
        }
        into[last.as_str()] = taken;
    }
    rest
}

fn unite(into: &mut Value, from: Value) {
    let Value::Object(from) = from else { return };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    if let Some(into) = into.as_object_mut() {
        for (key, value) in from {
            unite(into.entry(key).or_insert_with(|| json!({})), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "podinfo", "resourceVersion": "7",
        "annotations": {LAST_APPLIED: "{}", "note": "x"},
        "managedFields": [
            {"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "apps/v1", "time": "t", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:a": {}}}}},
            {"manager": "kustomize-controller", "operation": "Apply", "apiVersion": "apps/v1", "fieldsV1": {"f:spec": {"f:template": {"f:b": {}}}}},
            {"manager": "kubectl", "operation": "Update", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
        ]}})
    }

    #[test]
    fn who_else_owns_the_size_of_a_workload_is_kept() {
        let mut object = json!({"metadata": {"managedFields": [
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale", "time": "t",
             "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status",
             "fieldsV1": {"f:status": {"f:replicas": {}}}},
        ]}});
        prune(&mut object);
        assert_eq!(
            object["metadata"]["managedFields"],
            json!([{"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale",
                    "fieldsV1": {"f:spec": {"f:replicas": {}}}}])
        );
    }

    #[test]
    fn pruning_keeps_our_entries_and_the_names_of_predecessors() {
        let mut object = live();
        object["metadata"]["managedFields"]
            .as_array_mut()
            .unwrap()
            .push(json!({"manager": "serin-canary", "fieldsV1": {"f:x": {}}}));
        prune(&mut object);
        assert_eq!(
            object["metadata"]["managedFields"],
            json!([
                {"manager": "kubectl-client-side-apply", "operation": "Update",
                 "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": "kustomize-controller", "operation": "Apply"},
                {"manager": "kubectl", "operation": "Update", "subresource": "scale",
                 "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": "serin-canary", "fieldsV1": {"f:x": {}}},
            ])
        );
        assert_eq!(object["metadata"]["annotations"], json!({"note": "x"}));
        assert!(is_takeover(&Object(object), FieldManager::Applier));

        let mut service = live();
        service["kind"] = json!("Service");
        service["metadata"]["managedFields"] = json!([{"manager": "helm", "operation": "Update"}]);
        prune(&mut service);
        assert_eq!(service["metadata"]["annotations"][LAST_APPLIED], "{}");
        assert_eq!(service["metadata"].get("managedFields"), None);
        assert!(!is_takeover(&Object(service), FieldManager::Applier));
    }

    #[test]
    fn kubectls_copy_stays_where_an_object_is_restored_from_it() {
        for (api_version, kind, stays) in [
            ("v1", "Service", true),
            ("networking.istio.io/v1beta1", "VirtualService", true),
            ("networking.istio.io/v1", "VirtualService", true),
            ("networking.istio.io/v1", "DestinationRule", false),
            ("gateway.solo.io/v1", "VirtualService", false),
            ("apps/v1", "Deployment", false),
        ] {
            let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "podinfo",
                "resourceVersion": "7", "annotations": {LAST_APPLIED: "{}"}, "managedFields": [
                    {"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": api_version,
                     "fieldsV1": {"f:metadata": {"f:annotations": {(format!("f:{LAST_APPLIED}")): {}}}, "f:spec": {}}}]}});
            let desired = Object(json!({"apiVersion": api_version, "kind": kind, "spec": {}}));
            let patch = takeover(&object, &desired, FieldManager::Applier).unwrap();
            let kept = &patch[1]["value"][0];
            assert_eq!(kept["manager"] == "kubectl-client-side-apply", stays, "{api_version} {kind}: {kept}");
            prune(&mut object);
            assert_eq!(object["metadata"]["annotations"].get(LAST_APPLIED).is_some(), stays, "{api_version} {kind}");
        }
    }

    #[test]
    fn helm_releases_are_kept_by_name_only() {
        let secret =
            |type_: &str| json!({"kind": "Secret", "type": type_, "metadata": {"name": "s"}, "data": {"release": "…"}});
        let (mut helm, mut plain) = (secret("helm.sh/release.v1"), secret("Opaque"));
        prune(&mut helm);
        prune(&mut plain);
        assert_eq!((helm.get("data"), plain["data"]["release"].as_str()), (None, Some("…")));
    }

    #[test]
    fn predecessors_fields_move_and_a_size_that_git_does_not_set_stays() {
        let desired = Object(json!({"kind": "Deployment", "spec": {"template": {}}}));
        let patch = takeover(&live(), &desired, FieldManager::Applier).unwrap();
        assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}));
        let entries = patch[1]["value"].as_array().unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
        assert_eq!(names, ["kubectl-client-side-apply", "kubectl", "kube-controller-manager", "serin"]);
        assert_eq!(entries[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
        assert_eq!(
            entries[3],
            json!({"manager": "serin", "operation": "Apply", "apiVersion": "apps/v1", "time": "t",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:template": {"f:a": {}, "f:b": {}}}}})
        );

        let sized = Object(json!({"kind": "Deployment", "spec": {"replicas": 3}}));
        let patch = takeover(&live(), &sized, FieldManager::Applier).unwrap();
        let last = patch[1]["value"].as_array().unwrap().last().unwrap();
        assert_eq!(last["fieldsV1"]["f:spec"]["f:replicas"], json!({}));
    }

    #[test]
    fn nothing_moves_twice_or_to_the_wrong_manager() {
        let desired = Object(json!({"kind": "Deployment"}));
        assert_eq!(takeover(&live(), &desired, FieldManager::Engine), None);
        let mut taken = live();
        taken["metadata"]["managedFields"]
            .as_array_mut()
            .unwrap()
            .push(json!({"manager": "serin", "operation": "Apply", "fieldsV1": {}}));
        assert_eq!(takeover(&taken, &desired, FieldManager::Applier), None);
        let flagger = json!({"metadata": {"resourceVersion": "1", "managedFields": [{"manager": "flagger", "operation": "Update", "fieldsV1": {"f:spec": {}}}]}});
        assert!(takeover(&flagger, &desired, FieldManager::Engine).is_some());
        assert_eq!(takeover(&flagger, &desired, FieldManager::Applier), None);
    }
}
