//! The ReplicaSet controller: as many pods as wanted, and their count.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta::{condition, count, later, owned_by, suffix, time_at, without_zeros};
use super::{NODE, Outcome, World, Write};
use crate::domain::{Gvk, Object, ObjectKey};

/// Looks at one ReplicaSet.
pub(super) fn reconcile(
    world: &dyn World,
    set: &Object,
    now: Timestamp,
    seed: u64,
    out: &mut Outcome,
) -> Option<Timestamp> {
    if set.is_terminating() {
        return None;
    }
    let wanted = usize::try_from(set.int("/spec/replicas").unwrap_or(1)).unwrap_or(0);
    let mut pods = world.owned(set, &Gvk::new("v1", "Pod"));
    pods.retain(|pod| !pod.is_terminating());
    let quiet_time = Duration::from_secs(count(set, "/spec/minReadySeconds").unsigned_abs());
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let due = |pod: &Arc<Object>| ready_since(pod).map(|since| later(since, quiet_time));
    let available = pods.iter().filter_map(due).filter(|due| *due <= now).count();
    let wake = pods.iter().filter_map(due).filter(|due| *due > now).min();
    let status = without_zeros(
        json!({
            "replicas": pods.len(), "fullyLabeledReplicas": pods.len(), "readyReplicas": ready,
            "availableReplicas": available, "terminatingReplicas": 0, "observedGeneration": set.generation(),
        }),
        &["replicas", "terminatingReplicas", "observedGeneration"],
    );
    if set.at("/status") != Some(&status) {
        out.writes.push(Write::Status { key: set.key(), status });
    }
    for ordinal in pods.len()..wanted {
        let mut salt = ordinal;
        let name = loop {
            let name = format!("{}-{}", set.name(), suffix(seed, &format!("{}/{salt}/{now}", set.uid())));
            let key = ObjectKey::namespaced("v1", "Pod", set.namespace().unwrap_or_default(), &name);
            if world.get(&key).is_none() && !out.puts(&key) {
                break name;
            }
            salt += wanted;
        };
        out.writes.push(Write::Put(pod(set, &name)));
    }
    if pods.len() > wanted {
        // Pods that are not ready go first, then the youngest.
        pods.sort_by_key(|pod| {
            (is_ready(pod), Reverse(pod.str("/metadata/creationTimestamp").to_owned()), pod.name().to_owned())
        });
        out.writes.extend(pods.iter().take(pods.len() - wanted).map(|pod| Write::Delete(pod.key())));
    }
    wake
}

/// A pod of a ReplicaSet or DaemonSet, bound to the one node.
pub(super) fn pod(owner: &Object, name: &str) -> Object {
    let template = owner.at("/spec/template").cloned().unwrap_or_default();
    let part = |pointer: &str| template.pointer(pointer).cloned().unwrap_or_else(|| json!({}));
    let mut spec = part("/spec");
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("nodeName".to_owned(), json!(NODE));
    }
    Object(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": owner.namespace(), "generateName": format!("{}-", owner.name()),
            "labels": part("/metadata/labels"), "annotations": part("/metadata/annotations"),
            "ownerReferences": owned_by(owner),
        },
        "spec": spec,
    }))
}

/// Whether the pod's condition Ready is true and it is not going away.
pub(crate) fn is_ready(pod: &Object) -> bool {
    ready_since(pod).is_some()
}

/// Since when the pod is ready.
pub(super) fn ready_since(pod: &Object) -> Option<Timestamp> {
    let status = pod.at("/status").filter(|_| !pod.is_terminating())?;
    let ready = condition(status, "Ready")?;
    if ready.get("status").and_then(Value::as_str) != Some("True") {
        return None;
    }
    time_at(ready, "/lastTransitionTime")
}
