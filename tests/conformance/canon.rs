//! Normal form: what differs from run to run is dropped or named.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Parts of metadata that the API server makes.
const DROPPED: [&str; 7] =
    ["uid", "resourceVersion", "managedFields", "creationTimestamp", "generation", "selfLink", "generateName"];
/// Annotations that controllers of the cluster write.
const DROPPED_ANNOTATIONS: [&str; 2] =
    ["deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"];
const TIMES: [&str; 4] = ["lastTransitionTime", "lastUpdateTime", "timestamp", "startTime"];
/// serin's notes to itself: annotations with this prefix, and Secrets of this type. Flagger has no such thing.
const NOTES: &str = "serin.dev/";
const NOTE_SECRET: &str = "serin.dev/promoted";

/// Names for what is different in every run, numbered by first appearance.
#[derive(Default)]
pub(crate) struct Names(BTreeMap<&'static str, Vec<String>>);

impl Names {
    fn name(&mut self, kind: &'static str, value: &str) -> String {
        let known = self.0.entry(kind).or_default();
        let index = known.iter().position(|one| one == value).unwrap_or_else(|| {
            known.push(value.to_owned());
            known.len() - 1
        });
        format!("<{kind}-{}>", index + 1)
    }

    /// Names the cookies of a status: a route has them before the status says so.
    pub(crate) fn learn_cookies(&mut self, status: &Value) {
        let mut cookies: Vec<_> = status.as_object().into_iter().flatten().collect();
        cookies.retain(|(key, _)| key.ends_with("essionAffinityCookie"));
        cookies.sort_by_key(|(key, _)| key.as_str());
        for (key, cookie) in cookies {
            self.entry(key, &mut cookie.clone());
        }
    }

    /// A status, hook body or other value without metadata of its own.
    pub(crate) fn value(&mut self, value: &Value) -> Value {
        let mut value = value.clone();
        self.walk(&mut value);
        self.cookies(value)
    }

    /// An object without its status.
    pub(crate) fn object(&mut self, object: &Value) -> Value {
        let mut object = object.clone();
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, mut version) = (text("/kind"), text("/apiVersion"));
        // A kind with several versions is watched in one, and written in the one that its provider names.
        if let Some(written) = written_version(&object).filter(|_| version.contains('.')) {
            object["apiVersion"] = written.clone().into();
            version = written;
        }
        metadata(object["metadata"].as_object_mut().unwrap());
        if kind == "Service" && version == "v1" {
            addresses(&mut object["spec"]);
        }
        if ["HTTPProxy", "RouteTable", "TrafficRoute"].contains(&kind.as_str()) {
            no_zero_weights(&mut object["spec"]);
        }
        if !version.starts_with("serving.knative.dev/") {
            object.as_object_mut().unwrap().remove("status");
        }
        self.walk(&mut object);
        self.cookies(object)
    }

    fn walk(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) => map.iter_mut().for_each(|(key, value)| self.entry(key, value)),
            Value::Array(list) => list.iter_mut().for_each(|value| self.walk(value)),
            _ => {}
        }
    }

    fn entry(&mut self, key: &str, value: &mut Value) {
        let Some(text) = value.as_str().filter(|text| !text.is_empty()) else { return self.walk(value) };
        *value = match key {
            key if TIMES.contains(&key) => "<time>".into(),
            "flagger-id" => "<uuid>".into(),
            "lastAppliedSpec" | "lastPromotedSpec" => self.name("spec", text).into(),
            "checksum" => self.name("checksum", text).into(),
            key if key.ends_with("essionAffinityCookie") => {
                let (name, random) = text.split_once('=').unwrap_or((text, text));
                format!("{name}={}", self.name("cookie", random)).into()
            }
            _ => return,
        };
    }

    fn cookies(&self, value: Value) -> Value {
        let Some(cookies) = self.0.get("cookie") else { return value };
        let mut text = value.to_string();
        for (index, cookie) in cookies.iter().enumerate() {
            text = text.replace(cookie, &format!("<cookie-{}>", index + 1));
        }
        serde_json::from_str(&text).unwrap()
    }
}

/// The version that all writers of an object named.
fn written_version(object: &Value) -> Option<String> {
    let entries = object.pointer("/metadata/managedFields")?.as_array()?;
    let versions: BTreeSet<&str> = entries.iter().filter_map(|entry| entry.get("apiVersion")?.as_str()).collect();
    (versions.len() == 1).then(|| versions.first().map(|version| (*version).to_owned())).flatten()
}

fn metadata(metadata: &mut Map<String, Value>) {
    metadata.retain(|key, _| !DROPPED.contains(&key.as_str()));
    for owner in metadata.get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten() {
        owner.as_object_mut().unwrap().remove("uid");
    }
    if let Some(time) = metadata.get_mut("deletionTimestamp") {
        *time = "<time>".into();
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !DROPPED_ANNOTATIONS.contains(&key.as_str()) && !key.starts_with(NOTES));
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

fn addresses(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else { return };
    if let Some(ip) = spec.get_mut("clusterIP").filter(|ip| *ip != "None") {
        *ip = "<ip>".into();
    }
    if let Some(ips) = spec.get_mut("clusterIPs").filter(|ips| **ips != serde_json::json!(["None"])) {
        *ips = serde_json::json!(["<ip>"]);
    }
}

/// A weight of 0 and none are the same to Contour: general difference `zero-weights`.
fn no_zero_weights(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| key != "weight" || *value != 0);
            map.values_mut().for_each(no_zero_weights);
        }
        Value::Array(list) => list.iter_mut().for_each(no_zero_weights),
        _ => {}
    }
}

/// Whether an object is serin's own book-keeping.
pub(crate) fn is_note(object: &Value) -> bool {
    object["kind"] == "Secret" && object["type"] == NOTE_SECRET
}

type Sets = BTreeMap<(String, String, String), BTreeSet<String>>;

fn sets(object: Option<&Value>) -> Sets {
    let entries = object.and_then(|object| object.pointer("/metadata/managedFields")).and_then(Value::as_array);
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let sets = entries.into_iter().flatten().map(|entry| {
        let mut leaves = BTreeSet::new();
        fields(&entry["fieldsV1"], "", &mut leaves);
        ((text(entry, "manager"), text(entry, "operation"), text(entry, "subresource")), leaves)
    });
    sets.collect()
}

fn fields(value: &Value, path: &str, leaves: &mut BTreeSet<String>) {
    match value.as_object().filter(|map| !map.is_empty()) {
        None => {
            leaves.insert(path.to_owned());
        }
        Some(map) => {
            for (key, value) in map.iter().filter(|(key, _)| *key != ".") {
                let dot = if path.is_empty() { "" } else { "." };
                fields(value, &format!("{path}{dot}{}", &key[2..]), leaves);
            }
        }
    }
}

/// Who made a change, as managed fields tell: the managers whose sets grew, else those who own a changed field, else
/// those whose sets shrank. Empty for a deletion.
pub(crate) fn authors(old: Option<&Value>, new: &Value, verb: &str) -> Vec<String> {
    if verb == "delete" {
        return Vec::new();
    }
    let (before, after) = (sets(old), sets(Some(new)));
    let empty = BTreeSet::new();
    let known = |key| before.get(key).unwrap_or(&empty);
    let is_new = |key, leaf: &String| {
        !known(key).contains(leaf) && !known(key).iter().any(|one| one.starts_with(&format!("{leaf}.")))
    };
    let mut found: BTreeSet<_> = after.iter().filter(|(key, set)| set.iter().any(|leaf| is_new(*key, leaf))).collect();
    if found.is_empty() {
        let mut changed = BTreeSet::new();
        differences(&own(old.unwrap_or(&Value::Null)), &own(new), "", &mut changed);
        let whole = ["spec", "data", "metadata", "metadata.labels", "metadata.annotations"];
        let touches = |leaf: &String, path: &String| {
            leaf == path
                || leaf.starts_with(&format!("{path}."))
                || (path.starts_with(&format!("{leaf}.")) && !whole.contains(&leaf.as_str()))
        };
        let owns = |set: &BTreeSet<String>| changed.iter().any(|path| set.iter().any(|leaf| touches(leaf, path)));
        found = after.iter().filter(|(_, set)| owns(set)).collect();
    }
    if found.is_empty() {
        found = before
            .iter()
            .filter(|(key, set)| set.iter().any(|leaf| !after.get(key).is_some_and(|s| s.contains(leaf))))
            .collect();
    }
    let managers: BTreeSet<String> = found.into_iter().map(|((manager, _, _), _)| manager.clone()).collect();
    managers.into_iter().collect()
}

/// What is compared for authorship: everything but status and the server's part of the metadata.
fn own(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|key, _| ["labels", "annotations"].contains(&key.as_str()));
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|key, _| !DROPPED_ANNOTATIONS.contains(&key.as_str()));
            }
        }
    }
    object
}

fn differences(a: &Value, b: &Value, path: &str, out: &mut BTreeSet<String>) {
    match (a, b) {
        _ if a == b => {}
        (Value::Object(left), Value::Object(right)) => {
            let dot = if path.is_empty() { "" } else { "." };
            for key in left.keys().chain(right.keys()) {
                let get = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&get(left), &get(right), &format!("{path}{dot}{key}"), out);
            }
        }
        _ => {
            out.insert(path.to_owned());
        }
    }
}
