//! Sets of fields in the notation of `fieldsV1`, and what server-side apply does with them: the rules of
//! structured-merge-diff over plain JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::shape::{ListKind, Shape, item_key};

/// A tree of fields. Elements are written as in `fieldsV1`: `f:name`, `k:{"name":"app"}`, `v:"x"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// Whether the field at this place is in the set itself.
    pub(crate) member: bool,
    /// Fields below.
    pub(crate) children: BTreeMap<String, Self>,
}

impl FieldSet {
    fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    /// Reads `fieldsV1`.
    pub(crate) fn from_json(value: &Value) -> Self {
        fn node(value: &Value) -> FieldSet {
            let map = value.as_object();
            let mut set = FieldSet { member: map.is_none_or(Map::is_empty), children: BTreeMap::new() };
            for (key, below) in map.into_iter().flatten() {
                if key == "." {
                    set.member = true;
                } else {
                    set.children.insert(key.clone(), node(below));
                }
            }
            set
        }
        Self { member: false, ..node(value) }
    }

    /// Writes `fieldsV1`.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (key, below) in &self.children {
            map.insert(key.clone(), below.to_json());
        }
        Value::Object(map)
    }

    /// Whether nothing is in the set.
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    fn tidy(mut self) -> Self {
        self.children.retain(|_, below| !below.is_empty());
        self
    }

    /// Fields that a manager states by applying this value. The root itself is never in the set.
    pub(crate) fn applied(value: &Value, shape: Shape<'_>) -> Self {
        Self { member: false, ..Self::of(value, shape, false) }
    }

    fn of(value: &Value, shape: Shape<'_>, with_parents: bool) -> Self {
        let mut set = Self::default();
        match value {
            Value::Object(map) if !map.is_empty() && !shape.atomic_map() => {
                set.member = with_parents;
                for (key, below) in map {
                    set.children.insert(format!("f:{key}"), Self::of(below, shape.field(key), with_parents));
                }
            }
            Value::Array(items) if !items.is_empty() => match shape.list() {
                ListKind::Atomic => set.member = true,
                ListKind::Set => {
                    set.member = with_parents;
                    set.children = items.iter().map(|v| (format!("v:{v}"), Self::leaf())).collect();
                }
                ListKind::Map(keys) => {
                    set.member = with_parents;
                    for item in items {
                        if let Some(key) = item_key(item, &keys) {
                            let below = Self::of(item, shape.item(), with_parents);
                            set.children.insert(key, Self { member: true, ..below });
                        }
                    }
                }
            },
            _ => set.member = true,
        }
        set
    }

    /// Fields added or changed, and fields removed, from `old` to `new`.
    pub(crate) fn compare(old: &Value, new: &Value, shape: Shape<'_>) -> (Self, Self) {
        let (changed, removed) = Self::compare_some(Some(old), Some(new), shape);
        (changed.tidy(), removed.tidy())
    }

    fn compare_some(old: Option<&Value>, new: Option<&Value>, shape: Shape<'_>) -> (Self, Self) {
        let (mut changed, mut removed) = (Self::default(), Self::default());
        match (old, new) {
            (None, None) => {}
            (None, Some(new)) => changed = Self::of(new, shape, true),
            (Some(old), None) => removed = Self::of(old, shape, true),
            (Some(old), Some(new)) if old == new => {}
            (Some(Value::Object(a)), Some(Value::Object(b))) if !shape.atomic_map() => {
                for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                    let (c, r) = Self::compare_some(a.get(key), b.get(key), shape.field(key));
                    changed.put(format!("f:{key}"), c);
                    removed.put(format!("f:{key}"), r);
                }
            }
            (Some(Value::Array(a)), Some(Value::Array(b))) => {
                let elements = |items: &[Value]| -> Option<Vec<(String, Value)>> {
                    match shape.list() {
                        ListKind::Atomic => None,
                        ListKind::Set => Some(items.iter().map(|v| (format!("v:{v}"), v.clone())).collect()),
                        ListKind::Map(keys) => items.iter().map(|v| Some((item_key(v, &keys)?, v.clone()))).collect(),
                    }
                };
                let (Some(a), Some(b)) = (elements(a), elements(b)) else {
                    return (Self::leaf(), removed);
                };
                let find =
                    |list: &[(String, Value)], key: &str| list.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
                for (key, _) in a.iter().chain(b.iter().filter(|(k, _)| find(&a, k).is_none())) {
                    let (c, r) = Self::compare_some(find(&a, key).as_ref(), find(&b, key).as_ref(), shape.item());
                    changed.put(key.clone(), c);
                    removed.put(key.clone(), r);
                }
            }
            _ => changed = Self::leaf(),
        }
        (changed, removed)
    }

    fn put(&mut self, key: String, below: Self) {
        if !below.is_empty() {
            self.children.insert(key, below);
        }
    }

    /// Fields in either.
    pub(crate) fn union(mut self, other: &Self) -> Self {
        self.member |= other.member;
        for (key, below) in &other.children {
            let mine = self.children.remove(key).unwrap_or_default();
            self.children.insert(key.clone(), mine.union(below));
        }
        self
    }

    /// Fields of this set that are not in the other.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let nothing = Self::default();
        let children = self
            .children
            .iter()
            .map(|(key, below)| (key.clone(), below.minus(other.children.get(key).unwrap_or(&nothing))))
            .collect();
        Self { member: self.member && !other.member, children }.tidy()
    }

    /// Fields in both.
    pub(crate) fn common(&self, other: &Self) -> Self {
        let children = self
            .children
            .iter()
            .filter_map(|(key, below)| Some((key.clone(), below.common(other.children.get(key)?))))
            .collect();
        Self { member: self.member && other.member, children }.tidy()
    }

    /// Fields of this set where the other holds neither the field nor anything below it.
    fn minus_covered(&self, other: &Self) -> Self {
        let children = self
            .children
            .iter()
            .map(|(key, below)| match other.children.get(key) {
                Some(theirs) => (key.clone(), below.minus_covered(theirs)),
                None => (key.clone(), below.clone()),
            })
            .collect();
        Self { member: self.member && other.is_empty(), children }.tidy()
    }

    /// Paths as conflicts name them: `.spec.template.spec.containers[name="app"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        fn walk(set: &FieldSet, path: &str, out: &mut Vec<String>) {
            if set.member {
                out.push(path.to_owned());
            }
            // As the server lists them: what is held itself before what lies deeper.
            let (shallow, deep): (Vec<_>, Vec<_>) =
                set.children.iter().partition(|(_, below)| below.children.is_empty());
            for (key, below) in shallow.into_iter().chain(deep) {
                let part = match key.split_at_checked(2) {
                    Some(("f:", name)) => format!(".{name}"),
                    Some(("k:", keys)) => {
                        let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                        let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                        format!("[{}]", keys.join(","))
                    }
                    Some(("v:", value)) => format!("[={value}]"),
                    _ => key.clone(),
                };
                walk(below, &format!("{path}{part}"), out);
            }
        }
        let mut out = vec![];
        walk(self, "", &mut out);
        out
    }
}

/// Merges an applied configuration into the live value.
pub(crate) fn merge(live: &Value, config: &Value, shape: Shape<'_>) -> Value {
    match (live, config) {
        (Value::Object(a), Value::Object(b)) if !shape.atomic_map() => {
            let mut merged = a.clone();
            for (key, below) in b {
                let value = a.get(key).map_or_else(|| below.clone(), |old| merge(old, below, shape.field(key)));
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(a), Value::Array(b)) => match shape.list() {
            ListKind::Atomic => config.clone(),
            ListKind::Set => {
                let mut merged = a.clone();
                merged.extend(b.iter().filter(|v| !a.contains(v)).cloned());
                Value::Array(merged)
            }
            ListKind::Map(keys) => {
                let mut merged = a.clone();
                for item in b {
                    let key = item_key(item, &keys);
                    match merged.iter_mut().find(|old| key.is_some() && item_key(old, &keys) == key) {
                        Some(old) => *old = merge(old, item, shape.item()),
                        None => merged.push(item.clone()),
                    }
                }
                Value::Array(merged)
            }
        },
        _ => config.clone(),
    }
}

/// Removes what a manager applied before (`last`) and does not any more, unless someone in `kept` holds it or
/// something below it.
pub(crate) fn prune(value: &mut Value, last: &FieldSet, kept: &FieldSet, shape: Shape<'_>) {
    remove(value, &last.minus_covered(kept), kept, shape);
}

fn remove(value: &mut Value, gone: &FieldSet, kept: &FieldSet, shape: Shape<'_>) {
    let nothing = FieldSet::default();
    let held = |element: &str| kept.children.get(element).unwrap_or(&nothing);
    match value {
        Value::Object(map) => {
            for (element, below) in &gone.children {
                let Some(key) = element.strip_prefix("f:") else { continue };
                let Some(child) = map.get_mut(key) else { continue };
                if below.member {
                    map.remove(key);
                    continue;
                }
                remove(child, below, held(element), shape.field(key));
                // A map or list that lost its last entry disappears with it, unless someone holds it as it is: empty.
                let empty = child.as_object().is_some_and(Map::is_empty) || child.as_array().is_some_and(Vec::is_empty);
                if empty && !held(element).member {
                    map.remove(key);
                }
            }
        }
        Value::Array(items) => {
            let kind = shape.list();
            let element = |item: &Value| match &kind {
                ListKind::Atomic => None,
                ListKind::Set => Some(format!("v:{item}")),
                ListKind::Map(keys) => item_key(item, keys),
            };
            items.retain_mut(|item| {
                let Some(key) = element(item) else { return true };
                let Some(below) = gone.children.get(&key) else { return true };
                if below.member {
                    return false;
                }
                remove(item, below, held(&key), shape.item());
                true
            });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Pod specs with some containers, each with some variables: lists that merge by key, at two levels.
    fn pod_specs() -> impl Strategy<Value = Value> {
        let env = prop::collection::btree_map("[A-C]", "[0-9]", 0..3);
        prop::collection::btree_map("[a-c]", ("[x-z]", env), 0..3).prop_map(|containers| {
            let container = |(name, (image, env)): (String, (String, BTreeMap<String, String>))| {
                let env: Vec<Value> = env.iter().map(|(k, v)| json!({ "name": k, "value": v })).collect();
                json!({ "name": name, "image": image, "env": env })
            };
            json!({ "containers": containers.into_iter().map(container).collect::<Vec<_>>() })
        })
    }

    const SHAPE: Shape<'_> = Shape::built_in("Pod");

    proptest! {
        #[test]
        fn a_set_survives_its_notation(spec in pod_specs()) {
            let set = FieldSet::applied(&spec, SHAPE);
            prop_assert_eq!(FieldSet::from_json(&set.to_json()), set);
        }

        #[test]
        fn what_one_manager_applied_goes_with_it_and_the_rest_stays(mine in pod_specs(), theirs in pod_specs()) {
            let both = merge(&merge(&json!({}), &theirs, SHAPE), &mine, SHAPE);
            let (held, kept) = (FieldSet::applied(&mine, SHAPE), FieldSet::applied(&theirs, SHAPE));
            let mut left = both;
            prune(&mut left, &held, &kept, SHAPE);
            let after = FieldSet::applied(&left, SHAPE);
            prop_assert!(kept.minus(&after).is_empty(), "lost: {:?}", kept.minus(&after).paths());
            prop_assert!(after.minus(&kept).is_empty(), "left over: {:?}", after.minus(&kept).paths());
        }

        #[test]
        fn nothing_changes_between_equals_and_every_change_is_named(a in pod_specs(), b in pod_specs()) {
            let (changed, removed) = FieldSet::compare(&a, &b, SHAPE);
            prop_assert_eq!(a == b, changed.is_empty() && removed.is_empty());
        }
    }
}
