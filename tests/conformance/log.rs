//! What was seen, in order, and what exists now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::Value;
use serin::ports::Clock;

/// One thing that was seen.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Object { verb: &'static str, object: Value },
    Event { type_: String, reason: String, message: String },
    Query { metric: String, text: String, answer: Value },
    Hook { hook: String, method: String, path: String, authorization: Option<String>, body: Value, status: u16 },
    Step(Value),
    Refused(String),
}

/// The same with its place: resource version, 0 for what is no object.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Timestamp,
    pub(crate) version: u64,
    pub(crate) entry: Entry,
}

/// What was seen and exists.
#[derive(Default)]
pub(crate) struct State {
    seen: Vec<Seen>,
    live: BTreeMap<(String, String), Value>,
    awaited: Option<Condition>,
    /// Number of entries when what is awaited came true.
    met: Option<usize>,
}

/// Something that is waited for.
pub(crate) type Condition = Box<dyn Fn(&State) -> bool + Send>;

impl State {
    pub(crate) fn live(&self, kind: &str, name: &str) -> Option<&Value> {
        self.live.get(&(kind.to_owned(), name.to_owned()))
    }

    /// How many of the entries after the first `from` are such.
    pub(crate) fn count(&self, from: usize, such: impl Fn(&Entry) -> bool) -> u64 {
        self.seen.iter().skip(from).filter(|seen| such(&seen.entry)).count() as u64
    }

    fn judge(&mut self) {
        if self.met.is_none() && self.awaited.as_ref().is_some_and(|holds| holds(self)) {
            self.met = Some(self.seen.len());
        }
    }
}

/// Clones share what they hold.
#[derive(Clone)]
pub(crate) struct Log {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

impl Log {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Arc::default() }
    }

    pub(crate) fn add(&self, entry: Entry) {
        self.push(0, entry);
    }

    fn push(&self, version: u64, entry: Entry) {
        let at = self.clock.now();
        let mut state = self.state.lock().unwrap();
        state.seen.push(Seen { at, version, entry });
        state.judge();
    }

    /// An object as a watch reported it.
    pub(crate) fn object(&self, verb: &'static str, object: Value) {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let version = text("/metadata/resourceVersion").parse().unwrap_or(0);
        if name == "kube-root-ca.crt" {
            return;
        }
        if kind == "Event" {
            if text("/involvedObject/kind") == "Canary" && verb != "delete" {
                let (type_, reason, message) = (text("/type"), text("/reason"), text("/message"));
                self.push(version, Entry::Event { type_, reason, message });
            }
            return;
        }
        {
            let mut state = self.state.lock().unwrap();
            if verb == "delete" {
                state.live.remove(&(kind, name));
            } else {
                state.live.insert((kind, name), object.clone());
            }
        }
        self.push(version, Entry::Object { verb, object });
    }

    /// From now on waits for a condition, which is judged after every entry, so that no passing state is missed.
    pub(crate) fn expect(&self, condition: Condition) {
        let mut state = self.state.lock().unwrap();
        state.awaited = Some(condition);
        state.met = None;
    }

    /// Number of entries when the condition came true, if it did.
    pub(crate) fn met(&self) -> Option<usize> {
        let mut state = self.state.lock().unwrap();
        state.judge();
        state.met
    }

    /// Everything, ordered: by time, then by resource version. Queries that are asked side by side have no order of
    /// their own, so they stand by their text.
    pub(crate) fn ordered(&self) -> Vec<Seen> {
        let mut all = self.state.lock().unwrap().seen.clone();
        // A watch may report late: a lower resource version did not happen after a higher one.
        all.sort_by_key(|seen| (seen.version == 0, seen.version));
        let objects = all.iter().take_while(|seen| seen.version != 0).count();
        let mut best = Timestamp::MAX;
        for seen in all.iter_mut().take(objects).rev() {
            best = best.min(seen.at);
            seen.at = best;
        }
        all.sort_by_key(|seen| (seen.at, seen.version));
        let query = |seen: &Seen| matches!(seen.entry, Entry::Query { .. });
        for group in all.chunk_by_mut(|a, b| a.at == b.at && query(a) && query(b)) {
            group.sort_by_key(|seen| match &seen.entry {
                Entry::Query { text, .. } => text.clone(),
                _ => String::new(),
            });
        }
        // So have the receivers of alerts and events, each of which is told beside the others.
        let told_beside = |hook: &str| hook.starts_with("alert") || ["event", "slack", "msteams"].contains(&hook);
        let channel = |seen: &Seen| match &seen.entry {
            Entry::Hook { hook, .. } if told_beside(hook) => Some(hook.clone()),
            _ => None,
        };
        for group in all.chunk_by_mut(|a, b| a.at == b.at && channel(a).is_some() && channel(b).is_some()) {
            group.sort_by_key(channel);
        }
        all
    }
}
