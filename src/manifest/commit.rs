//! Where `serin.commit` may not stand: what is in a release must not change with every commit (gitops.md §1).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::domain::Object;

/// Pointers at which two renderings of an object differ.
pub(super) fn differences(a: &Value, b: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(a, b, String::new(), &mut found);
    found
}

fn walk(a: &Value, b: &Value, pointer: String, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() && a.keys().all(|key| b.contains_key(key)) => {
            for (key, item) in a {
                let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                walk(item, b.get(key).unwrap_or(&Value::Null), pointer, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                walk(a, b, format!("{pointer}/{index}"), found);
            }
        }
        (a, b) if a == b => {}
        _ => found.push(pointer),
    }
}

/// Pointer of the pod template of a workload, by kind.
pub(super) fn template_pointer(kind: &str) -> Option<&'static str> {
    match kind {
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template")
        }
        "CronJob" => Some("/spec/jobTemplate"),
        "Pod" => Some("/spec"),
        _ => None,
    }
}

/// A ConfigMap or Secret: kind, namespace, name.
pub(super) type Config = (String, String, String);

/// ConfigMaps and Secrets that the targets of the canaries refer to (flagger-behaviour.md §3.4).
pub(super) fn tracked<'o>(objects: impl Iterator<Item = &'o Object> + Clone) -> BTreeSet<Config> {
    let targets: BTreeSet<Config> = objects
        .clone()
        .filter(|object| object.gvk().group_kind() == ("flagger.app", "Canary"))
        .map(|canary| {
            let namespace = canary.namespace().unwrap_or_default().to_owned();
            (canary.str("/spec/targetRef/kind").to_owned(), namespace, canary.str("/spec/targetRef/name").to_owned())
        })
        .collect();
    let mut tracked = BTreeSet::new();
    for object in objects {
        let namespace = object.namespace().unwrap_or_default().to_owned();
        if targets.contains(&(object.gvk().kind, namespace.clone(), object.name().to_owned())) {
            let mut add = |kind: &str, name: Option<&Value>| {
                if let Some(name) = name.and_then(Value::as_str) {
                    tracked.insert((kind.to_owned(), namespace.clone(), name.to_owned()));
                }
            };
            references(object, &mut add);
        }
    }
    tracked
}

fn list<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn references(object: &Object, add: &mut dyn FnMut(&str, Option<&Value>)) {
    let Some(pod) = object.at("/spec/template/spec") else { return };
    for volume in list(pod, "volumes") {
        add("ConfigMap", volume.pointer("/configMap/name"));
        add("Secret", volume.pointer("/secret/secretName"));
        for source in volume.get("projected").into_iter().flat_map(|projected| list(projected, "sources")) {
            add("ConfigMap", source.pointer("/configMap/name"));
            add("Secret", source.pointer("/secret/name"));
        }
    }
    for container in list(pod, "containers").chain(list(pod, "initContainers")) {
        for variable in list(container, "env") {
            add("ConfigMap", variable.pointer("/valueFrom/configMapKeyRef/name"));
            add("Secret", variable.pointer("/valueFrom/secretKeyRef/name"));
        }
        for source in list(container, "envFrom") {
            add("ConfigMap", source.pointer("/configMapRef/name"));
            add("Secret", source.pointer("/secretRef/name"));
        }
    }
}
