//! The custom resource definitions, from the Rust types: names, scope and columns by kube's derive, schemas by
//! schemars.
//!
//! kube's own rewriting of schemas is not used: it merges the branches of `oneOf`, and the rule that `iterations`,
//! `stepWeight` and `stepWeights` exclude each other is such a branch.

use kube::CustomResourceExt;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Value, json};

use super::{AlertProvider, AlertProviderSpec, Canary, CanarySpec, CanaryStatus, MetricTemplate, MetricTemplateSpec};

/// All three definitions as JSON: canaries, metrictemplates, alertproviders.
pub fn all() -> Vec<Value> {
    vec![
        definition(
            &Canary::crd(),
            "A release of one workload.",
            schema::<CanarySpec>(),
            Some(schema::<CanaryStatus>()),
        ),
        definition(&MetricTemplate::crd(), "A query with its provider.", schema::<MetricTemplateSpec>(), None),
        definition(&AlertProvider::crd(), "A chat channel.", schema::<AlertProviderSpec>(), None),
    ]
}

/// The definition of one kind, if it is one of ours.
pub fn of(kind: &str) -> Option<Value> {
    all().into_iter().find(|crd| crd.pointer("/spec/names/kind").and_then(Value::as_str) == Some(kind))
}

fn definition(derived: &impl Serialize, description: &str, spec: Value, status: Option<Value>) -> Value {
    let mut properties = json!({
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": spec,
    });
    if let (Some(status), Some(properties)) = (status, properties.as_object_mut()) {
        properties.insert("status".to_owned(), status);
    }
    let root = json!({"type": "object", "description": description, "properties": properties});
    let mut crd = serde_json::to_value(derived).unwrap_or_default();
    if let Some(version) = crd.pointer_mut("/spec/versions/0").and_then(Value::as_object_mut) {
        version.insert("schema".to_owned(), json!({"openAPIV3Schema": root}));
        // Flagger gives every kind a status subresource, whether or not there is anything in it.
        version.insert("subresources".to_owned(), json!({"status": {}}));
    }
    crd
}

/// The structural schema of one type.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.remove("title");
    }
    schema
}

/// Drops what Flagger's CRDs do not say: that a field may be null, and the formats of Rust's numbers.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(inner) = optional(map) {
                map.remove("anyOf");
                for (key, value) in inner {
                    map.entry(key).or_insert(value);
                }
            }
            // A property may have any of these names; a keyword has a value of another type.
            map.retain(|key, value| !(key == "nullable" && value.is_boolean()));
            map.retain(|key, value| !(key == "format" && matches!(value.as_str(), Some("double"))));
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// What an optional field holds, where the derive wrote "this, or null".
fn optional(schema: &serde_json::Map<String, Value>) -> Option<serde_json::Map<String, Value>> {
    let branches = schema.get("anyOf")?.as_array()?;
    let is_null = |branch: &Value| branch.get("enum").is_some_and(|words| *words == json!([null]));
    let [inner, null] = branches.as_slice() else { return None };
    is_null(null).then(|| inner.as_object().cloned())?
}

#[cfg(test)]
mod tests;
