//! Whether the cluster already has what Git wants.
//!
//! What we applied last is recorded as a digest in the annotation `serin.dev/digest`: another digest means that Git
//! changed. The same digest leaves drift to find. Values alone cannot show it, because the API server normalises some
//! (`1000m` becomes `1`) and drops empty ones. So a field whose value differs is drift only when it is no longer ours
//! in `managedFields`: whoever changes a field takes it from us (Kubernetes, "Server-Side Apply", conflicts).

use serde_json::{Map, Value};

use crate::domain::{Digest, FieldManager, Object};

/// Annotation with the digest of what we applied.
pub const DIGEST_ANNOTATION: &str = "serin.dev/digest";

/// Annotation with the commit that last changed the object's rendering.
pub const COMMIT_ANNOTATION: &str = "serin.dev/commit";

/// The digest of an object as it is sent, without our own annotations.
pub(super) fn digest(object: &Object) -> Digest {
    Digest::of(&object.0)
}

/// What the comparison of an object with the cluster says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Whether anything must be written.
    pub(super) changed: bool,
    /// Paths that differ, for people.
    pub(super) fields: Vec<String>,
}

/// Compares what Git wants with what the cluster has.
pub(super) fn compare(desired: &Object, live: &Object) -> Difference {
    let ours = fields_of(live, FieldManager::Applier.as_str());
    let same_digest = live.annotation(DIGEST_ANNOTATION) == Some(digest(desired).0.as_str());
    let mut walk = Walk { builtin: crate::manifest::is_builtin_group(&desired.gvk().group), found: Vec::new() };
    if same_digest {
        walk.node(&desired.0, &live.0, "", ours.map_or(Owned::Unknown, Owned::Part));
        return Difference { changed: !walk.found.is_empty(), fields: walk.found };
    }
    walk.node(&desired.0, &live.0, "", Owned::Unknown);
    if let Some(ours) = ours {
        removed(ours, &desired.0, "", &mut walk.found);
    }
    Difference { changed: true, fields: walk.found }
}

/// The fields that a manager owns (`fieldsV1`), the entry for the object itself and not for a subresource.
pub(super) fn fields_of<'o>(live: &'o Object, manager: &str) -> Option<&'o Value> {
    managers(live).find(|(name, subresource, _)| *name == manager && subresource.is_empty()).map(|(.., fields)| fields)
}

/// All entries of `managedFields`: manager, subresource, fields.
pub(super) fn managers(live: &Object) -> impl Iterator<Item = (&str, &str, &Value)> {
    live.at("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten().filter_map(|entry| {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        Some((text("manager"), text("subresource"), entry.get("fieldsV1")?))
    })
}

/// What is known about who owns a field.
#[derive(Clone, Copy)]
enum Owned<'f> {
    /// There is no record of ours: values decide.
    Unknown,
    /// We own something here; the value tells what below.
    Part(&'f Value),
    /// We own this and all below it: an atomic list or map, or a single value.
    Whole,
    /// Not ours.
    No,
}

impl<'f> Owned<'f> {
    fn step(self, name: impl FnOnce(&'f Map<String, Value>) -> Option<&'f Value>) -> Self {
        let Self::Part(fields) = self else { return self };
        match fields.as_object() {
            Some(map) if !map.is_empty() => name(map).map_or(Self::No, Self::of),
            _ => Self::Whole,
        }
    }

    fn of(fields: &'f Value) -> Self {
        if fields.as_object().is_none_or(Map::is_empty) { Self::Whole } else { Self::Part(fields) }
    }

    fn child(self, key: &str) -> Self {
        self.step(|map| map.get(&format!("f:{key}")))
    }

    /// Whether the value may differ because the server wrote ours in its own way.
    fn is_ours(self) -> bool {
        matches!(self, Self::Whole | Self::Part(_))
    }
}

struct Walk {
    builtin: bool,
    found: Vec<String>,
}

impl Walk {
    fn node(&mut self, desired: &Value, live: &Value, path: &str, owned: Owned<'_>) {
        match (desired, live) {
            (Value::Object(desired), Value::Object(live)) => {
                for (key, item) in desired {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    // `stringData` is write-only: the server turns it into `data`.
                    if path == "stringData" || path == "apiVersion" {
                        continue;
                    }
                    match live.get(key) {
                        None if is_empty(item) => {}
                        None => self.found.push(path),
                        Some(live) => self.node(item, live, &path, owned.child(key)),
                    }
                }
            }
            (Value::Array(desired), Value::Array(live)) => self.list(desired, live, path, owned),
            (Value::Null, _) => {}
            (desired, live) if desired == live || same_quantity(desired, live) => {}
            _ if owned.is_ours() => {}
            _ => self.found.push(path.to_owned()),
        }
    }

    fn list(&mut self, desired: &[Value], live: &[Value], path: &str, owned: Owned<'_>) {
        if let Owned::Part(fields) = owned
            && let Some(map) = fields.as_object()
        {
            if map.keys().any(|key| key.starts_with("k:")) {
                for (index, item) in desired.iter().enumerate() {
                    let Some((key, fields)) = map.iter().find(|(key, _)| is_key_of(key, item)) else {
                        self.found.push(format!("{path}[{}]", label(item, index)));
                        continue;
                    };
                    match live.iter().find(|live| is_key_of(key, live)) {
                        Some(live) => {
                            self.node(item, live, &format!("{path}[{}]", label(item, index)), Owned::of(fields))
                        }
                        None => self.found.push(format!("{path}[{}]", label(item, index))),
                    }
                }
                return;
            }
            if map.keys().any(|key| key.starts_with("v:")) {
                if desired.iter().any(|item| !live.contains(item)) {
                    self.found.push(path.to_owned());
                }
                return;
            }
        }
        let by_key = self.builtin && matches!(owned, Owned::Unknown);
        for (index, item) in desired.iter().enumerate() {
            let twin = by_key
                .then(|| KEYS.iter().find_map(|key| Some((key, item.get(*key)?))))
                .flatten()
                .map_or_else(|| live.get(index), |(key, value)| live.iter().find(|live| live.get(*key) == Some(value)));
            let path = format!("{path}[{}]", label(item, index));
            match twin {
                Some(live) => self.node(item, live, &path, owned),
                None if owned.is_ours() => {}
                None => self.found.push(path),
            }
        }
        if !by_key && desired.len() < live.len() && !owned.is_ours() {
            self.found.push(path.to_owned());
        }
    }
}

/// Keys of the lists of built-in types that are merged by key.
const KEYS: &[&str] = &["name", "mountPath", "containerPort", "port", "key", "ip", "topologyKey"];

fn label(item: &Value, index: usize) -> String {
    let key = KEYS.iter().find_map(|key| item.get(*key));
    match key {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => index.to_string(),
    }
}

/// Whether `k:{"name":"web"}` is the key of an item.
fn is_key_of(key: &str, item: &Value) -> bool {
    let parsed = key.strip_prefix("k:").and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    parsed.is_some_and(|parsed| {
        parsed.iter().all(|(name, value)| match item.get(name) {
            Some(found) => found == value,
            // A key may be left out where the server has a default for it.
            None => name == "protocol" && value == "TCP",
        })
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
    }
}

/// Whether two values are one Kubernetes quantity (`1000m` and `1`, `1Gi` and `1024Mi`, the number 1 and `"1"`).
fn same_quantity(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => quantity(text),
        _ => None,
    };
    match (number(a), number(b)) {
        (Some(a), Some(b)) => (a - b).abs() <= f64::EPSILON * a.abs().max(b.abs()),
        _ => false,
    }
}

fn quantity(text: &str) -> Option<f64> {
    const UNITS: &[(&str, f64)] = &[
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let unit = UNITS.iter().find_map(|(name, factor)| Some((text.strip_suffix(name)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1.0));
    let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    plain.then(|| digits.parse::<f64>().ok()).flatten().map(|number| number * factor)
}

/// Fields that we own and that Git does not want any more; an apply without them takes them away.
fn removed(ours: &Value, desired: &Value, path: &str, found: &mut Vec<String>) {
    let Some(fields) = ours.as_object() else { return };
    for (name, below) in fields {
        let Some(key) = name.strip_prefix("f:") else { continue };
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let own = path.starts_with("metadata.annotations.serin.dev/") || path == "metadata.annotations";
        match desired.get(key) {
            Some(desired) if desired.is_object() => removed(below, desired, &path, found),
            Some(_) => {}
            None if own => {}
            None => found.push(format!("{path} (removed)")),
        }
    }
}
