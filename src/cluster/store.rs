//! The objects of one type as we know them. Pure: watch events and answers to our own writes go in, changes come out.
//!
//! Resource versions of one type are ordered numbers (Kubernetes promises this since 1.35, and etcd always did), which is
//! what lets an answer that overtakes the watch, or is overtaken by it, be put in its place.
//!
//! Objects are kept as JSON text and parsed when they are read: as a tree one takes ten times the memory, a cluster has
//! thousands, and each is read rarely.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::domain::{Gvk, Object, ObjectKey};
use crate::ports::Change;

type Name = (Option<String>, String);

/// One object, packed, with what decides about its place.
#[derive(Debug)]
pub(super) struct Packed {
    name: Name,
    uid: Box<str>,
    version: Box<str>,
    text: Box<[u8]>,
}

impl Packed {
    /// Packs an object.
    pub(super) fn new(object: &Object) -> Self {
        // Writing JSON to memory does not fail.
        let text = serde_json::to_vec(object).unwrap_or_default().into_boxed_slice();
        Self {
            name: (object.namespace().map(str::to_owned), object.name().to_owned()),
            uid: object.uid().into(),
            version: object.resource_version().into(),
            text,
        }
    }

    fn open(&self) -> Option<Arc<Object>> {
        serde_json::from_slice(&self.text).map(Arc::new).ok()
    }

    fn number(&self) -> Option<u64> {
        self.version.parse().ok()
    }

    fn is_newer(&self, than: Option<u64>) -> bool {
        matches!((self.number(), than), (Some(present), Some(than)) if present > than)
    }
}

/// The objects of one type.
#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<Name, Packed>,
    /// The newest resource version that the watch has brought.
    position: u64,
    /// UIDs of objects that the server told us are gone, until the watch says so too.
    gone: HashSet<String>,
}

impl Store {
    /// One object.
    pub(super) fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<Object>> {
        self.objects.get(&(namespace.map(str::to_owned), name.to_owned())).and_then(Packed::open)
    }

    /// All objects of a namespace, or all, ordered by namespace and name.
    pub(super) fn list(&self, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let Some(namespace) = namespace else { return self.objects.values().filter_map(Packed::open).collect() };
        let from = (Some(namespace.to_owned()), String::new());
        let inside = |((of, _), _): &(&Name, &Packed)| of.as_deref() == Some(namespace);
        self.objects.range(from..).take_while(inside).filter_map(|(_, object)| object.open()).collect()
    }

    /// Takes over a complete list that was read at `version`.
    pub(super) fn replace(&mut self, gvk: &Gvk, list: Vec<Packed>, version: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut old = std::mem::take(&mut self.objects);
        self.gone.clear();
        self.position = version;
        for object in list {
            let before = old.remove(&object.name);
            let known = before.as_ref().map(|before| before.version.clone());
            let kept = before.filter(|before| before.is_newer(object.number())).unwrap_or(object);
            if known.is_none_or(|known| known != kept.version) {
                changes.push(change(gvk, &kept.name, false));
            }
            self.objects.insert(kept.name.clone(), kept);
        }
        for (name, object) in old {
            // Written after the list was read: the watch will bring it.
            if object.is_newer(Some(version)) {
                self.objects.insert(name, object);
            } else {
                changes.push(change(gvk, &name, true));
            }
        }
        changes
    }

    /// Takes over an ADDED or MODIFIED event.
    pub(super) fn seen(&mut self, gvk: &Gvk, object: &Object) -> Option<Change> {
        let version = version_of(object);
        self.advance(version);
        self.enter(gvk, object, version)
    }

    /// Takes over a DELETED event.
    pub(super) fn seen_deleted(&mut self, gvk: &Gvk, object: &Object) -> Option<Change> {
        self.advance(version_of(object));
        self.gone.remove(object.uid());
        let name = name_of(object);
        let present = self.objects.get(&name)?;
        // A successor of the same name, which we made and the watch has not brought yet, stays.
        if *present.uid != *object.uid() && present.is_newer(version_of(object)) {
            return None;
        }
        self.objects.remove(&name);
        Some(change(gvk, &name, true))
    }

    /// Takes over the answer to a write of ours.
    pub(super) fn written(&mut self, gvk: &Gvk, object: &Object) -> Option<Change> {
        let version = version_of(object);
        if version.is_some_and(|version| version <= self.position) {
            // The watch was faster: it has this, or what became of it.
            return None;
        }
        self.enter(gvk, object, version)
    }

    /// The server says that our delete took the object away at once.
    pub(super) fn removed(
        &mut self,
        gvk: &Gvk,
        namespace: Option<&str>,
        name: &str,
        uid: Option<&str>,
    ) -> Option<Change> {
        let name = (namespace.map(str::to_owned), name.to_owned());
        let present = self.objects.get(&name)?;
        if uid.is_some_and(|uid| *uid != *present.uid) {
            return None;
        }
        self.gone.insert(present.uid.to_string());
        self.objects.remove(&name);
        Some(change(gvk, &name, true))
    }

    /// Forgets everything, because the type is not served any more.
    pub(super) fn clear(&mut self, gvk: &Gvk) -> Vec<Change> {
        std::mem::take(&mut self.objects).into_keys().map(|name| change(gvk, &name, true)).collect()
    }

    /// Notes that the watch has come this far.
    pub(super) fn advance(&mut self, version: Option<u64>) {
        self.position = self.position.max(version.unwrap_or(0));
    }

    fn enter(&mut self, gvk: &Gvk, object: &Object, version: Option<u64>) -> Option<Change> {
        if self.gone.contains(object.uid()) {
            return None;
        }
        let name = name_of(object);
        if let Some(present) = self.objects.get(&name)
            && (present.is_newer(version) || *present.version == *object.resource_version())
        {
            return None;
        }
        let change = change(gvk, &name, false);
        self.objects.insert(name, Packed::new(object));
        Some(change)
    }
}

/// The resource version as a number.
pub(super) fn version_of(object: &Object) -> Option<u64> {
    object.resource_version().parse().ok()
}

fn name_of(object: &Object) -> Name {
    (object.namespace().map(str::to_owned), object.name().to_owned())
}

fn change(gvk: &Gvk, (namespace, name): &Name, deleted: bool) -> Change {
    let key = ObjectKey { gvk: gvk.clone(), namespace: namespace.clone(), name: name.clone() };
    Change { key, deleted }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gvk() -> Gvk {
        Gvk::new("v1", "ConfigMap")
    }

    fn object(name: &str, uid: &str, version: u64) -> Object {
        Object(
            json!({"metadata": {"name": name, "namespace": "test", "uid": uid, "resourceVersion": version.to_string()}}),
        )
    }

    fn version(store: &Store, name: &str) -> Option<u64> {
        store.get(Some("test"), name).and_then(|object| version_of(&object))
    }

    fn packed(objects: [Object; 2]) -> Vec<Packed> {
        objects.iter().map(Packed::new).collect()
    }

    fn listed() -> Store {
        let mut store = Store::default();
        let changes = store.replace(&gvk(), packed([object("a", "ua", 3), object("b", "ub", 5)]), 5);
        assert_eq!(changes.len(), 2);
        store
    }

    #[test]
    fn a_write_is_read_back_before_the_watch_brings_it() {
        let mut store = listed();
        let change = store.written(&gvk(), &object("a", "ua", 9));
        assert!(change.is_some());
        assert_eq!(version(&store, "a"), Some(9));
        assert_eq!(store.seen(&gvk(), &object("a", "ua", 7)), None, "an event from before the write is old news");
        assert_eq!(store.seen(&gvk(), &object("a", "ua", 9)), None, "and the write itself is known");
        assert_eq!(version(&store, "a"), Some(9));
        assert!(store.seen(&gvk(), &object("a", "ua", 10)).is_some());
    }

    #[test]
    fn an_answer_that_the_watch_overtook_changes_nothing() {
        let mut store = listed();
        store.seen(&gvk(), &object("c", "uc", 6));
        store.seen_deleted(&gvk(), &object("c", "uc", 7));
        assert_eq!(store.written(&gvk(), &object("c", "uc", 6)), None);
        assert_eq!(version(&store, "c"), None, "a deleted object does not come back");
        store.seen(&gvk(), &object("a", "ua", 9));
        store.written(&gvk(), &object("a", "ua", 8));
        assert_eq!(version(&store, "a"), Some(9));
    }

    #[test]
    fn what_we_deleted_stays_gone_until_it_is_made_again() {
        let mut store = listed();
        assert!(store.removed(&gvk(), Some("test"), "a", None).is_some());
        assert_eq!(store.seen(&gvk(), &object("a", "ua", 8)), None, "an event from before the delete");
        assert_eq!(version(&store, "a"), None);
        store.written(&gvk(), &object("a", "ua2", 10));
        assert_eq!(store.seen_deleted(&gvk(), &object("a", "ua", 9)), None, "of the first one");
        assert_eq!(version(&store, "a"), Some(10));
        assert_eq!(store.removed(&gvk(), Some("test"), "b", Some("other")), None, "not this one");
    }

    #[test]
    fn a_new_list_drops_what_it_lacks_but_not_what_is_newer() {
        let mut store = listed();
        store.written(&gvk(), &object("new", "un", 12));
        store.written(&gvk(), &object("a", "ua", 13));
        let changes = store.replace(&gvk(), packed([object("a", "ua", 3), object("d", "ud", 10)]), 11);
        let names: Vec<_> = changes.iter().map(|change| (change.key.name.as_str(), change.deleted)).collect();
        assert_eq!(names, [("d", false), ("b", true)]);
        assert_eq!(version(&store, "new"), Some(12));
        assert_eq!(version(&store, "a"), Some(13));
        assert_eq!(store.list(Some("test")).len(), 3);
        assert_eq!(store.list(Some("other")).len(), 0);
        assert_eq!(store.clear(&gvk()).len(), 3);
    }
}
