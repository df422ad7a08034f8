//! `metadata.managedFields`: who owns which field, and server-side apply on top of it.

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::fields::{FieldSet, merge, prune};
use super::shape::Shape;
use super::types::Resource;
use crate::domain::Object;

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Owner {
    pub(crate) manager: String,
    pub(crate) applied: bool,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    pub(crate) time: String,
    pub(crate) fields: FieldSet,
}

/// Who writes, in which form, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) api_version: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) now: &'a str,
}

/// The merge rules of a type.
pub(crate) fn shape(res: &Resource) -> Shape<'_> {
    if res.custom.is_some() { Shape::custom(res.schema()) } else { Shape::built_in(&res.kind) }
}

/// Reads an object's owners.
pub(crate) fn read(object: &Value) -> Vec<Owner> {
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .map(|entry| Owner {
            manager: text(entry, "manager"),
            applied: text(entry, "operation") == "Apply",
            api_version: text(entry, "apiVersion"),
            subresource: text(entry, "subresource"),
            time: text(entry, "time"),
            fields: match entry.get("fieldsV1") {
                Some(Value::String(kept)) => FieldSet::from_json(&serde_json::from_str(kept).unwrap_or_default()),
                Some(given) => FieldSet::from_json(given),
                None => FieldSet::default(),
            },
        })
        .collect()
}

/// Writes an object's owners, those who own nothing left out.
pub(crate) fn write(object: &mut Value, mut owners: Vec<Owner>) {
    owners.retain(|owner| !owner.fields.is_empty());
    owners.sort_by(|a, b| {
        (!a.applied, &a.time, &a.manager, &a.subresource).cmp(&(!b.applied, &b.time, &b.manager, &b.subresource))
    });
    let entries: Vec<Value> = owners
        .iter()
        .map(|owner| {
            let mut entry = json!({
                "manager": owner.manager,
                "operation": if owner.applied { "Apply" } else { "Update" },
                "apiVersion": owner.api_version,
                "time": owner.time,
                "fieldsType": "FieldsV1",
                // Kept as text: as nested maps the owners would take more memory than the object. `show` undoes it.
                "fieldsV1": owner.fields.to_json().to_string(),
            });
            if !owner.subresource.is_empty() {
                entry["subresource"] = owner.subresource.clone().into();
            }
            entry
        })
        .collect();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), entries.into());
        }
    }
}

/// Turns the kept form of `managedFields` into the one that clients know.
pub(crate) fn show(metadata: Option<&mut Value>) {
    let entries = metadata.and_then(|m| m.get_mut("managedFields")).and_then(Value::as_array_mut);
    for fields in entries.into_iter().flatten().filter_map(|entry| entry.get_mut("fieldsV1")) {
        if let Some(shown) = fields.as_str().and_then(|kept| serde_json::from_str(kept).ok()) {
            *fields = shown;
        }
    }
}

/// Fields of built-in types that Go keeps by value: always there, so nobody adds them.
const VALUES: &[&[&str]] = &[
    &["f:spec"],
    &["f:status"],
    &["f:spec", "f:strategy"],
    &["f:spec", "f:updateStrategy"],
    &["f:spec", "f:scaleTargetRef"],
    &["f:spec", "f:template"],
    &["f:spec", "f:template", "f:metadata"],
    &["f:spec", "f:template", "f:spec"],
    &["f:spec", "f:template", "f:spec", "f:containers"],
    &["f:spec", "f:containers"],
    &["f:status", "f:loadBalancer"],
    &["f:source"],
];

fn forget(set: &mut FieldSet, path: &[&str]) {
    match path {
        [] if !set.children.is_empty() => set.member = false,
        [] => {}
        [first, rest @ ..] => {
            if let Some(below) = set.children.get_mut(*first) {
                forget(below, rest);
            }
        }
    }
}

/// Drops what nobody owns: the type, the identity, what the server itself writes.
fn ownable(mut set: FieldSet, res: &Resource) -> FieldSet {
    set.member = false;
    for field in ["f:apiVersion", "f:kind"] {
        set.children.remove(field);
    }
    if let Some(metadata) = set.children.get_mut("f:metadata") {
        metadata.member = false;
        for field in [
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "managedFields",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            metadata.children.remove(&format!("f:{field}"));
        }
    }
    if res.custom.is_none() {
        VALUES.iter().for_each(|path| forget(&mut set, path));
    }
    set.children.retain(|_, below| !below.is_empty());
    set
}

/// Records a create, update or patch: what changed belongs to the writer now.
pub(crate) fn record(live: &Value, new: &Value, res: &Resource, writer: Writer<'_>) -> Vec<Owner> {
    let (changed, removed) = FieldSet::compare(live, new, shape(res));
    let (changed, removed) = (ownable(changed, res), ownable(removed, res));
    let mut owners = read(live);
    let gone = changed.clone().union(&removed);
    let is_me = |owner: &Owner| {
        !owner.applied
            && owner.manager == writer.manager
            && owner.api_version == writer.api_version
            && owner.subresource == writer.subresource
    };
    for owner in &mut owners {
        owner.fields = if is_me(owner) { owner.fields.minus(&removed) } else { owner.fields.minus(&gone) };
    }
    if !changed.is_empty() {
        match owners.iter_mut().find(|owner| is_me(owner)) {
            Some(mine) => {
                mine.fields = std::mem::take(&mut mine.fields).union(&changed);
                mine.time = writer.now.to_owned();
            }
            None => owners.push(Owner {
                manager: writer.manager.to_owned(),
                applied: false,
                api_version: writer.api_version.to_owned(),
                subresource: writer.subresource.to_owned(),
                time: writer.now.to_owned(),
                fields: changed,
            }),
        }
    }
    owners
}

const BEFORE: &str = "before-first-apply";

/// Server-side apply: the merged object, and its owners.
///
/// # Errors
/// 409 with a cause per field when someone else holds a field with another value, unless forced.
pub(crate) fn apply(
    live: &Value,
    config: &Value,
    res: &Resource,
    writer: Writer<'_>,
    force: bool,
) -> Result<(Value, Vec<Owner>), ApiError> {
    let shape = shape(res);
    let set = ownable(FieldSet::applied(config, shape), res);
    let mut owners = read(live);
    if owners.is_empty() && live.pointer("/metadata/uid").is_some() {
        // Fields from before anybody was recorded belong to an owner of this name.
        owners = record(&json!({ "metadata": {} }), live, res, Writer { manager: BEFORE, subresource: "", ..writer });
    }
    let is_me =
        |owner: &Owner| owner.applied && owner.manager == writer.manager && owner.subresource == writer.subresource;
    let mine = owners.iter().position(is_me).map(|at| owners.remove(at));
    let mut merged = merge(live, config, shape);
    if let Some(mine) = &mine {
        let kept = owners.iter().fold(set.clone(), |kept, owner| kept.union(&owner.fields));
        prune(&mut merged, &mine.fields, &kept, shape);
    }
    let (changed, removed) = FieldSet::compare(live, &merged, shape);
    let (changed, removed) = (ownable(changed, res), ownable(removed, res));
    let conflicts: Vec<(&Owner, String)> = owners
        .iter()
        .flat_map(|owner| owner.fields.common(&changed).paths().into_iter().map(move |path| (owner, path)))
        .collect();
    if !conflicts.is_empty() && !force && !already_ours(live, res, writer, &conflicts) {
        return Err(conflict(&conflicts));
    }
    let gone = changed.union(&removed);
    for owner in &mut owners {
        owner.fields = owner.fields.minus(&gone);
    }
    let time = mine.filter(|m| m.fields == set && m.api_version == writer.api_version).map(|m| m.time);
    owners.push(Owner {
        manager: writer.manager.to_owned(),
        applied: true,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: time.unwrap_or_else(|| writer.now.to_owned()),
        fields: set,
    });
    Ok((merged, owners))
}

/// kubectl may take over, by server-side apply, the fields that it applied from the client before: those in its
/// annotation.
fn already_ours(live: &Value, res: &Resource, writer: Writer<'_>, conflicts: &[(&Owner, String)]) -> bool {
    let last = live.pointer("/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration");
    let Some(last) = last.and_then(Value::as_str).filter(|_| writer.manager == "kubectl") else { return false };
    let Ok(last) = serde_json::from_str::<Value>(last) else { return false };
    let ours = FieldSet::applied(&last, shape(res)).paths();
    conflicts.iter().all(|(_, path)| ours.contains(path))
}

fn named(owner: &Owner) -> String {
    let mut name = format!("{:?}", owner.manager);
    if !owner.subresource.is_empty() {
        name = format!("{name} with subresource {:?}", owner.subresource);
    }
    if !owner.applied {
        name = format!("{name} using {}", owner.api_version);
    }
    name
}

fn conflict(conflicts: &[(&Owner, String)]) -> ApiError {
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(owner, path)| {
            json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", named(owner)),
                "field": path,
            })
        })
        .collect();
    let message = if let [(owner, path)] = conflicts {
        format!("Apply failed with 1 conflict: conflict with {}: {path}", named(owner))
    } else {
        let mut lines: Vec<String> = vec![];
        for (owner, path) in conflicts {
            let heading = format!("conflicts with {}:", named(owner));
            if !lines.contains(&heading) {
                lines.push(heading);
            }
            lines.push(format!("- {path}"));
        }
        format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
    };
    ApiError::new(409, "Conflict", message).with_details(json!({ "causes": causes }))
}

/// Whether two objects differ in nothing but the times of their owners.
pub(crate) fn same(a: &Object, b: &Value, owners: &[Owner]) -> bool {
    let timeless = |owners: &[Owner]| {
        let mut list: Vec<Owner> = owners.iter().filter(|o| !o.fields.is_empty()).cloned().collect();
        list.iter_mut().for_each(|owner| owner.time.clear());
        list.sort_by(|x, y| {
            (x.applied, &x.manager, &x.subresource, &x.api_version).cmp(&(
                y.applied,
                &y.manager,
                &y.subresource,
                &y.api_version,
            ))
        });
        list
    };
    let (old, new) = (a.0.as_object(), b.as_object());
    let meta = |object: Option<&Map<String, Value>>| object.and_then(|o| o.get("metadata")?.as_object()).cloned();
    let bare = |mut meta: Map<String, Value>| {
        meta.remove("managedFields");
        meta.remove("resourceVersion");
        meta
    };
    let apart = |object: Option<&Map<String, Value>>, other: Option<&Map<String, Value>>| {
        let differs =
            |(key, value): (&String, &Value)| key != "metadata" && other.and_then(|o| o.get(key)) != Some(value);
        object.into_iter().flatten().any(differs)
    };
    !apart(old, new)
        && !apart(new, old)
        && meta(old).map(bare) == meta(new).map(bare)
        && timeless(&read(&a.0)) == timeless(owners)
}
