//! The three kinds of patch besides apply: JSON patch (RFC 6902), merge patch (RFC 7396), strategic merge patch.

use serde_json::{Map, Value};

use super::error::ApiError;
use super::shape::Shape;

/// Merge patch.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// JSON patch.
///
/// # Errors
/// 400 for a patch that is none, 422 for one that cannot be applied.
pub(crate) fn json(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let malformed = || {
        let what = if patch.is_object() { "object" } else { "scalar" };
        let message =
            format!("error decoding patch: json: cannot unmarshal {what} into Go value of type []handlers.jsonPatchOp");
        ApiError::bad_request(message)
    };
    let refused = || {
        let message = "the server rejected our request due to an error in our request";
        ApiError::new(422, "Invalid", message).with_details(Value::Object(Map::new()))
    };
    for operation in patch.as_array().ok_or_else(malformed)? {
        let text = |field: &str| operation.get(field).and_then(Value::as_str).ok_or_else(refused);
        let value = || operation.get("value").cloned().ok_or_else(refused);
        let path = text("path")?;
        let done = match text("op")? {
            "add" => add(target, path, value()?),
            "remove" => take(target, path).map(drop),
            "replace" if path.is_empty() => add(target, path, value()?),
            "replace" => {
                // The server's library lets a replacement add to a map.
                take(target, path);
                add(target, path, value()?)
            }
            "move" => take(target, text("from")?).and_then(|moved| add(target, path, moved)),
            "copy" => target.pointer(text("from")?).cloned().and_then(|copy| add(target, path, copy)),
            "test" => (target.pointer(path) == Some(&value()?)).then_some(()),
            _ => None,
        };
        done.ok_or_else(refused)?;
    }
    Ok(())
}

fn parent<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (above, last) = path.rsplit_once('/')?;
    Some((target.pointer_mut(above)?, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    match parent(target, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(items), key) => {
            let index = if key == "-" { items.len() } else { key.parse().ok()? };
            if index > items.len() {
                return None;
            }
            items.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn take(target: &mut Value, path: &str) -> Option<Value> {
    match parent(target, path)? {
        (Value::Object(map), key) => map.remove(&key),
        (Value::Array(items), key) => {
            let index: usize = key.parse().ok()?;
            (index < items.len()).then(|| items.remove(index))
        }
        _ => None,
    }
}

/// Strategic merge patch: lists of maps merge by their key, with `$patch`, `$retainKeys`, `$setElementOrder` and
/// `$deleteFromPrimitiveList` as kubectl writes them.
///
/// Source: `apimachinery/pkg/util/strategicpatch`, whose messages these are.
///
/// # Errors
/// 500 for an unknown directive or an element without its key.
pub(crate) fn strategic(target: &mut Value, patch: &Value, shape: Shape<'_>) -> Result<(), ApiError> {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match changes.get("$patch").and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => *target = Value::Object(Map::new()),
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(failed(format!("unknown patch type: {other} in map: {}", go(patch)))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return Ok(()) };
    if let Some(retained) = changes.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|key, _| retained.iter().any(|k| k == key));
    }
    let before = map.clone();
    for (key, value) in changes {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(items) = map.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        let below = shape.field(key);
        match value {
            Value::Null => drop(map.remove(key)),
            Value::Array(items) => match below.patch_key() {
                Some(by) => list(map.entry(key.clone()).or_insert_with(|| Value::Array(vec![])), items, by, below)?,
                None if key == "finalizers" => {
                    union(map.entry(key.clone()).or_insert_with(|| Value::Array(vec![])), items);
                }
                None => drop(map.insert(key.clone(), value.clone())),
            },
            Value::Object(_) => {
                strategic(map.entry(key.clone()).or_insert_with(|| Value::Object(Map::new())), value, below)?
            }
            scalar => drop(map.insert(key.clone(), scalar.clone())),
        }
    }
    // The order of elements is stated beside the elements that it orders.
    for (key, wanted) in changes {
        if let Some(name) = key.strip_prefix("$setElementOrder/")
            && let Some(items) = map.get_mut(name).and_then(Value::as_array_mut)
        {
            let server = before.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
            order(items, wanted, server, shape.field(name).patch_key());
        }
    }
    Ok(())
}

fn failed(message: String) -> ApiError {
    ApiError::new(500, "", message)
}

/// A value as Go prints it.
fn go(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go(v))).collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

fn union(target: &mut Value, items: &[Value]) {
    let Some(list) = target.as_array_mut() else { return };
    let server = list.clone();
    list.extend(items.iter().filter(|item| !server.contains(item)).cloned());
    order(list, items, &server, None);
}

fn list(target: &mut Value, items: &[Value], by: &str, shape: Shape<'_>) -> Result<(), ApiError> {
    let Some(list) = target.as_array_mut() else { return Ok(()) };
    if items.iter().any(|item| item.get("$patch").is_some_and(|p| p == "replace")) {
        list.clear();
    }
    let server = list.clone();
    for item in items {
        let directive = item.get("$patch").and_then(Value::as_str);
        if !matches!(directive, None | Some("merge" | "delete" | "replace")) {
            return Err(failed(format!("unknown patch type: {} in map: {}", directive.unwrap_or_default(), go(item))));
        }
        if item.get(by).is_none() && directive != Some("replace") {
            return Err(failed(format!("map: {} does not contain declared merge key: {by}", go(item))));
        }
        let found = list.iter().position(|old| old.get(by).is_some() && old.get(by) == item.get(by));
        match (directive, found) {
            (Some("delete"), Some(at)) => drop(list.remove(at)),
            (Some("delete" | "replace"), _) => {}
            (_, Some(at)) => {
                if let Some(old) = list.get_mut(at) {
                    strategic(old, item, shape)?;
                }
            }
            (_, None) => {
                let mut fresh = Value::Object(Map::new());
                strategic(&mut fresh, item, shape)?;
                list.push(fresh);
            }
        }
    }
    order(list, items, &server, Some(by));
    Ok(())
}

/// Puts the elements that the patch names in its order, and the others among them where the server had them.
fn order(list: &mut Vec<Value>, patch: &[Value], server: &[Value], by: Option<&str>) {
    let same = |a: &Value, b: &Value| match by {
        Some(by) => a.get(by) == b.get(by),
        None => a == b,
    };
    let place = |within: &[Value], item: &Value| within.iter().position(|other| same(other, item));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        list.drain(..).partition(|item| place(patch, item).is_some());
    named.sort_by_key(|item| place(patch, item));
    others.sort_by_key(|item| place(server, item).unwrap_or(usize::MAX));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(mine), Some(theirs)) = (named.peek(), others.peek()) {
        let before = matches!((place(server, theirs), place(server, mine)), (Some(a), Some(b)) if a < b);
        list.extend(if before { others.next() } else { named.next() });
    }
    list.extend(named);
    list.extend(others);
}
