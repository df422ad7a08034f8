//! A recording: what a controller did, in normal form, as files of the corpus hold it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An Event, apart from its repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventLine {
    pub(crate) type_: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A change of an object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) verb: String,
    pub(crate) by: Option<String>,
    pub(crate) object: Value,
}

/// Everything that is compared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    /// In order of first occurrence, with the number of times.
    pub(crate) events: Vec<(EventLine, u64)>,
    pub(crate) status: Vec<Value>,
    pub(crate) objects: Vec<Change>,
    pub(crate) webhooks: Vec<Value>,
    /// With white space folded.
    pub(crate) queries: BTreeSet<String>,
    pub(crate) transcript: Vec<String>,
    /// The controller's own metrics of the namespace at the end, but for durations.
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) problem: Option<String>,
}

/// The same value with sorted keys.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect()
        }
        Value::Array(list) => list.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// The first changed values, up to `limit`, as `path: old -> new`.
pub(crate) fn changes(before: &Value, after: &Value, limit: usize) -> Vec<String> {
    let mut out = Vec::new();
    walk(before, after, "", limit, &mut out);
    out
}

fn walk(a: &Value, b: &Value, path: &str, limit: usize, out: &mut Vec<String>) {
    if a == b || out.len() >= limit {
        return;
    }
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let nothing = Value::Null;
            for key in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
                let (left, right) = (left.get(key).unwrap_or(&nothing), right.get(key).unwrap_or(&nothing));
                walk(left, right, &format!("{path}.{key}"), limit, out);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                walk(left, right, &format!("{path}[{index}]"), limit, out);
            }
        }
        _ => {
            let short = |value: &Value| sorted(value).to_string().chars().take(600).collect::<String>();
            out.push(format!("{}: {} -> {}", path.trim_start_matches('.'), short(a), short(b)));
        }
    }
}

impl Recording {
    /// Reads the files of a scenario's folder.
    pub(crate) fn read(folder: &Path) -> Self {
        // What did not happen has no file.
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let values = |name: &str| text(name).lines().map(|line| sorted(&serde_json::from_str(line).unwrap())).collect();
        let objects = text("objects.jsonl");
        let queries = text("queries.txt");
        let queries = queries.lines().filter(|line| !line.starts_with("# "));
        Self {
            events: text("events.txt").lines().map(event).collect(),
            status: values("status.jsonl"),
            objects: objects.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            webhooks: values("webhooks.jsonl"),
            queries: queries.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect(),
            transcript: text("transcript.txt").lines().map(str::to_owned).collect(),
            metrics: samples(&text("metrics.txt"), &namespace(folder)),
            problem: None,
        }
    }
}

fn namespace(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// Samples of Flagger's metrics in the text format, those of one namespace, with sorted labels.
pub(crate) fn samples(text: &str, namespace: &str) -> BTreeMap<String, f64> {
    let ours = format!("namespace=\"{namespace}\"");
    let lines = text.lines().filter(|line| line.starts_with("flagger_") && line.contains(&ours));
    let lines = lines.filter(|line| !line.contains("_duration_seconds"));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap();
            let mut labels: Vec<_> = labels.split("\",").map(|label| label.trim_end_matches('"')).collect();
            labels.sort_unstable();
            (format!("{name}{{{}\"}}", labels.join("\",")), value.parse().unwrap())
        })
        .collect()
}

/// `2x Normal Synced (flagger): text   [1x as combined event]`
fn event(line: &str) -> (EventLine, u64) {
    let pattern = regex::Regex::new(r"^(\d+)x (\S+) (\S+) \(.*?\): (.*?)(   \[\d+x as combined event\])?$").unwrap();
    let parts = pattern.captures(line).unwrap_or_else(|| panic!("`{line}` is no line of events"));
    let text = |index: usize| parts[index].to_owned();
    (EventLine { type_: text(2), reason: text(3), message: text(4) }, parts[1].parse().unwrap())
}
