//! A small in-memory cluster for tests: server-side apply with field ownership over plain JSON, no watches.
//!
//! Lists are replaced as a whole, except owner references (by uid) and Service ports (by port), as the API server's
//! schemas say for the kinds that tests use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use crate::domain::{FieldManager, Gvk, Object, ObjectKey};
use crate::ports::{Change, Cluster, ClusterError, KubeEvent};

/// The cluster.
pub(crate) struct MemoryCluster {
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    applied: BTreeMap<(ObjectKey, &'static str), Value>,
    version: u64,
    writes: usize,
    events: Vec<KubeEvent>,
}

impl Default for MemoryCluster {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: broadcast::channel(64).0 }
    }
}

impl MemoryCluster {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts an object in as it is, as another client would; not counted as a write.
    pub(crate) fn seed(&self, object: Object) {
        self.state().objects.insert(object.key(), Arc::new(object));
    }

    /// Takes an object away, with all memory of who owned what.
    pub(crate) fn remove(&self, key: &ObjectKey) {
        let mut state = self.state();
        state.objects.remove(key);
        state.applied.retain(|(owned, _), _| owned != key);
    }

    /// An object as it is now.
    pub(crate) fn peek(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.state().objects.get(key).cloned()
    }

    /// How many writes there were.
    pub(crate) fn writes(&self) -> usize {
        self.state().writes
    }

    fn store(&self, state: &mut State, key: &ObjectKey, mut value: Value) -> Arc<Object> {
        state.version += 1;
        state.writes += 1;
        let before = state.objects.get(key);
        let changed = before.is_none_or(|before| before.at("/spec") != value.get("spec"));
        let generation = before.map_or(0, |before| before.generation()) + i64::from(changed);
        let uid = before.map_or_else(|| format!("uid-{}", state.version), |before| before.uid().to_owned());
        value["metadata"]["uid"] = json!(uid);
        value["metadata"]["generation"] = json!(generation);
        value["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let object = Arc::new(Object(value));
        state.objects.insert(key.clone(), object.clone());
        self.changes.send(Change { key: key.clone(), deleted: false }).ok();
        object
    }
}

#[async_trait]
impl Cluster for MemoryCluster {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Object>>, ClusterError> {
        Ok(self.peek(key))
    }

    async fn list(&self, gvk: &Gvk, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, ClusterError> {
        let state = self.state();
        let wanted = state.objects.iter().filter(|(key, _)| {
            key.gvk == *gvk && namespace.is_none_or(|namespace| key.namespace.as_deref() == Some(namespace))
        });
        Ok(wanted.map(|(_, object)| object.clone()).collect())
    }

    async fn is_namespaced(&self, _: &Gvk) -> Result<bool, ClusterError> {
        Ok(true)
    }

    async fn apply(&self, object: &Object, manager: FieldManager) -> Result<Arc<Object>, ClusterError> {
        let key = object.key();
        let mut state = self.state();
        let live = state.objects.get(&key).cloned();
        let stale = |field: &str| {
            let wanted = object.str(&format!("/metadata/{field}"));
            !wanted.is_empty() && live.as_ref().is_none_or(|live| live.str(&format!("/metadata/{field}")) != wanted)
        };
        if stale("resourceVersion") || stale("uid") {
            return Err(ClusterError::Conflict { key, message: "precondition failed".to_owned() });
        }
        let mut value = live.as_ref().map_or_else(|| json!({"metadata": {}}), |live| live.0.clone());
        let others: Vec<Value> = state
            .applied
            .iter()
            .filter(|((owned, by), _)| *owned == key && *by != manager.as_str())
            .map(|(_, applied)| applied.clone())
            .collect();
        if let Some(before) = state.applied.get(&(key.clone(), manager.as_str())) {
            release(&mut value, before, &object.0, &others.iter().collect::<Vec<_>>());
        }
        overlay(&mut value, &object.0, "");
        state.applied.insert((key.clone(), manager.as_str()), object.0.clone());
        let entries: Vec<Value> = state
            .applied
            .iter()
            .filter(|((owned, _), _)| *owned == key)
            .map(|((_, by), applied)| json!({"manager": by, "operation": "Apply", "fieldsV1": fields(applied)}))
            .collect();
        value["metadata"]["managedFields"] = Value::Array(entries);
        if let Some(live) = live.filter(|live| live.0 == value) {
            return Ok(live);
        }
        Ok(self.store(&mut state, &key, value))
    }

    async fn patch(
        &self,
        key: &ObjectKey,
        _: Option<&str>,
        patch: &Value,
        _: FieldManager,
    ) -> Result<Arc<Object>, ClusterError> {
        let mut state = self.state();
        let Some(live) = state.objects.get(key).cloned() else { return Err(ClusterError::NotFound(key.clone())) };
        let mut value = live.0.clone();
        merge_patch(&mut value, patch);
        Ok(self.store(&mut state, key, value))
    }

    async fn delete(&self, key: &ObjectKey, _: Option<&str>) -> Result<(), ClusterError> {
        self.remove(key);
        self.state().writes += 1;
        self.changes.send(Change { key: key.clone(), deleted: true }).ok();
        Ok(())
    }

    async fn publish(&self, event: KubeEvent) {
        self.state().events.push(event);
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}

/// Takes out what this manager applied before and no longer applies, unless another manager applies it too.
fn release(live: &mut Value, before: &Value, now: &Value, others: &[&Value]) {
    let (Some(live), Some(before)) = (live.as_object_mut(), before.as_object()) else { return };
    for (key, old) in before {
        let others: Vec<&Value> = others.iter().filter_map(|other| other.get(key)).collect();
        match (now.get(key), live.get_mut(key)) {
            (Some(new), Some(live)) => release(live, old, new, &others),
            (None, Some(inner)) if inner.is_object() => {
                release(inner, old, &Value::Object(Map::new()), &others);
                if others.is_empty() && inner.as_object().is_some_and(Map::is_empty) {
                    live.remove(key);
                }
            }
            (None, Some(_)) if others.is_empty() => drop(live.remove(key)),
            _ => {}
        }
    }
}

fn overlay(live: &mut Value, applied: &Value, field: &str) {
    let id = match field {
        "ownerReferences" => "uid",
        "ports" => "port",
        _ => "",
    };
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            for (key, value) in applied {
                overlay(live.entry(key.clone()).or_insert(Value::Null), value, key);
            }
        }
        (Value::Array(live), Value::Array(applied)) if !id.is_empty() => {
            for item in applied {
                match live.iter_mut().find(|present| present.get(id) == item.get(id)) {
                    Some(present) => overlay(present, item, ""),
                    None => live.push(item.clone()),
                }
            }
        }
        (live, applied) => *live = applied.clone(),
    }
}

fn merge_patch(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Some(target) = target.as_object_mut() {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge_patch(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

fn fields(value: &Value) -> Value {
    let Some(map) = value.as_object() else { return json!({}) };
    map.iter().map(|(key, value)| (format!("f:{key}"), fields(value))).collect::<Map<_, _>>().into()
}
