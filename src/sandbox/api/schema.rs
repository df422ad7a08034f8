//! Structural schemas of custom types: pruning, defaulting and validation. Rules in CEL are not evaluated.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

use super::error::Problem;

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("properties").and_then(|p| p.get(name))
}

/// Drops what the schema does not know and nulls where they mean nothing; lists the dropped paths in `unknown`.
pub(crate) fn prune(object: &mut Value, schema: &Value, unknown: &mut Vec<String>) {
    prune_at(object, schema, "", true, unknown);
}

fn prune_at(value: &mut Value, schema: &Value, path: &str, resource: bool, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let additional = schema.get("additionalProperties");
            let keep_all = flag(schema, PRESERVE) || additional == Some(&Value::Bool(true));
            map.retain(|name, below| {
                if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    return true;
                }
                let place = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match property(schema, name).or_else(|| additional.filter(|a| a.is_object())) {
                    Some(known) => {
                        if below.is_null() && !flag(known, "nullable") && !flag(known, PRESERVE) {
                            return false;
                        }
                        prune_at(below, known, &place, flag(known, "x-kubernetes-embedded-resource"), unknown);
                        true
                    }
                    None if keep_all => true,
                    None => {
                        unknown.push(place);
                        false
                    }
                }
            });
        }
        Value::Array(items) => {
            if let Some(known) = schema.get("items") {
                for (i, item) in items.iter_mut().enumerate() {
                    let embedded = flag(known, "x-kubernetes-embedded-resource");
                    prune_at(item, known, &format!("{path}[{i}]"), embedded, unknown);
                }
            }
        }
        _ => {}
    }
}

/// Fills in the schema's defaults.
pub(crate) fn default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            for (name, known) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if let Some(default) = known.get("default").filter(|_| !map.contains_key(name)) {
                    map.insert(name.clone(), default.clone());
                }
                if let Some(below) = map.get_mut(name) {
                    self::default(below, known);
                }
            }
            if let Some(known) = schema.get("additionalProperties").filter(|a| a.is_object()) {
                map.iter_mut()
                    .filter(|(name, _)| property(schema, name).is_none())
                    .for_each(|(_, v)| default(v, known));
            }
        }
        Value::Array(items) => {
            if let Some(known) = schema.get("items") {
                items.iter_mut().for_each(|item| default(item, known));
            }
        }
        _ => {}
    }
}

/// Everything in which the value breaks the schema.
pub(crate) fn validate(value: &Value, schema: &Value) -> Vec<Problem> {
    let mut problems = vec![];
    check(value, schema, "", &mut problems);
    // What the server says in place of the rules in CEL, which it does not ask about a broken object.
    if !problems.is_empty() && has_rules(schema) {
        let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        problems.push(Problem::invalid("<nil>", &Value::Null, why));
    }
    problems
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-kubernetes-validations") || map.values().any(has_rules),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

fn check(value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    if value.is_null() && flag(schema, "nullable") {
        return;
    }
    if !has_type(value, schema) {
        let wanted = schema.get("type").and_then(Value::as_str).unwrap_or("integer,string");
        problems.push(Problem::type_invalid(
            path,
            value,
            &format!("{} must be of type {wanted}: {}", body(path), shown_type(value)),
        ));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array).filter(|a| !a.contains(value)) {
        problems.push(Problem::unsupported(path, value, allowed));
    }
    match value {
        Value::String(text) => check_string(text, value, schema, path, problems),
        Value::Number(number) => check_number(number.as_f64().unwrap_or(0.0), value, schema, path, problems),
        Value::Object(map) => check_object(map, schema, path, problems),
        Value::Array(items) => check_array(items, schema, path, problems),
        _ => {}
    }
    check_logic(value, schema, path, problems);
}

fn has_type(value: &Value, schema: &Value) -> bool {
    if flag(schema, "x-kubernetes-int-or-string") {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => true,
    }
}

fn shown_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "\"null\"",
        Value::Bool(_) => "\"boolean\"",
        Value::Number(n) if n.is_f64() => "\"number\"",
        Value::Number(_) => "\"integer\"",
        Value::String(_) => "\"string\"",
        Value::Array(_) => "\"array\"",
        Value::Object(_) => "\"object\"",
    }
}

fn body(path: &str) -> String {
    if path.is_empty() { "<root>".to_owned() } else { format!("{path} in body") }
}

fn limit(schema: &Value, name: &str) -> Option<f64> {
    schema.get(name).and_then(Value::as_f64)
}

fn check_string(text: &str, value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let length = text.chars().count() as f64;
    if let Some(min) = limit(schema, "minLength").filter(|min| length < *min) {
        problems.push(Problem::invalid(path, value, &format!("{} should be at least {min} chars long", body(path))));
    }
    // The first complaint about a text is the only one.
    if let Some(max) = limit(schema, "maxLength").filter(|max| length > *max) {
        let message = format!("Too long: may not be more than {max} bytes");
        problems.push(Problem { field: path.to_owned(), reason: "FieldValueTooLong", message });
    } else if let Some(pattern) = schema.get("pattern").and_then(Value::as_str).filter(|p| !matches(p, text)) {
        problems.push(Problem::invalid(path, value, &format!("{} should match '{pattern}'", body(path))));
    }
    if schema.get("format").and_then(Value::as_str) == Some("date-time") && text.parse::<jiff::Timestamp>().is_err() {
        let message = format!("Invalid value: {value}: {} must be of type date-time: {value}", body(path));
        problems.push(Problem { field: path.to_owned(), reason: "FieldValueTypeInvalid", message });
    }
}

/// Patterns come from installed CRDs only, so the cache is as bounded as they are.
fn matches(pattern: &str, text: &str) -> bool {
    static CACHE: OnceLock<Mutex<HashMap<String, Option<Regex>>>> = OnceLock::new();
    let mut cache = CACHE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = cache.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
    compiled.as_ref().is_none_or(|regex| regex.is_match(text))
}

fn check_number(number: f64, value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let exclusive = |name| flag(schema, name);
    if let Some(min) = limit(schema, "minimum") {
        let (broken, words) = if exclusive("exclusiveMinimum") {
            (number <= min, "greater than")
        } else {
            (number < min, "greater than or equal to")
        };
        if broken {
            problems.push(Problem::invalid(path, value, &format!("{} should be {words} {min}", body(path))));
        }
    }
    if let Some(max) = limit(schema, "maximum") {
        let (broken, words) = if exclusive("exclusiveMaximum") {
            (number >= max, "less than")
        } else {
            (number > max, "less than or equal to")
        };
        if broken {
            problems.push(Problem::invalid(path, value, &format!("{} should be {words} {max}", body(path))));
        }
    }
    if let Some(of) = limit(schema, "multipleOf").filter(|of| *of > 0.0 && (number / of).fract() != 0.0) {
        problems.push(Problem::invalid(path, value, &format!("{} should be a multiple of {of}", body(path))));
    }
}

fn check_object(map: &Map<String, Value>, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let place = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(name) {
            problems.push(Problem::required(place(name), ""));
        }
    }
    for (name, below) in map {
        let additional = schema.get("additionalProperties").filter(|a| a.is_object());
        if let Some(known) = property(schema, name).or(additional) {
            check(below, known, &place(name), problems);
        }
    }
    if let Some(max) = limit(schema, "maxProperties").filter(|max| map.len() as f64 > *max) {
        let message = format!("Too many: {}: must have at most {max} items", map.len());
        problems.push(Problem { field: path.to_owned(), reason: "FieldValueTooMany", message });
    }
    if let Some(min) = limit(schema, "minProperties").filter(|min| (map.len() as f64) < *min) {
        let value = Value::from(map.len());
        problems.push(Problem::invalid(path, &value, &format!("{} should have at least {min} properties", body(path))));
    }
}

fn check_array(items: &[Value], schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    if let Some(known) = schema.get("items") {
        for (i, item) in items.iter().enumerate() {
            check(item, known, &format!("{path}[{i}]"), problems);
        }
    }
    if let Some(max) = limit(schema, "maxItems").filter(|max| items.len() as f64 > *max) {
        let message = format!("Too many: {}: must have at most {max} items", items.len());
        problems.push(Problem { field: path.to_owned(), reason: "FieldValueTooMany", message });
    }
    if let Some(min) = limit(schema, "minItems").filter(|min| (items.len() as f64) < *min) {
        let value = Value::from(items.len());
        problems.push(Problem::invalid(path, &value, &format!("{} should have at least {min} items", body(path))));
    }
    use super::shape::{ListKind, Shape, item_key};
    let identity = |item: &Value| match (Shape::Custom { schema: Some(schema), root: false }).list() {
        ListKind::Atomic => None,
        ListKind::Set => Some(item.to_string()),
        ListKind::Map(keys) => item_key(item, &keys),
    };
    let mut seen = std::collections::BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        if identity(item).is_some_and(|id| !seen.insert(id)) {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let shown = keys.map_or_else(
                || item.clone(),
                |keys| keys.iter().filter_map(Value::as_str).map(|k| (k.to_owned(), item[k].clone())).collect(),
            );
            problems.push(Problem::duplicate(format!("{path}[{i}]"), &shown));
        }
    }
}

fn check_logic(value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let fits = |schema: &Value| {
        let mut found = vec![];
        check(value, schema, path, &mut found);
        found.is_empty()
    };
    let branches = |name: &str| schema.get(name).and_then(Value::as_array);
    let shown = if path.is_empty() { "<root>".to_owned() } else { path.to_owned() };
    let empty = Value::from("");
    if branches("anyOf").is_some_and(|all| !all.iter().any(fits)) {
        let why = format!("\"{shown}\" must validate at least one schema (anyOf)");
        problems.push(Problem::invalid("<nil>", &empty, &why));
    }
    if let Some(count) = branches("oneOf").map(|all| all.iter().filter(|s| fits(s)).count()).filter(|n| *n != 1) {
        let found = if count == 0 { "none valid".to_owned() } else { format!("{count} valid alternatives") };
        let why = format!("\"{shown}\" must validate one and only one schema (oneOf). Found {found}");
        problems.push(Problem::invalid("<nil>", &empty, &why));
    }
    for one in branches("allOf").into_iter().flatten() {
        check(value, one, path, problems);
    }
    if schema.get("not").is_some_and(fits) {
        let why = format!("\"{shown}\" must not validate the schema (not)");
        problems.push(Problem::invalid("<nil>", &empty, &why));
    }
}
