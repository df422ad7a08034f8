//! Label and field selectors of lists and watches.

use serde_json::Value;

use super::error::ApiError;
use super::types::Resource;
use crate::domain::Object;

/// What a list or watch is restricted to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Debug, Clone)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 for a selector that cannot be read, or a field that this type cannot be selected by.
    pub(crate) fn parse(res: &Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let mut selector = Self::default();
        for part in split(labels) {
            let unreadable = || ApiError::bad_request(format!("unable to parse requirement: {part}"));
            if part.trim().starts_with('=') {
                let message = format!("found '{}', expected: !, identifier, or 'end of string'", part.trim());
                return Err(ApiError::bad_request(message));
            }
            selector.labels.push(requirement(part.trim()).ok_or_else(unreadable)?);
        }
        for part in fields.split(',').filter(|p| !p.is_empty()) {
            let (field, equal, value) = if let Some((f, v)) = part.split_once("!=") {
                (f, false, v)
            } else if let Some((f, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (f, true, v)
            } else {
                let message = format!("invalid selector: '{part}'; can't understand '{part}'");
                return Err(ApiError::bad_request(message));
            };
            if !selectable(res, field) {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
            }
            selector.fields.push((field.to_owned(), equal, value.to_owned()));
        }
        Ok(selector)
    }

    /// Whether an object (in its stored form) is selected.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        let label = |key: &str| object.0.get("metadata")?.get("labels")?.get(key)?.as_str();
        let labels = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
        });
        labels && self.fields.iter().all(|(field, equal, value)| (field_text(object, field) == *value) == *equal)
    }
}

fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (vec![], 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|p| !p.trim().is_empty());
    parts
}

fn requirement(part: &str) -> Option<Requirement> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Requirement::Missing(key.trim().to_owned()));
    }
    if let Some((head, values)) = part.strip_suffix(')').and_then(|p| p.split_once('(')) {
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        return match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => Some(Requirement::In((*key).to_owned(), values)),
            [key, "notin"] => Some(Requirement::NotIn((*key).to_owned(), values)),
            _ => None,
        };
    }
    let trimmed = |k: &str, v: &str| (k.trim().to_owned(), vec![v.trim().to_owned()]);
    if let Some((key, value)) = part.split_once("!=") {
        let (key, values) = trimmed(key, value);
        return Some(Requirement::NotIn(key, values));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        let (key, values) = trimmed(key, value);
        return Some(Requirement::In(key, values));
    }
    (!part.contains(char::is_whitespace)).then(|| Requirement::Exists(part.to_owned()))
}

fn selectable(res: &Resource, field: &str) -> bool {
    if matches!(field, "metadata.name" | "metadata.namespace") {
        return true;
    }
    let of_kind: &[&str] = match res.kind.as_str() {
        "Event" => &["reason", "type", "source", "reportingComponent"],
        "Pod" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
        ],
        "Secret" => &["type"],
        "Namespace" => &["status.phase"],
        "Service" => &["spec.clusterIP", "spec.type"],
        "Node" => &["spec.unschedulable"],
        "Job" => &["status.successful"],
        "ReplicaSet" => &["status.replicas"],
        _ => &[],
    };
    of_kind.contains(&field) || (res.kind == "Event" && involved(field).is_some())
}

fn involved(field: &str) -> Option<&str> {
    field.strip_prefix("involvedObject.").or_else(|| field.strip_prefix("regarding."))
}

fn field_text(object: &Object, field: &str) -> String {
    let path = match involved(field) {
        Some(rest) => format!("involvedObject.{rest}"),
        None if field == "source" => "source.component".to_owned(),
        None => field.to_owned(),
    };
    match path.split('.').try_fold(&object.0, |value, part| value.get(part)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}
