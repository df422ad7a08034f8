//! The functions that every Go template knows.

use std::cmp::Ordering;

use super::printf::printf;
use super::value::Value;

/// Functions that take arguments.
const FUNCTIONS: [&str; 20] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery", "eq", "ne",
    "lt", "le", "gt", "ge", "call", "nil",
];

/// Whether this is one of them.
pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

/// Calls one. The error says what is wrong with the arguments.
pub(super) fn call(name: &str, values: &[Value]) -> Result<Value, String> {
    let wrong = || Err("wrong number of args".to_owned());
    match (name, values) {
        ("and", [.., last]) => Ok(values.iter().find(|value| !value.is_true()).unwrap_or(last).clone()),
        ("or", [.., last]) => Ok(values.iter().find(|value| value.is_true()).unwrap_or(last).clone()),
        ("not", [value]) => Ok(Value::Bool(!value.is_true())),
        ("len", [value]) => len(value),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| index(&value, key)),
        ("slice", [value, bounds @ ..]) => slice(value, bounds),
        ("print", values) => Ok(Value::Text(print(values))),
        ("println", values) => {
            let words: Vec<_> = values.iter().map(Value::text).collect();
            Ok(Value::Text(format!("{}\n", words.join(" "))))
        }
        ("printf", [Value::Text(format), values @ ..]) => printf(format, values).map(Value::Text),
        ("printf", [other, ..]) => Err(format!("wrong type for value; expected string; got {}", other.type_name())),
        ("html", values) => Ok(Value::Text(html(&print(values)))),
        ("js", values) => Ok(Value::Text(js(&print(values)))),
        ("urlquery", values) => {
            let text = print(values);
            Ok(Value::Text(url::form_urlencoded::byte_serialize(text.as_bytes()).collect()))
        }
        ("eq" | "ne" | "lt" | "le" | "gt" | "ge", values) => compare(name, values).map(Value::Bool),
        ("call" | "nil", _) => Err(format!("`{name}` is not supported here")),
        _ => wrong(),
    }
}

fn len(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::Map(map) => map.len(),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

/// An entry of a map (the empty text when there is none, as in Go), or a byte of a text.
fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Map(map), Value::Text(key)) => Ok(Value::Text(map.get(key).cloned().unwrap_or_default())),
        (Value::Text(text), Value::Int(at)) => {
            let byte = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at).copied());
            byte.map(|byte| Value::Int(i64::from(byte))).ok_or_else(|| format!("index out of range: {at}"))
        }
        (Value::Map(_) | Value::Text(_), key) => Err(format!("cannot index with type {}", key.type_name())),
        (other, _) => Err(format!("can't index item of type {}", other.type_name())),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let Value::Text(text) = value else { return Err(format!("can't slice item of type {}", value.type_name())) };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Value::Int(number)) => usize::try_from(*number).map_err(|_| format!("index out of range: {number}")),
        Some(other) => Err(format!("cannot index slice/array with type {}", other.type_name())),
    };
    let (from, to) = (bound(0, 0)?, bound(1, text.len())?);
    let part = text.get(from..to).filter(|_| bounds.len() < 3);
    part.map(|part| Value::Text(part.to_owned())).ok_or_else(|| "index out of range".to_owned())
}

/// Go's `Sprint`: a space between two values of which neither is a text.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| values.get(before));
        if before.is_some_and(|before| !matches!(before, Value::Text(_))) && !matches!(value, Value::Text(_)) {
            out.push(' ');
        }
        out.push_str(&value.text());
    }
    out
}

fn html(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&#34;").replace('\'', "&#39;")
}

fn js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str(r"\\"),
            '\'' => out.push_str(r"\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\u{0}'..='\u{1f}' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Go's comparisons: values of one kind only; `eq` takes several and holds when the first equals any of the others.
fn compare(name: &str, values: &[Value]) -> Result<bool, String> {
    let order = |a: &Value, b: &Value| match (a, b) {
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).ok_or_else(|| "not comparable: NaN".to_owned()),
        (Value::Bool(a), Value::Bool(b)) if matches!(name, "eq" | "ne") => Ok(a.cmp(b)),
        (Value::Nil, Value::Nil) if matches!(name, "eq" | "ne") => Ok(Ordering::Equal),
        (Value::Nil, _) | (_, Value::Nil) if matches!(name, "eq" | "ne") => Ok(Ordering::Less),
        _ => Err("incompatible types for comparison".to_owned()),
    };
    match (name, values) {
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let orders: Result<Vec<_>, _> = others.iter().map(|other| order(first, other)).collect();
            Ok(orders?.contains(&Ordering::Equal))
        }
        ("ne", [a, b]) => Ok(order(a, b)? != Ordering::Equal),
        ("lt", [a, b]) => Ok(order(a, b)? == Ordering::Less),
        ("le", [a, b]) => Ok(order(a, b)? != Ordering::Greater),
        ("gt", [a, b]) => Ok(order(a, b)? == Ordering::Greater),
        ("ge", [a, b]) => Ok(order(a, b)? != Ordering::Less),
        _ => Err("missing argument for comparison".to_owned()),
    }
}
