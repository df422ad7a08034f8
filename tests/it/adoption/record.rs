//! A moment of a recorded run of the real Flagger: the objects as it had written them when it wrote a status.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use serin::domain::{Object, ObjectKey};
use serin::sandbox::store::Store;

/// Who had written an object, and the object.
type Written = (String, Value);

/// All that a cluster holds of one scenario at one moment.
pub(super) struct Moment {
    pub(super) namespace: String,
    pub(super) status: Value,
    objects: BTreeMap<(String, String), Written>,
}

/// The moments of a recorded scenario at which Flagger wrote a status, in order.
pub(super) fn moments(scenario: &str) -> Vec<Moment> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/corpus").join(scenario);
    let text = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let lines = |file: &str| text(file).lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let plan: Value = serde_json::from_str(&text("scenario.json").replace("$NS", scenario)).unwrap();
    let mut objects = BTreeMap::new();
    for object in plan["input"].as_array().unwrap() {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(scenario);
        objects.insert(key(&object["kind"], &object["metadata"]["name"]), ("input".to_owned(), object));
    }
    let steps = plan["steps"].as_array().unwrap().iter();
    let mut acts = steps.flat_map(|step| step["do"].as_array().cloned().unwrap_or_default());
    let (mut changes, mut statuses) = (lines("objects.jsonl"), lines("status.jsonl").into_iter());
    let mut moments = Vec::new();
    for line in text("transcript.txt").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["object", verb, what, "by", by, ..] => {
                let (kind, name) = what.split_once('/').unwrap();
                let by = by.trim_end_matches(':');
                let is = |change: &Value| {
                    change["verb"] == *verb && change["kind"] == kind && change["name"] == name && change["by"] == by
                };
                // What the recorder itself did is not always among the objects.
                let Some(at) = changes.iter().position(is) else { continue };
                let change = changes.remove(at);
                let key = key(&change["kind"], &change["name"]);
                match *verb {
                    "delete" => drop(objects.remove(&key)),
                    _ => drop(objects.insert(key, (by.to_owned(), change["object"].clone()))),
                }
            }
            ["STEP", ..] => {
                // What people did is not among the objects.
                let act = acts.next().unwrap_or_default();
                let patch = &act["patch"];
                if patch.is_object()
                    && let Some((_, object)) = objects.get_mut(&key(&patch["kind"], &patch["name"]))
                {
                    merge(object, &patch["patch"]);
                }
            }
            ["status", ..] => {
                let status = statuses.next().unwrap();
                moments.push(Moment { namespace: scenario.to_owned(), status, objects: objects.clone() });
            }
            _ => {}
        }
    }
    moments
}

/// A strategic merge patch, as far as the recorded steps need it: elements of lists are found by their names.
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (field, value) in patch {
                merge(into.entry(field.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(patch)) if patch.iter().all(|element| element["name"].is_string()) => {
            for element in patch {
                match into.iter_mut().find(|known| known["name"] == element["name"]) {
                    Some(known) => merge(known, element),
                    None => into.push(element.clone()),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn key(kind: &Value, name: &Value) -> (String, String) {
    (kind.as_str().unwrap().to_owned(), name.as_str().unwrap().to_owned())
}

impl Moment {
    /// Puts everything into a cluster, as its writers did.
    pub(super) fn put(&self, store: &Store, now: &str) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}});
        store.write(Object(namespace), "kubectl").unwrap();
        // The Canary first: the others name its uid.
        let mut all: Vec<&Written> = self.objects.values().collect();
        all.sort_by_key(|(_, object)| object["kind"] != "Canary");
        let mut uid = String::new();
        for (by, object) in all {
            let mut object: Value = serde_json::from_str(&object.to_string().replace("<time>", now)).unwrap();
            for owner in object["metadata"]["ownerReferences"].as_array_mut().into_iter().flatten() {
                owner["uid"] = json!(uid);
            }
            if object["kind"] == "Service"
                && let Some(spec) = object["spec"].as_object_mut()
            {
                // The addresses of the recorded cluster.
                spec.retain(|field, _| !field.starts_with("clusterIP"));
            }
            let manager = if by == "flagger" { "flagger" } else { "kubectl-create" };
            let written = store.write(Object(object), manager).unwrap();
            if written.str("/kind") == "Canary" {
                uid = written.uid().to_owned();
            }
        }
        self.write_status(store, now);
    }

    /// Writes the status as Flagger does.
    pub(super) fn write_status(&self, store: &Store, now: &str) {
        let status = serde_json::from_str(&self.status.to_string().replace("<time>", now)).unwrap();
        store.write_status(&self.canary(), status, "flagger").unwrap();
    }

    pub(super) fn canary(&self) -> ObjectKey {
        ObjectKey::namespaced("flagger.app/v1beta1", "Canary", &self.namespace, "podinfo")
    }

    /// The objects but for the Canary, and who owns each of them.
    pub(super) fn owners(&self) -> BTreeMap<(String, String), String> {
        let owner =
            |object: &Value| object["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default().to_owned();
        let mut all: BTreeMap<_, _> =
            self.objects.iter().map(|(key, (_, object))| (key.clone(), owner(object))).collect();
        all.retain(|(kind, _), _| kind != "Canary");
        all
    }
}
