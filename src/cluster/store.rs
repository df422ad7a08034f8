//! The objects of one type as we know them. Pure: watch events and answers to our own writes go in, changes come out.
//!
//! Resource versions of one type are ordered numbers (Kubernetes promises this since 1.35, and etcd always did), which is
//! what lets an answer that overtakes the watch, or is overtaken by it, be put in its place.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::domain::{Gvk, Object, ObjectKey};
use crate::ports::Change;

type Name = (Option<String>, String);

/// The objects of one type.
#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<Name, Arc<Object>>,
    /// The newest resource version that the watch has brought.
    position: u64,
    /// UIDs of objects that the server told us are gone, until the watch says so too.
    gone: HashSet<String>,
}

impl Store {
    /// One object.
    pub(super) fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<Object>> {
        self.objects.get(&(namespace.map(str::to_owned), name.to_owned())).cloned()
    }

    /// All objects of a namespace, or all, ordered by namespace and name.
    pub(super) fn list(&self, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let Some(namespace) = namespace else { return self.objects.values().cloned().collect() };
        let from = (Some(namespace.to_owned()), String::new());
        let inside = |((of, _), _): &(&Name, &Arc<Object>)| of.as_deref() == Some(namespace);
        self.objects.range(from..).take_while(inside).map(|(_, object)| object.clone()).collect()
    }

    /// Takes over a complete list that was read at `version`.
    pub(super) fn replace(&mut self, gvk: &Gvk, list: Vec<Object>, version: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut old = std::mem::take(&mut self.objects);
        self.gone.clear();
        self.position = version;
        for object in list {
            let name = name_of(&object);
            let before = old.remove(&name);
            let newer = before.as_ref().filter(|before| is_newer(before, version_of(&object)));
            let kept = newer.cloned().unwrap_or_else(|| Arc::new(object));
            if before.is_none_or(|before| before.resource_version() != kept.resource_version()) {
                changes.push(change(gvk, &name, false));
            }
            self.objects.insert(name, kept);
        }
        for (name, object) in old {
            // Written after the list was read: the watch will bring it.
            if is_newer(&object, Some(version)) {
                self.objects.insert(name, object);
            } else {
                changes.push(change(gvk, &name, true));
            }
        }
        changes
    }

    /// Takes over an ADDED or MODIFIED event.
    pub(super) fn seen(&mut self, gvk: &Gvk, object: Object) -> Option<Change> {
        let version = version_of(&object);
        self.advance(version);
        self.enter(gvk, object, version).map(|(_, change)| change)
    }

    /// Takes over a DELETED event.
    pub(super) fn seen_deleted(&mut self, gvk: &Gvk, object: &Object) -> Option<Change> {
        self.advance(version_of(object));
        self.gone.remove(object.uid());
        let name = name_of(object);
        let present = self.objects.get(&name)?;
        // A successor of the same name, which we made and the watch has not brought yet, stays.
        if present.uid() != object.uid() && is_newer(present, version_of(object)) {
            return None;
        }
        self.objects.remove(&name);
        Some(change(gvk, &name, true))
    }

    /// Takes over the answer to a write of ours.
    pub(super) fn written(&mut self, gvk: &Gvk, object: Object) -> (Arc<Object>, Option<Change>) {
        let version = version_of(&object);
        if version.is_some_and(|version| version <= self.position) {
            // The watch was faster: it has this, or what became of it.
            return (Arc::new(object), None);
        }
        let answer = Arc::new(object);
        match self.enter(gvk, answer.clone(), version) {
            Some((_, change)) => (answer, Some(change)),
            None => (answer, None),
        }
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
        if uid.is_some_and(|uid| uid != present.uid()) {
            return None;
        }
        self.gone.insert(present.uid().to_owned());
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

    fn enter(
        &mut self,
        gvk: &Gvk,
        object: impl Into<Arc<Object>>,
        version: Option<u64>,
    ) -> Option<(Arc<Object>, Change)> {
        let object = object.into();
        if self.gone.contains(object.uid()) {
            return None;
        }
        let name = name_of(&object);
        if let Some(present) = self.objects.get(&name)
            && (is_newer(present, version) || present.resource_version() == object.resource_version())
        {
            return None;
        }
        self.objects.insert(name.clone(), object.clone());
        Some((object, change(gvk, &name, false)))
    }
}

fn is_newer(present: &Object, version: Option<u64>) -> bool {
    matches!((version_of(present), version), (Some(present), Some(version)) if present > version)
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

    fn listed() -> Store {
        let mut store = Store::default();
        let changes = store.replace(&gvk(), vec![object("a", "ua", 3), object("b", "ub", 5)], 5);
        assert_eq!(changes.len(), 2);
        store
    }

    #[test]
    fn a_write_is_read_back_before_the_watch_brings_it() {
        let mut store = listed();
        let (_, change) = store.written(&gvk(), object("a", "ua", 9));
        assert!(change.is_some());
        assert_eq!(version(&store, "a"), Some(9));
        assert_eq!(store.seen(&gvk(), object("a", "ua", 7)), None, "an event from before the write is old news");
        assert_eq!(store.seen(&gvk(), object("a", "ua", 9)), None, "and the write itself is known");
        assert_eq!(version(&store, "a"), Some(9));
        assert!(store.seen(&gvk(), object("a", "ua", 10)).is_some());
    }

    #[test]
    fn an_answer_that_the_watch_overtook_changes_nothing() {
        let mut store = listed();
        store.seen(&gvk(), object("c", "uc", 6));
        store.seen_deleted(&gvk(), &object("c", "uc", 7));
        assert_eq!(store.written(&gvk(), object("c", "uc", 6)).1, None);
        assert_eq!(version(&store, "c"), None, "a deleted object does not come back");
        store.seen(&gvk(), object("a", "ua", 9));
        store.written(&gvk(), object("a", "ua", 8));
        assert_eq!(version(&store, "a"), Some(9));
    }

    #[test]
    fn what_we_deleted_stays_gone_until_it_is_made_again() {
        let mut store = listed();
        assert!(store.removed(&gvk(), Some("test"), "a", None).is_some());
        assert_eq!(store.seen(&gvk(), object("a", "ua", 8)), None, "an event from before the delete");
        assert_eq!(version(&store, "a"), None);
        store.written(&gvk(), object("a", "ua2", 10));
        assert_eq!(store.seen_deleted(&gvk(), &object("a", "ua", 9)), None, "of the first one");
        assert_eq!(version(&store, "a"), Some(10));
        assert_eq!(store.removed(&gvk(), Some("test"), "b", Some("other")), None, "not this one");
    }

    #[test]
    fn a_new_list_drops_what_it_lacks_but_not_what_is_newer() {
        let mut store = listed();
        store.written(&gvk(), object("new", "un", 12));
        store.written(&gvk(), object("a", "ua", 13));
        let changes = store.replace(&gvk(), vec![object("a", "ua", 3), object("d", "ud", 10)], 11);
        let names: Vec<_> = changes.iter().map(|change| (change.key.name.as_str(), change.deleted)).collect();
        assert_eq!(names, [("d", false), ("b", true)]);
        assert_eq!(version(&store, "new"), Some(12));
        assert_eq!(version(&store, "a"), Some(13));
        assert_eq!(store.list(Some("test")).len(), 3);
        assert_eq!(store.list(Some("other")).len(), 0);
        assert_eq!(store.clear(&gvk()).len(), 3);
    }
}
