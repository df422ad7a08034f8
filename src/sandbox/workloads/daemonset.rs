//! The DaemonSet controller on a cluster of one node: one pod, or none when the node selector does not fit, which is
//! how Flagger scales a DaemonSet to zero. An update replaces the pod.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta::{count, later, set_meta, suffix, template_hash};
use super::replicaset::{pod, ready_since};
use super::{NODE, Outcome, World, Write};
use crate::domain::{Gvk, Object};

const HASH: &str = "controller-revision-hash";

/// Looks at one DaemonSet.
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
    // The node selector decides where pods go, not what they are: changing it alone restarts nothing here.
    let desired = i64::from(fits_node(set));
    let hash = template_hash(set.at("/spec/template").unwrap_or(&Value::Null));
    let mut pods = world.owned(set, &Gvk::new("v1", "Pod"));
    pods.retain(|pod| !pod.is_terminating());
    let quiet_time = std::time::Duration::from_secs(count(set, "/spec/minReadySeconds").unsigned_abs());
    let updated = pods.iter().filter(|pod| pod.labels().get(HASH) == Some(&hash)).count();
    let ready = pods.iter().filter(|pod| ready_since(pod).is_some()).count();
    let due = |pod: &Object| ready_since(pod).map(|since| later(since, quiet_time));
    let available = pods.iter().filter_map(|pod| due(pod)).filter(|due| *due <= now).count();
    let scheduled = if desired == 0 { 0 } else { pods.len() };
    let status = json!({
        "currentNumberScheduled": scheduled, "desiredNumberScheduled": desired,
        "numberMisscheduled": pods.len() - scheduled, "numberReady": ready.min(scheduled),
        "numberAvailable": available.min(scheduled), "updatedNumberScheduled": updated.min(scheduled),
        "numberUnavailable": desired - i64::try_from(available.min(scheduled)).unwrap_or(0),
        "observedGeneration": set.generation(),
    });
    if set.at("/status") != Some(&status) {
        out.writes.push(Write::Status { key: set.key(), status });
    }
    let on_delete = set.str("/spec/updateStrategy/type") == "OnDelete";
    let stale = |pod: &Object| desired == 0 || (!on_delete && pod.labels().get(HASH) != Some(&hash));
    let (gone, kept): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| stale(pod));
    out.writes.extend(gone.iter().map(|pod| Write::Delete(pod.key())));
    if desired > 0 && kept.is_empty() {
        let mut new = pod(set, &format!("{}-{}", set.name(), suffix(seed, &format!("{}/{now}/{hash}", set.uid()))));
        set_meta(&mut new, "labels", HASH, &hash);
        out.writes.push(Write::Put(new));
    }
    pods.iter().filter_map(|pod| due(pod)).filter(|due| *due > now).min()
}

fn fits_node(set: &Object) -> bool {
    let labels = [
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("kubernetes.io/hostname", NODE),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", "amd64"),
    ];
    let selector = set.at("/spec/template/spec/nodeSelector").and_then(Value::as_object);
    selector
        .into_iter()
        .flatten()
        .all(|(name, value)| labels.iter().any(|(n, v)| n == name && value.as_str() == Some(v)))
}
