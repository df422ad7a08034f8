//! What differs from run to run, under names that do not.
//!
//! * a uid is the object's kind and name; a generated suffix is `<gen>`, a pod template's hash `<hash-N>`
//! * a resourceVersion is `#N`, the Nth that was seen of its object; that of a list is `<now>` unless something newer
//!   was seen before it (`<past>`)
//! * times, IP addresses, node ports, ages and continue tokens are `<time>`, `<micro>`, `<ip>`, `<port>`, `<age>`, `<token>`
//! * `managedFields` are sorted by manager, operation and subresource; those of controllers are left out, who write when
//!   they come to it
//! * what the ServiceAccount admission plugin adds to pods is left out: clusters run with and without it
//! * the types of a discovery document are sorted
//! * the causes of a refusal are sorted, each once, and not repeated in its message: the real server has no order there

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Map, Value};

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

static UID: LazyLock<Regex> = LazyLock::new(|| pattern(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"));
static MICRO: LazyLock<Regex> = LazyLock::new(|| pattern(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"));
static TIME: LazyLock<Regex> = LazyLock::new(|| pattern(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"));
static IP: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b"));
static VERSION: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)(resource ?version[^0-9]{1,40})\d+( \(\d+\))?"));
static SET: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"((?:ReplicaSet|replica set) "[a-z0-9-]+)-[a-z0-9<>-]{5,10}""#));
static CURRENT: LazyLock<Regex> = LazyLock::new(|| pattern(r"current: \d+"));
static AGE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\d+[dhms]){1,2}$"));

/// The names given so far.
pub(crate) struct Names {
    namespace: String,
    fields: bool,
    uids: BTreeMap<String, String>,
    /// Generated names and template hashes, and what stands for them.
    made: BTreeMap<String, String>,
    hashes: usize,
    /// Versions seen, by uid.
    versions: BTreeMap<String, Vec<u64>>,
    newest: u64,
}

impl Names {
    /// None yet.
    pub(crate) fn new(namespace: &str, fields: bool) -> Self {
        Self {
            namespace: namespace.to_owned(),
            fields,
            uids: BTreeMap::new(),
            made: BTreeMap::new(),
            hashes: 0,
            versions: BTreeMap::new(),
            newest: 0,
        }
    }

    /// Learns the names in an answer.
    pub(crate) fn learn(&mut self, value: &Value) {
        self.learn_made(value);
        self.learn_uids(value, "");
    }

    fn learn_made(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(hash) = map.get("pod-template-hash").and_then(Value::as_str)
                    && !self.made.contains_key(hash)
                {
                    self.hashes += 1;
                    self.made.insert(hash.to_owned(), format!("<hash-{}>", self.hashes));
                }
                let text = |key: &str| map.get(key).and_then(Value::as_str);
                if let (Some(prefix), Some(name)) = (text("generateName"), text("name"))
                    && let Some(suffix) = name.strip_prefix(prefix).filter(|suffix| suffix.len() == 5)
                {
                    self.made.insert(suffix.to_owned(), "<gen>".to_owned());
                }
                map.values().for_each(|value| self.learn_made(value));
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn_made(item)),
            _ => {}
        }
    }

    fn learn_uids(&mut self, value: &Value, kind: &str) {
        match value {
            Value::Object(map) => {
                let own = map.get("kind").and_then(Value::as_str).unwrap_or(kind);
                let meta = |key: &str| map.get("metadata").and_then(|meta| meta.get(key)?.as_str());
                if let (Some(uid), Some(name)) = (meta("uid"), meta("name")) {
                    let label = format!("<uid of {own} {}>", self.text(name));
                    self.uids.insert(uid.to_owned(), label);
                }
                let below = own.strip_suffix("List").unwrap_or_default();
                map.values().for_each(|value| self.learn_uids(value, below));
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn_uids(item, kind)),
            _ => {}
        }
    }

    /// A text with names in place of what differs.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut text = text.replace(&self.namespace, "$NS");
        for (made, name) in &self.made {
            text = text.replace(made, name);
        }
        let text = SET.replace_all(&text, "$1-<hash>\"");
        let text = CURRENT.replace_all(&text, "current: <version>");
        let text = UID.replace_all(&text, |found: &Captures<'_>| {
            self.uids.get(&found[0]).cloned().unwrap_or_else(|| "<uid>".to_owned())
        });
        let text = MICRO.replace_all(&text, "<micro>");
        let text = TIME.replace_all(&text, "<time>");
        let text = IP.replace_all(&text, "<ip>");
        VERSION.replace_all(&text, "$1<version>").into_owned()
    }

    /// An answer, one line per value.
    pub(crate) fn show(&mut self, value: &Value, only: Option<&[String]>, hide: &[String]) -> String {
        let mut value = value.clone();
        for pointer in hide {
            remove(&mut value, pointer);
        }
        self.rename(&mut value);
        let mut lines = String::new();
        match only {
            None => show(&value, "", &mut lines),
            Some(pointers) => {
                for pointer in pointers {
                    match value.pointer(pointer) {
                        Some(part) => show(part, &pointer_path(pointer), &mut lines),
                        None => lines.push_str(&format!("{} is absent\n", pointer_path(pointer))),
                    }
                }
            }
        }
        lines
    }

    fn rename(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                self.rename_versions(map);
                sort_causes(map);
                sort_types(map);
                if self.fields {
                    if let Some(Value::Array(entries)) = map.get("managedFields") {
                        let entries = by_manager(entries);
                        map.insert("managedFields".to_owned(), entries);
                    }
                } else {
                    map.remove("managedFields");
                }
                without_account(map);
                for port in ["nodePort", "healthCheckNodePort"] {
                    map.entry(port).and_modify(|value| *value = "<port>".into());
                }
                let renamed: Map<String, Value> = std::mem::take(map)
                    .into_iter()
                    .map(|(key, mut value)| {
                        if key == "cells" {
                            ages(&mut value);
                        }
                        self.rename(&mut value);
                        (self.text(&key), value)
                    })
                    .collect();
                *map = renamed;
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.rename(item)),
            Value::String(text) => *text = self.text(text),
            _ => {}
        }
    }

    /// Renames the version in an object's metadata. `map` is the metadata.
    fn rename_versions(&mut self, map: &mut Map<String, Value>) {
        if map.get("continue").is_some_and(|token| token != "") {
            map.insert("continue".to_owned(), "<token>".into());
        }
        let Some(version) = map.get("resourceVersion").and_then(|v| v.as_str()?.parse::<u64>().ok()) else {
            return;
        };
        let name = match map.get("uid").and_then(Value::as_str) {
            Some(uid) => {
                self.newest = self.newest.max(version);
                let seen = self.versions.entry(uid.to_owned()).or_default();
                let at = seen.iter().position(|old| *old == version).unwrap_or_else(|| {
                    seen.push(version);
                    seen.len() - 1
                });
                format!("#{}", at + 1)
            }
            None if version >= self.newest => {
                self.newest = version;
                "<now>".to_owned()
            }
            None => "<past>".to_owned(),
        };
        map.insert("resourceVersion".to_owned(), name.into());
    }
}

/// Takes from a pod what the ServiceAccount admission plugin gave it.
fn without_account(map: &mut Map<String, Value>) {
    map.remove("serviceAccount");
    map.remove("serviceAccountName");
    for list in ["volumes", "volumeMounts"] {
        let Some(Value::Array(items)) = map.get_mut(list) else { continue };
        let before = items.len();
        items.retain(|item| !item["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-")));
        if items.is_empty() && before > 0 {
            map.remove(list);
        }
    }
}

/// Managers by name, each with the paths of its fields.
fn by_manager(entries: &[Value]) -> Value {
    let mut named = Map::new();
    for entry in entries {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("manager") == "kube-controller-manager" {
            continue;
        }
        let name = format!("{} {} {}", text("manager"), text("operation"), text("subresource"));
        let mut fields = vec![];
        paths(entry.get("fieldsV1").unwrap_or(&Value::Null), "", &mut fields);
        let about = format!("{} {} {}", text("apiVersion"), text("fieldsType"), text("time"));
        fields.insert(0, about.into());
        // Two entries of one name would be a mistake that must show.
        let name = if named.contains_key(name.trim()) { format!("{name} again") } else { name };
        named.insert(name.trim().to_owned(), fields.into());
    }
    named.into()
}

fn paths(fields: &Value, above: &str, found: &mut Vec<Value>) {
    match fields.as_object().filter(|map| !map.is_empty()) {
        None => found.push(above.trim_start().into()),
        Some(map) => map.iter().for_each(|(key, below)| paths(below, &format!("{above} {key}"), found)),
    }
}

fn sort_causes(status: &mut Map<String, Value>) {
    let refused = status.get("reason") != Some(&Value::from("Conflict"));
    let Some(causes) =
        status.get_mut("details").filter(|_| refused).and_then(|details| details.get_mut("causes")?.as_array_mut())
    else {
        return;
    };
    causes.sort_by_key(Value::to_string);
    causes.dedup();
    if causes.len() > 1 {
        let message = status.get("message").and_then(Value::as_str).unwrap_or_default();
        let start = message.split(": [").next().unwrap_or_default().to_owned();
        status.insert("message".to_owned(), format!("{start}: [<causes>]").into());
    }
}

fn sort_types(document: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = document.get_mut("resources") {
        types.sort_by_key(|one| one["name"].to_string());
    }
}

fn ages(cells: &mut Value) {
    for cell in cells.as_array_mut().into_iter().flatten() {
        if cell.as_str().is_some_and(|text| AGE.is_match(text)) {
            *cell = "<age>".into();
        }
    }
}

fn remove(value: &mut Value, pointer: &str) {
    if let Some((above, last)) = pointer.rsplit_once('/')
        && let Some(map) = value.pointer_mut(above).and_then(Value::as_object_mut)
    {
        map.remove(&last.replace("~1", "/").replace("~0", "~"));
    }
}

fn pointer_path(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
    parts.map(|part| step(&part)).collect()
}

fn step(key: &str) -> String {
    let index = !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit());
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if index {
        format!("[{key}]")
    } else if plain {
        format!(".{key}")
    } else {
        format!("[{}]", Value::from(key))
    }
}

fn show(value: &Value, path: &str, lines: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, below)| show(below, &format!("{path}{}", step(key)), lines));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(i, below)| show(below, &format!("{path}[{i}]"), lines));
        }
        _ => lines.push_str(&format!("{path} = {value}\n")),
    }
}
