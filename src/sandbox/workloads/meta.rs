//! Small facts about objects that several controllers need.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::domain::{Gvk, Object, canonical_json, sha256_hex};

/// The alphabet of generated names (Kubernetes, `apimachinery/pkg/util/rand`): no vowels, nothing that looks alike.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The owner reference of the controller.
fn controller(object: &Object) -> Option<&Value> {
    let owners = object.0.get("metadata")?.get("ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
}

/// Whether the object of this uid is the controller.
pub(super) fn is_controlled_by(object: &Object, uid: &str) -> bool {
    controller(object).is_some_and(|owner| owner.get("uid").and_then(Value::as_str) == Some(uid))
}

/// Type and name of the controlling owner.
pub(super) fn controller_of(object: &Object) -> Option<(Gvk, &str)> {
    let owner = controller(object)?;
    let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
    Some((Gvk::new(text("apiVersion"), text("kind")), text("name")))
}

/// `metadata.ownerReferences` of an object that `owner` controls.
pub(super) fn owned_by(owner: &Object) -> Value {
    json!([{
        "apiVersion": owner.gvk().api_version(), "kind": owner.gvk().kind, "name": owner.name(), "uid": owner.uid(),
        "controller": true, "blockOwnerDeletion": true,
    }])
}

/// A time as the API writes it: whole seconds.
pub(super) fn stamp(now: Timestamp) -> String {
    whole(now).to_string()
}

/// The beginning of the second.
pub(super) fn whole(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// The time at a pointer.
pub(super) fn time_at(value: &Value, pointer: &str) -> Option<Timestamp> {
    value.pointer(pointer)?.as_str()?.parse().ok()
}

/// `time + after`, or the end of time.
pub(super) fn later(time: Timestamp, after: Duration) -> Timestamp {
    time.checked_add(after).unwrap_or(Timestamp::MAX)
}

/// The condition of a type.
pub(super) fn condition<'a>(status: &'a Value, type_: &str) -> Option<&'a Value> {
    let conditions = status.get("conditions")?.as_array()?;
    conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(type_))
}

/// A count in a status; absent is 0.
pub(super) fn count(object: &Object, pointer: &str) -> i64 {
    object.int(pointer).unwrap_or(0)
}

/// Hash of a pod template, in the alphabet of generated names.
pub(super) fn template_hash(template: &Value) -> String {
    let digest = sha256_hex(canonical_json(template).as_bytes());
    let number = digest.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(0);
    encode(&number.to_string())
}

/// Five characters that depend on the seed and `about`.
pub(super) fn suffix(seed: u64, about: &str) -> String {
    let digest = sha256_hex(format!("{seed}/{about}").as_bytes());
    encode(digest.get(..5).unwrap_or_default())
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| char::from(ALPHABET.get(usize::from(byte) % ALPHABET.len()).copied().unwrap_or(b'x')))
        .collect()
}

/// Removes counts that are 0, as `omitempty` does.
pub(super) fn without_zeros(mut status: Value, kept: &[&str]) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|name, value| kept.contains(&name.as_str()) || value.as_i64() != Some(0));
    }
    status
}

/// Sets a field below `metadata` (`labels` or `annotations`).
pub(super) fn set_meta(object: &mut Object, map: &str, name: &str, value: &str) {
    let Some(metadata) = object.0.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let entry = metadata.entry(map).or_insert_with(|| json!({}));
    if entry.is_null() {
        *entry = json!({});
    }
    if let Some(entry) = entry.as_object_mut() {
        entry.insert(name.to_owned(), json!(value));
    }
}
