//! SMI's TrafficSplit.

use serde_json::Value;

use super::{Share, workload};
use crate::domain::ObjectKey;
use crate::sandbox::traffic::Load;
use crate::sandbox::traffic::flow::About;
use crate::sandbox::traffic::meters::Meter;
use crate::sandbox::workloads::World;

/// SMI: the TrafficSplit of the app's name, in whatever version. Backends get their part of the weights; a split without
/// weights leaves the Service as it is.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let key = |version: &str| {
        let api_version = format!("split.smi-spec.io/{version}");
        ObjectKey::namespaced(&api_version, "TrafficSplit", &load.namespace, &load.app)
    };
    let split = ["v1alpha1", "v1alpha2", "v1alpha3"].iter().find_map(|version| world.get(&key(version)))?;
    let backends = split.at("/spec/backends").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let weight = |backend: &Value| {
        let weight = backend.get("weight");
        weight.and_then(|weight| weight.as_f64().or_else(|| weight.as_str()?.parse().ok())).unwrap_or(0.0)
    };
    let total: f64 = backends.iter().map(weight).sum();
    let share = |backend: &Value| {
        let service = backend.get("service").and_then(Value::as_str).unwrap_or_default().to_owned();
        let counted = workload(world, &load.namespace, &service).map(|name| About::Meter(Meter::Workload(name)));
        Share { service, counted, fraction: weight(backend) / total }
    };
    (total > 0.0).then(|| backends.iter().filter(|backend| weight(backend) > 0.0).map(share).collect())
}
