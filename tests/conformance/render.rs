//! From the log to a recording.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::canon::{Names, authors, is_note};
use super::log::{Entry, Log, Seen};
use super::recording::{Change, EventLine, Recording, changes, samples, sorted};
use super::scenario::Scenario;
use super::servers::{METRICS, RECEIVER, Servers};

/// A pause longer than this stands as an empty line in the transcript: another tick.
const PAUSE: jiff::SignedDuration = jiff::SignedDuration::from_secs(4);

/// Changed values of an object that a line of the transcript shows.
const SHOWN: usize = 7;

/// Makes a recording of what was seen. `metrics` is the controller's own page of metrics at the end, `problem` what kept
/// the scenario from its end.
pub(crate) fn render(
    log: &Log,
    scenario: &Scenario,
    servers: &Servers,
    metrics: &str,
    problem: Option<String>,
) -> Recording {
    let back = |text: &str| text.replace(&servers.metrics, METRICS).replace(&servers.receiver, RECEIVER);
    let seen = log.ordered();
    let mut writer = Writer::new(scenario);
    for one in &seen {
        if let Entry::Object { object, .. } = &one.entry
            && object.get("kind") == Some(&Value::from("Canary"))
        {
            writer.names.learn_cookies(&object["status"]);
        }
    }
    for one in &seen {
        let text = back(&match &one.entry {
            Entry::Object { object, .. } => object.to_string(),
            Entry::Hook { body, .. } => body.to_string(),
            Entry::Event { message, .. } => Value::from(message.as_str()).to_string(),
            Entry::Refused(text) => Value::from(text.as_str()).to_string(),
            _ => "null".to_owned(),
        });
        writer.entry(one, serde_json::from_str(&text).unwrap());
    }
    writer.recording.metrics = samples(metrics, &scenario.name);
    writer.recording.problem = problem;
    writer.recording
}

struct Writer<'a> {
    scenario: &'a Scenario,
    recording: Recording,
    names: Names,
    /// The last form of each object, raw and normal, by kind, name and group.
    raw: BTreeMap<String, Value>,
    last: BTreeMap<String, Value>,
    statuses: BTreeMap<String, Value>,
    then: Option<jiff::Timestamp>,
}

impl<'a> Writer<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            recording: Recording::default(),
            names: Names::default(),
            raw: BTreeMap::new(),
            last: BTreeMap::new(),
            statuses: BTreeMap::new(),
            then: None,
        }
    }

    fn say(&mut self, line: String) {
        self.recording.transcript.push(line);
    }

    fn entry(&mut self, seen: &Seen, text: Value) {
        if self.then.is_some_and(|then| seen.at.duration_since(then) > PAUSE) && !matches!(seen.entry, Entry::Step(_)) {
            self.say(String::new());
        }
        self.then = Some(seen.at);
        match &seen.entry {
            Entry::Event { type_, reason, .. } => self.event(type_, reason, text.as_str().unwrap()),
            Entry::Object { verb, .. } => self.object(verb, &text),
            Entry::Query { metric, text, answer } => {
                self.recording.queries.insert(text.split_whitespace().collect::<Vec<_>>().join(" "));
                self.say(format!("query    {metric} -> {answer}"));
            }
            Entry::Hook { hook, method, path, authorization, status, .. } => {
                let body = self.names.value(&text);
                let phase = body["phase"].as_str().map(|phase| format!(" [{phase}]")).unwrap_or_default();
                let words = body.pointer("/metadata/eventMessage").and_then(Value::as_str);
                let words = words.map(|words| format!(" {words}")).unwrap_or_default();
                self.say(format!("hook     {hook} -> {status}{phase}{words}"));
                let mut headers = json!({});
                if let Some(value) = authorization {
                    headers["Authorization"] = value.as_str().into();
                }
                self.recording.webhooks.push(sorted(&json!({
                    "hook": hook, "method": method, "path": path, "headers": headers, "body": body, "answered": status,
                })));
            }
            Entry::Step(act) => self.say(format!("STEP     {act}")),
            Entry::Refused(_) => self.say(format!("REFUSED  {}", text.as_str().unwrap())),
        }
    }

    fn event(&mut self, type_: &str, reason: &str, message: &str) {
        let message = message.replace('\n', "\\n");
        self.say(format!("event    {type_} {message}"));
        let line = EventLine { type_: type_.to_owned(), reason: reason.to_owned(), message };
        match self.recording.events.iter_mut().find(|(known, _)| *known == line) {
            Some((_, count)) => *count += 1,
            None => self.recording.events.push((line, 1)),
        }
    }

    fn object(&mut self, verb: &'static str, object: &Value) {
        if is_note(object) {
            return;
        }
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (kind, name) = (text("/kind").to_owned(), text("/metadata/name").to_owned());
        let version = text("/apiVersion").to_owned();
        let key = format!("{kind}/{name}/{}", version.split('/').next().unwrap());
        let by = authors(self.raw.get(&key), object, verb);
        if verb == "delete" {
            self.raw.remove(&key);
        } else {
            self.raw.insert(key.clone(), object.clone());
        }
        if kind == "Canary" && verb != "delete" {
            self.status(&name, &object["status"]);
        }
        let normal = sorted(&self.names.object(object));
        if verb == "update" && self.last.get(&key) == Some(&normal) {
            return;
        }
        let before = match verb {
            "delete" => self.last.remove(&key),
            _ => self.last.insert(key, normal.clone()),
        };
        let by = (!by.is_empty()).then(|| by.join(","));
        let author = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let changed = before.filter(|_| verb == "update").map(|before| changes(&before, &normal, SHOWN));
        let changed = changed.filter(|changed| !changed.is_empty()).map(|changed| format!(": {}", changed.join("; ")));
        let changed = changed.unwrap_or_default();
        self.say(format!("object   {verb} {kind}/{name}{author}{changed}"));
        let object = if verb == "delete" { Value::Null } else { normal };
        self.recording.objects.push(Change { kind, name, verb: verb.to_owned(), by, object });
    }

    fn status(&mut self, canary: &str, status: &Value) {
        let mut status = sorted(&self.names.value(status));
        let empty = status.as_object().is_none_or(serde_json::Map::is_empty);
        if self.statuses.get(canary) == Some(&status) || (empty && !self.statuses.contains_key(canary)) {
            return;
        }
        self.statuses.insert(canary.to_owned(), status.clone());
        if empty {
            return;
        }
        let shown = ["phase", "canaryWeight", "iterations", "failedChecks", "lastAppliedSpec", "lastPromotedSpec"];
        let shown = shown.iter().filter_map(|key| {
            let value = status.get(*key)?;
            Some(format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        });
        let line = format!("status   {}", shown.collect::<Vec<_>>().join(" "));
        self.say(line);
        if canary != self.scenario.canary() {
            status["canary"] = canary.into();
        }
        self.recording.status.push(sorted(&status));
    }
}
