//! A cluster in a map, for the tests of workloads and traffic.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Outcome, Workloads, World, Write};
use crate::domain::{Gvk, Object, ObjectKey};

/// Objects, the time, and the controllers that play on them.
#[derive(Default)]
pub(crate) struct Cluster {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    changed: BTreeSet<ObjectKey>,
    workloads: Workloads,
    now: Timestamp,
    uid: u64,
    pub(crate) rate: f64,
    pub(crate) wake: Option<Timestamp>,
    pub(crate) writes: usize,
    pub(crate) reads: Cell<usize>,
}

impl World for Cluster {
    fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.reads.set(self.reads.get() + 1);
        self.objects.get(key).cloned()
    }

    fn list(&self, gvk: &Gvk, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let wanted =
            |key: &ObjectKey| key.gvk == *gvk && (namespace.is_none() || key.namespace.as_deref() == namespace);
        self.objects.iter().filter(|(key, _)| wanted(key)).map(|(_, object)| Arc::clone(object)).collect()
    }

    fn requests_per_second(&self, _pod: &ObjectKey) -> f64 {
        self.rate
    }
}

impl Cluster {
    /// Creates or replaces an object, status included when the object has one.
    pub(crate) fn put(&mut self, mut value: Value) {
        let key = Object(value.clone()).key();
        let old = self.objects.get(&key).cloned();
        let generation = match &old {
            Some(old) if old.0["spec"] == value["spec"] => old.generation(),
            Some(old) => old.generation() + 1,
            None => 1,
        };
        value["metadata"]["generation"] = json!(generation);
        if old.is_none() {
            self.uid += 1;
            value["metadata"]["uid"] = json!(format!("uid-{}", self.uid));
            value["metadata"]["creationTimestamp"] = json!(super::meta::stamp(self.now));
        }
        if let Some(old) = old {
            value["metadata"]["uid"] = json!(old.uid());
            value["metadata"]["creationTimestamp"] = old.0["metadata"]["creationTimestamp"].clone();
            value["status"] = old.0["status"].clone();
        }
        self.objects.insert(key.clone(), Arc::new(Object(value)));
        self.changed.insert(key);
    }

    /// Changes one field of an object.
    pub(crate) fn set(&mut self, key: &ObjectKey, pointer: &str, value: Value) {
        let mut object = self.objects[key].0.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value;
        self.put(object);
    }

    pub(crate) fn delete(&mut self, key: &ObjectKey) {
        let Some(gone) = self.objects.remove(key) else { return };
        self.changed.insert(key.clone());
        let owned = |object: &&Arc<Object>| super::meta::is_controlled_by(object, gone.uid());
        let owned: Vec<_> = self.objects.values().filter(owned).map(|object| object.key()).collect();
        owned.iter().for_each(|key| self.delete(key));
    }

    /// Lets the controllers act until they rest; the keys that changed since the last call.
    pub(crate) fn settle(&mut self) -> BTreeSet<ObjectKey> {
        let mut all = BTreeSet::new();
        for _ in 0..200 {
            let changed = std::mem::take(&mut self.changed);
            all.extend(changed.iter().cloned());
            let mut workloads = std::mem::take(&mut self.workloads);
            let Outcome { writes, wake } = workloads.react(self, self.now, &changed);
            (self.workloads, self.wake) = (workloads, wake);
            if writes.is_empty() {
                return all;
            }
            self.writes += writes.len();
            for write in writes {
                match write {
                    Write::Put(object) => self.put(object.0),
                    Write::Status { key, status } => {
                        let mut object = self.objects[&key].0.clone();
                        object["status"] = status;
                        self.objects.insert(key.clone(), Arc::new(Object(object)));
                        self.changed.insert(key);
                    }
                    Write::Annotate { key, name, value } => {
                        let mut object = self.objects[&key].0.clone();
                        object["metadata"]["annotations"][name] = json!(value);
                        self.objects.insert(key.clone(), Arc::new(Object(object)));
                        self.changed.insert(key);
                    }
                    Write::Delete(key) => self.delete(&key),
                }
            }
        }
        panic!("the controllers never rest: {:?}", self.changed);
    }

    /// Goes on to `end`, stopping at every wake.
    pub(crate) fn run_until(&mut self, end: Timestamp) {
        self.run_with(end, |_, _, _| {});
    }

    /// Goes on to `end`, and tells at every stop what changed.
    pub(crate) fn run_with(&mut self, end: Timestamp, mut tell: impl FnMut(&Self, Timestamp, &BTreeSet<ObjectKey>)) {
        let changed = self.settle();
        tell(self, self.now, &changed);
        while let Some(wake) = self.wake.filter(|wake| *wake <= end) {
            self.now = wake;
            let changed = self.settle();
            tell(self, self.now, &changed);
        }
        self.now = end;
    }

    /// Sets the time without asking anybody.
    pub(crate) fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }
}
