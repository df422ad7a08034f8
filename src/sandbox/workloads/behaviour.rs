//! What a version does, as its manifest says it.
//!
//! The text stands in the pod template's annotation `sandbox.serin.dev/behaviour`, for example
//! `errors=8%, latency=120ms±40, ready-after=5s, crash-after=2m`. A ConfigMap or Secret that the pod mounts or reads
//! its environment from may hold such a text under the key `behaviour`: then a change of configuration alone can be
//! bad. Every word given by a later source replaces the same word of an earlier one; the annotation comes first, then
//! volumes, then `envFrom`, then `env`, container by container. As in a real pod that reads its configuration at start,
//! the result is fixed when the pod starts.

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use super::World;
use crate::domain::{Object, ObjectKey, parse_duration};

/// Annotation of a pod template that says what the version does.
pub const BEHAVIOUR: &str = "sandbox.serin.dev/behaviour";
/// Annotation of a started pod: the behaviour after its configuration was read.
pub const RUNNING: &str = "sandbox.serin.dev/running";

/// What one version does. Displayed in the form in which it is parsed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// Share of requests answered with 500, 0 to 1.
    pub errors: f64,
    /// Middle of the response times, in milliseconds.
    pub latency: f64,
    /// Response times lie evenly between `latency - spread` and `latency + spread`, in milliseconds.
    pub spread: f64,
    /// Time from start to readiness; `None`: never ready.
    pub ready_after: Option<Duration>,
    /// Time from start until the process ends and does not come back.
    pub crash_after: Option<Duration>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { errors: 0.0, latency: 20.0, spread: 5.0, ready_after: Some(Duration::from_secs(2)), crash_after: None }
    }
}

/// Why a behaviour cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BehaviourError {
    /// A word that is none of ours.
    #[error("reading behaviour `{0}`: expected errors=, latency=, ready-after=, crash-after= or never-ready")]
    Unknown(String),
    /// A word with a value that cannot be read.
    #[error("reading behaviour `{word}`: expected {expected}")]
    Value {
        /// The word.
        word: String,
        /// What would be right.
        expected: &'static str,
    },
}

impl Behaviour {
    /// This behaviour with the words of `text` on top.
    ///
    /// # Errors
    /// See [`BehaviourError`].
    pub fn with(mut self, text: &str) -> Result<Self, BehaviourError> {
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let wrong = |expected| BehaviourError::Value { word: word.to_owned(), expected };
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match (name.trim(), value.trim()) {
                ("errors", value) => {
                    let percent = value.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok());
                    let percent = percent.filter(|n| (0.0..=100.0).contains(n));
                    self.errors = percent.ok_or_else(|| wrong("a percentage such as errors=8%"))? / 100.0;
                }
                ("latency", value) => {
                    (self.latency, self.spread) = latency(value)
                        .ok_or_else(|| wrong("milliseconds such as latency=120ms or latency=120ms±40"))?;
                }
                ("ready-after", value) => {
                    self.ready_after = Some(parse_duration(value).ok_or_else(|| wrong("a duration such as 5s"))?);
                }
                ("crash-after", value) => {
                    self.crash_after = Some(parse_duration(value).ok_or_else(|| wrong("a duration such as 2m"))?);
                }
                ("never-ready", "") => self.ready_after = None,
                _ => return Err(BehaviourError::Unknown(word.to_owned())),
            }
        }
        Ok(self)
    }

    /// The behaviour of a started pod. A text that cannot be read counts as the default; the pod says so itself.
    pub fn of_pod(pod: &Object) -> Self {
        let text = pod.annotation(RUNNING).or_else(|| pod.annotation(BEHAVIOUR)).unwrap_or_default();
        Self::default().with(text).unwrap_or_default()
    }
}

/// `120ms`, `1.5s`, `120ms±40`, `120ms±40ms`: middle and spread in milliseconds. Without a spread there is none.
fn latency(text: &str) -> Option<(f64, f64)> {
    let millis = |text: &str| Some(parse_duration(text.trim())?.as_secs_f64() * 1000.0);
    let Some((middle, spread)) = text.split_once('±').or_else(|| text.split_once("+-")) else {
        return Some((millis(text)?, 0.0));
    };
    let spread = spread.trim();
    let spread = spread.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0).or_else(|| millis(spread))?;
    Some((millis(middle)?, spread))
}

/// Why a pod cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A ConfigMap or Secret that is not optional is missing.
    #[error("{0} not found")]
    Missing(ObjectKey),
    /// An image that cannot be pulled.
    #[error("pulling image `{0}`: not found")]
    Image(String),
    /// The behaviour cannot be read.
    #[error(transparent)]
    Behaviour(#[from] BehaviourError),
}

/// The behaviour text of a pod that starts now: its annotation, then what its configuration says.
///
/// # Errors
/// See [`StartError`].
pub fn at_start(world: &dyn World, pod: &Object) -> Result<String, StartError> {
    let containers = pod.at("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let mut images = containers.filter_map(|container| container.get("image")?.as_str());
    if let Some(image) = images.find(|image| !world.has_image(image)) {
        return Err(StartError::Image(image.to_owned()));
    }
    let mut words = vec![pod.annotation(BEHAVIOUR).unwrap_or_default().to_owned()];
    for reference in references(pod) {
        let namespace = pod.namespace().unwrap_or_default();
        let key = ObjectKey::namespaced("v1", reference.kind, namespace, &reference.name);
        match world.get(&key) {
            None if reference.optional => {}
            None => return Err(StartError::Missing(key)),
            Some(config) if reference.reads_behaviour => words.extend(text_of(&config)),
            Some(_) => {}
        }
    }
    words.retain(|text| !text.trim().is_empty());
    let text = words.iter().map(|text| text.trim()).collect::<Vec<_>>().join(", ");
    Behaviour::default().with(&text)?;
    Ok(text)
}

fn text_of(config: &Object) -> Option<String> {
    if let Some(text) = config.at("/stringData/behaviour").and_then(Value::as_str) {
        return Some(text.to_owned());
    }
    let text = config.at("/data/behaviour")?.as_str()?;
    if config.gvk().kind != "Secret" {
        return Some(text.to_owned());
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
    String::from_utf8(bytes).ok()
}

struct Reference {
    kind: &'static str,
    name: String,
    optional: bool,
    reads_behaviour: bool,
}

/// ConfigMaps and Secrets that a pod needs: volumes, then `envFrom`, then `env` of every container.
fn references(pod: &Object) -> Vec<Reference> {
    let mut found = Vec::new();
    let list = |value: &Value, field: &str| -> Vec<Value> {
        value.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let spec = pod.at("/spec").cloned().unwrap_or_default();
    for volume in list(&spec, "volumes") {
        add(&mut found, "ConfigMap", volume.get("configMap"), "name", reads_items);
        add(&mut found, "Secret", volume.get("secret"), "secretName", reads_items);
        for source in volume.get("projected").map(|p| list(p, "sources")).unwrap_or_default() {
            add(&mut found, "ConfigMap", source.get("configMap"), "name", reads_items);
            add(&mut found, "Secret", source.get("secret"), "name", reads_items);
        }
    }
    let containers: Vec<_> = list(&spec, "initContainers").into_iter().chain(list(&spec, "containers")).collect();
    for container in &containers {
        for source in list(container, "envFrom") {
            add(&mut found, "ConfigMap", source.get("configMapRef"), "name", |_| true);
            add(&mut found, "Secret", source.get("secretRef"), "name", |_| true);
        }
        for variable in list(container, "env") {
            let from = variable.get("valueFrom").cloned().unwrap_or_default();
            add(&mut found, "ConfigMap", from.get("configMapKeyRef"), "name", reads_key);
            add(&mut found, "Secret", from.get("secretKeyRef"), "name", reads_key);
        }
    }
    found
}

fn add(
    found: &mut Vec<Reference>,
    kind: &'static str,
    source: Option<&Value>,
    name: &str,
    reads_behaviour: impl Fn(&Value) -> bool,
) {
    let Some(source) = source else { return };
    let Some(name) = source.get(name).and_then(Value::as_str) else { return };
    let optional = source.get("optional").and_then(Value::as_bool).unwrap_or(false);
    found.push(Reference { kind, name: name.to_owned(), optional, reads_behaviour: reads_behaviour(source) });
}

fn reads_items(source: &Value) -> bool {
    let Some(items) = source.get("items").and_then(Value::as_array) else { return true };
    items.iter().any(reads_key)
}

fn reads_key(source: &Value) -> bool {
    source.get("key").and_then(Value::as_str) == Some("behaviour")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests_world::Cluster;
    use super::*;

    #[test]
    fn behaviours_are_read() {
        let s = |n| Some(Duration::from_secs(n));
        let d = Behaviour::default();
        for (text, want) in [
            ("", d),
            ("errors=8%", Behaviour { errors: 0.08, ..d }),
            ("latency=120ms±40", Behaviour { latency: 120.0, spread: 40.0, ..d }),
            ("latency=1.5s±100ms", Behaviour { latency: 1500.0, spread: 100.0, ..d }),
            ("latency=120ms+-40", Behaviour { latency: 120.0, spread: 40.0, ..d }),
            ("latency=2s", Behaviour { latency: 2000.0, spread: 0.0, ..d }),
            (" ready-after = 5s , crash-after=2m,", Behaviour { ready_after: s(5), crash_after: s(120), ..d }),
            ("never-ready", Behaviour { ready_after: None, ..d }),
            ("errors=8%, errors=0.5%", Behaviour { errors: 0.005, ..d }),
            ("never-ready, ready-after=1s", Behaviour { ready_after: s(1), ..d }),
        ] {
            assert_eq!(d.with(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, want) in [
            ("error=8%", "reading behaviour `error=8%`: expected errors="),
            ("errors=8", "reading behaviour `errors=8`: expected a percentage such as errors=8%"),
            ("errors=101%", "expected a percentage"),
            ("latency=120", "expected milliseconds such as"),
            ("latency=120ms±x", "expected milliseconds such as"),
            ("ready-after=soon", "expected a duration such as 5s"),
            ("never-ready=1", "expected errors="),
        ] {
            let error = Behaviour::default().with(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn configuration_comes_on_top_of_the_annotation() {
        let mut cluster = Cluster::default();
        cluster.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "t"},
            "data": {"behaviour": "errors=1%, latency=10ms"}}));
        cluster.put(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b", "namespace": "t"},
            "data": {"behaviour": "ZXJyb3JzPTIl"}}));
        let pod = |spec: Value| {
            Object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "t",
                "annotations": {BEHAVIOUR: "errors=50%, ready-after=9s"}}, "spec": spec}))
        };
        let env_from = |kind: &str, name: &str| json!({"containers": [{"envFrom": [{kind: {"name": name}}]}]});
        for (spec, want) in [
            (json!({}), Ok("errors=50%, ready-after=9s".to_owned())),
            (
                json!({"volumes": [{"configMap": {"name": "a"}}], "containers": [{"envFrom": [{"secretRef": {"name": "b"}}]}]}),
                Ok("errors=50%, ready-after=9s, errors=1%, latency=10ms, errors=2%".to_owned()),
            ),
            (
                json!({"volumes": [{"configMap": {"name": "a", "items": [{"key": "other"}]}}]}),
                Ok("errors=50%, ready-after=9s".to_owned()),
            ),
            (
                env_from("configMapRef", "gone"),
                Err(StartError::Missing(ObjectKey::namespaced("v1", "ConfigMap", "t", "gone"))),
            ),
            (
                json!({"volumes": [{"secret": {"secretName": "gone", "optional": true}}]}),
                Ok("errors=50%, ready-after=9s".to_owned()),
            ),
        ] {
            assert_eq!(at_start(&cluster, &pod(spec.clone())), want, "{spec}");
        }
    }
}
