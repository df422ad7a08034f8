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
    let malformed = || ApiError::bad_request("error decoding patch: not a list of operations");
    for operation in patch.as_array().ok_or_else(malformed)? {
        let text = |field: &str| operation.get(field).and_then(Value::as_str).ok_or_else(malformed);
        let value = || operation.get("value").cloned().ok_or_else(malformed);
        let refused = |why: &str| {
            let message = format!("the server rejected our request due to an error in our request: {why}");
            ApiError::new(422, "Invalid", message)
        };
        let path = text("path")?;
        let done = match text("op")? {
            "add" => add(target, path, value()?),
            "remove" => take(target, path).map(drop),
            "replace" if path.is_empty() => add(target, path, value()?),
            "replace" => take(target, path).and_then(|_| add(target, path, value().ok()?)),
            "move" => take(target, text("from")?).and_then(|moved| add(target, path, moved)),
            "copy" => target.pointer(text("from")?).cloned().and_then(|copy| add(target, path, copy)),
            "test" => (target.pointer(path) == Some(&value()?)).then_some(()),
            other => return Err(ApiError::bad_request(format!("unexpected kind: {other}"))),
        };
        done.ok_or_else(|| refused(&format!("{} operation does not apply: {path}", text("op").unwrap_or_default())))?;
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

/// Strategic merge patch: lists of maps merge by their key, with `$patch`, `$retainKeys` and
/// `$deleteFromPrimitiveList` as kubectl writes them.
pub(crate) fn strategic(target: &mut Value, patch: &Value, shape: Shape<'_>) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if changes.get("$patch").is_some_and(|p| p == "replace") || !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    if let Some(retained) = changes.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|key, _| retained.iter().any(|k| k == key));
    }
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
                Some(by) => list(map.entry(key.clone()).or_insert_with(|| Value::Array(vec![])), items, by, below),
                None if key == "finalizers" => {
                    union(map.entry(key.clone()).or_insert_with(|| Value::Array(vec![])), items)
                }
                None => drop(map.insert(key.clone(), value.clone())),
            },
            Value::Object(_) => {
                strategic(map.entry(key.clone()).or_insert_with(|| Value::Object(Map::new())), value, below)
            }
            scalar => drop(map.insert(key.clone(), scalar.clone())),
        }
    }
    // The order of elements is stated before the elements that it orders.
    for (key, value) in changes {
        if let Some(list) = key.strip_prefix("$setElementOrder/") {
            order(map.get_mut(list), value, shape.field(list));
        }
    }
}

fn union(target: &mut Value, items: &[Value]) {
    if let Some(list) = target.as_array_mut() {
        for item in items {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
    }
}

fn list(target: &mut Value, items: &[Value], by: &str, shape: Shape<'_>) {
    let Some(list) = target.as_array_mut() else { return };
    if items.iter().any(|item| item.get("$patch").is_some_and(|p| p == "replace")) {
        list.clear();
    }
    for item in items {
        let found = list.iter().position(|old| old.get(by).is_some() && old.get(by) == item.get(by));
        match (item.get("$patch").and_then(Value::as_str), found) {
            (Some("delete"), Some(at)) => drop(list.remove(at)),
            (Some("delete" | "replace"), _) => {}
            (_, Some(at)) => {
                if let Some(old) = list.get_mut(at) {
                    strategic(old, item, shape);
                }
            }
            (_, None) => {
                let mut fresh = Value::Object(Map::new());
                strategic(&mut fresh, item, shape);
                list.push(fresh);
            }
        }
    }
}

fn order(target: Option<&mut Value>, wanted: &Value, shape: Shape<'_>) {
    let (Some(list), Some(wanted)) = (target.and_then(Value::as_array_mut), wanted.as_array()) else { return };
    let rank = |item: &Value| {
        let same = |w: &Value| match shape.patch_key() {
            Some(by) => w.get(by) == item.get(by),
            None => w == item,
        };
        wanted.iter().position(same).unwrap_or(usize::MAX)
    };
    list.sort_by_key(rank);
}
