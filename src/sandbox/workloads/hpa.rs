//! The horizontal pod autoscaler (`autoscaling/v2`): follows the request rate between its bounds.
//!
//! Simulated CPU: one pod is at its target with 50 requests per second, whatever metric the autoscaler names. It looks
//! every 15 seconds, the first time 15 seconds after it was made (the real one's queue has that delay), and not at all for a target with 0 replicas, as the real one does, or when its bounds are equal.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta::{condition, later, stamp, time_at};
use super::{Outcome, World, Write};
use crate::domain::{Gvk, Object, ObjectKey};

/// Requests per second that bring one pod to its target.
const PER_POD: f64 = 50.0;
const PERIOD: Duration = Duration::from_secs(15);

/// Looks at one autoscaler.
pub(super) fn reconcile(world: &dyn World, hpa: &Object, now: Timestamp, out: &mut Outcome) -> Option<Timestamp> {
    if hpa.is_terminating() {
        return None;
    }
    let first = hpa.at("/metadata").and_then(|metadata| time_at(metadata, "/creationTimestamp"));
    if let Some(first) = first.map(|made| later(made, PERIOD)).filter(|first| *first > now) {
        return Some(first);
    }
    let namespace = hpa.namespace().unwrap_or_default();
    let reference = |field: &str| hpa.str(&format!("/spec/scaleTargetRef/{field}")).to_owned();
    let key = ObjectKey::namespaced(&reference("apiVersion"), &reference("kind"), namespace, &reference("name"));
    let Some(target) = world.get(&key) else {
        update(hpa, 0, 0, Some("FailedGetScale"), now, out);
        return None;
    };
    let present = target.int("/spec/replicas").unwrap_or(1);
    if present == 0 {
        update(hpa, 0, 0, Some("ScalingDisabled"), now, out);
        return None;
    }
    let least = hpa.int("/spec/minReplicas").unwrap_or(1);
    let most = hpa.int("/spec/maxReplicas").unwrap_or(least).max(least);
    let rate = rate(world, &target);
    let desired = ((rate / PER_POD).ceil() as i64).clamp(least, most);
    if desired != present {
        let mut scaled = Object::clone(&target);
        if let Some(spec) = scaled.0.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("replicas".to_owned(), json!(desired));
        }
        out.writes.push(Write::Put(scaled));
    }
    update(hpa, present, desired, None, now, out);
    (least < most).then(|| later(now, PERIOD))
}

fn rate(world: &dyn World, target: &Object) -> f64 {
    let sets = world.owned(target, &Gvk::new("apps/v1", "ReplicaSet"));
    let pods = sets.iter().flat_map(|set| world.owned(set, &Gvk::new("v1", "Pod")));
    pods.map(|pod| world.requests_per_second(&pod.key())).sum()
}

fn update(hpa: &Object, current: i64, desired: i64, inactive: Option<&str>, now: Timestamp, out: &mut Outcome) {
    let empty = Value::Null;
    let before = hpa.at("/status").unwrap_or(&empty);
    let value = if inactive.is_some() { "False" } else { "True" };
    let reason = inactive.unwrap_or("ValidMetricFound");
    let since = condition(before, "ScalingActive")
        .filter(|present| present.get("status").and_then(Value::as_str) == Some(value))
        .and_then(|present| present.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| json!(stamp(now)));
    let status = json!({
        "observedGeneration": hpa.generation(), "currentReplicas": current, "desiredReplicas": desired,
        "conditions": [
            {"type": "ScalingActive", "status": value, "reason": reason, "message": "", "lastTransitionTime": since},
        ],
    });
    if *before != status {
        out.writes.push(Write::Status { key: hpa.key(), status });
    }
}
