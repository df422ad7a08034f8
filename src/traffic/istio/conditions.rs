//! Which requests a route takes: `service.match`, `analysis.match` and cookies as Istio's match conditions.

use serde_json::{Map, Value, json};

use crate::api::canary::CanaryView;
use crate::traffic::routed::Refusal;

/// Conditions of an analysis that Istio has a place for.
const FIELDS: [&str; 3] = ["headers", "queryParams", "sourceLabels"];

/// The conditions of an A/B test's users, one for each entry of `analysis.match`.
///
/// # Errors
/// `Unsupported` for an entry without a condition: everybody would match it.
pub(super) fn tests(canary: &CanaryView) -> Result<Vec<Value>, Refusal> {
    let entries = canary.spec.analysis().map(|analysis| analysis.matches.as_slice()).unwrap_or_default();
    entries.iter().map(one_test).collect()
}

fn one_test(entry: &Value) -> Result<Value, Refusal> {
    let mut made = Map::new();
    for field in FIELDS {
        let Some(map) = entry.get(field).and_then(Value::as_object).filter(|map| !map.is_empty()) else { continue };
        let conditions = map.iter().map(|(name, how)| (name.clone(), string_match(how)));
        made.insert(field.to_owned(), Value::Object(conditions.collect()));
    }
    if made.is_empty() {
        let message =
            "analysis.match has an entry without a header, query parameter or source label: everybody would match it";
        return Err(Refusal::Unsupported(message.to_owned()));
    }
    Ok(Value::Object(made))
}

/// Istio matches by exact, prefix and regex (in full); a suffix becomes a regex.
fn string_match(how: &Value) -> Value {
    match how.get("suffix").and_then(Value::as_str) {
        Some(suffix) => json!({"regex": format!(".*{}", regex::escape(suffix))}),
        None => how.clone(),
    }
}

/// The ports of `service.match`, which is all that a TCP route can look at.
pub(super) fn ports(canary: &CanaryView) -> Vec<Value> {
    let ports = canary.spec.service.matches.iter().filter_map(|entry| entry.get("port")?.as_i64());
    ports.filter(|port| *port > 0).map(|port| json!({"port": port})).collect()
}
