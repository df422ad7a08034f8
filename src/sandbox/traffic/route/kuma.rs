//! Kuma's TrafficRoute.

use serde_json::Value;

use super::{Share, list, lost, share};
use crate::domain::{Gvk, ObjectKey};
use crate::sandbox::traffic::Load;
use crate::sandbox::traffic::flow::About;
use crate::sandbox::traffic::meters::Meter;
use crate::sandbox::workloads::World;

/// The TrafficRoute of the app's name, which is in no namespace. Services are named `SVC_NS_svc_PORT`.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let gvk = Gvk::new("kuma.io/v1alpha1", "TrafficRoute");
    let route = world.get(&ObjectKey { gvk, namespace: None, name: load.app.clone() })?;
    let conf = route.at("/spec/conf").cloned().unwrap_or_default();
    let weight = |entry: &Value| entry.get("weight").and_then(Value::as_f64).unwrap_or(0.0);
    let total: f64 = list(&conf, "split").iter().map(weight).sum();
    let mut shares = Vec::new();
    for entry in list(&conf, "split").iter().filter(|_| total > 0.0) {
        let name = entry.pointer("/destination/kuma.io~1service").and_then(Value::as_str).unwrap_or_default();
        let service = name.split('_').next().unwrap_or_default();
        let counted = Some(About::Meter(Meter::Envoy(vec![("service", name.to_owned())])));
        share(&mut shares, service, counted, weight(entry) / total);
    }
    shares.extend(lost(if total > 0.0 { 0.0 } else { 1.0 }));
    Some(shares)
}
