//! Values against the JSON schemas of the API types: unknown fields, wrong types, words outside an enumeration.

use serde_json::{Map, Value};

use super::{Report, nearest};

/// Checks a `spec`.
pub(super) fn check(schema: &Value, spec: Option<&Value>, report: &mut Report<'_>) {
    match spec {
        Some(spec) => Walk { defs: schema.get("$defs"), report }.node(schema, spec, "/spec"),
        None => report.error("", "the object has no spec").help("write spec"),
    }
}

struct Walk<'a, 'r, 'm> {
    defs: Option<&'a Value>,
    report: &'r mut Report<'m>,
}

impl Walk<'_, '_, '_> {
    fn node(&mut self, schema: &Value, value: &Value, pointer: &str) {
        let defs = self.defs;
        let schema = resolve(defs, schema);
        let Some(schema) = schema.as_object() else { return };
        if schema.contains_key("x-kubernetes-int-or-string") {
            return;
        }
        for name in ["anyOf", "oneOf"] {
            if let Some(options) = schema.get(name).and_then(Value::as_array) {
                return self.any(options, schema, value, pointer);
            }
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
            return self.word(&words, value, pointer);
        }
        if !self.has_type(schema, value, pointer) {
            return;
        }
        match value {
            Value::Object(map) => self.map(schema, map, pointer),
            Value::Array(items) => {
                if let Some(schema) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.node(schema, item, &format!("{pointer}/{index}"));
                    }
                }
            }
            _ => {}
        }
    }

    /// An optional part (something or null), or an enumeration written as constants.
    fn any(&mut self, options: &[Value], schema: &Map<String, Value>, value: &Value, pointer: &str) {
        let words: Vec<_> = options.iter().filter_map(|option| option.get("const").and_then(Value::as_str)).collect();
        if !words.is_empty() {
            return self.word(&words, value, pointer);
        }
        let null = |option: &&Value| option.get("type").and_then(Value::as_str) != Some("null");
        let parts: Vec<_> = options.iter().filter(null).collect();
        match (value, parts.as_slice()) {
            (Value::Null, _) => {}
            (_, [only]) => self.node(only, value, pointer),
            // Alternatives are rules about which fields go together; they are checked by hand.
            _ => {
                if let Value::Object(map) = value {
                    self.map(schema, map, pointer);
                }
            }
        }
    }

    fn word(&mut self, words: &[&str], value: &Value, pointer: &str) {
        let Some(text) = value.as_str() else {
            self.report.error(pointer, format!("`{}` is {value}, not a text", field(pointer))).help("put it in quotes");
            return;
        };
        if words.contains(&text) {
            return;
        }
        let all: Vec<_> = words.iter().filter(|word| !word.is_empty()).copied().collect();
        let noted = self.report.error(pointer, format!("`{text}` is no value of `{}`", field(pointer)));
        match nearest(text, all.iter().copied()) {
            Some(word) => noted.help(format!("did you mean `{word}`?")),
            None => noted.help(format!("values are: {}", all.join(", "))),
        }
    }

    fn has_type(&mut self, schema: &Map<String, Value>, value: &Value, pointer: &str) -> bool {
        let types: Vec<_> = match schema.get("type") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        let fits = value.is_null() || types.iter().any(|name| is_of(name, value));
        if !fits {
            let names: Vec<_> = types.iter().filter(|name| **name != "null").map(|name| people(name)).collect();
            let message = format!("`{}` is {}, not {}", field(pointer), short(value), names.join(" or "));
            let noted = self.report.error(pointer, message);
            match (value, types.contains(&"string")) {
                (Value::Number(_) | Value::Bool(_), true) => noted.help("put it in quotes"),
                (Value::String(text), false) if text.parse::<f64>().is_ok() => noted.help("write it without quotes"),
                _ => {}
            }
        }
        fits
    }

    fn map(&mut self, schema: &Map<String, Value>, map: &Map<String, Value>, pointer: &str) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            if let Some(schema) = schema.get("additionalProperties").filter(|schema| schema.is_object()) {
                for (key, item) in map {
                    self.node(schema, item, &format!("{pointer}/{}", escape(key)));
                }
            }
            return;
        };
        if schema.contains_key("x-kubernetes-preserve-unknown-fields") {
            return;
        }
        for (key, item) in map {
            let pointer = format!("{pointer}/{}", escape(key));
            match properties.get(key) {
                Some(schema) => self.node(schema, item, &pointer),
                None => self.unknown(key, properties, &pointer),
            }
        }
    }

    fn unknown(&mut self, key: &str, properties: &Map<String, Value>, pointer: &str) {
        match nearest(key, properties.keys().map(String::as_str)) {
            Some(near) => self
                .report
                .error(pointer, format!("there is no field `{key}` here"))
                .help(format!("did you mean `{near}`?")),
            None => self
                .report
                .warning(pointer, format!("there is no field `{key}` here; the API server drops it"))
                .help("remove it"),
        }
    }
}

fn resolve<'s>(defs: Option<&'s Value>, schema: &'s Value) -> &'s Value {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
    name.and_then(|name| defs?.get(name)).unwrap_or(schema)
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn people(name: &str) -> &str {
    match name {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a map",
        other => other,
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::Object(_) => "a map".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) => format!("the text {text:?}"),
        other => other.to_string(),
    }
}

fn field(pointer: &str) -> &str {
    let names = pointer.rsplit('/').find(|name| name.parse::<usize>().is_err());
    names.unwrap_or(pointer)
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
